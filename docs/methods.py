"""python docs/methods.py

Writes docs/methods.md: every method as the code has it, with formula, source, size on BERT base, and the keys of its config
with their defaults.
"""

import copy
import inspect
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
import yaml
from peft import PeftType
from transformers import BertConfig, BertModel

from metaprime.interop.classifier import Tuned
from metaprime.models.encoder import Encoder, quiet
from metaprime.models.sites import BERT, resolve
from metaprime.peft import METHODS, Method
from metaprime.peft.settings import why_not
from metaprime.reports.wording import markdown
from metaprime.transfers.export import FORMATS
from metaprime.types import MetaprimeError

PAGE = Path(__file__).parent / "methods.md"
WIDTH = 32

PEFT = f"""### Every method of peft {version("peft")}

A test primes, fine-tunes and exports each of them on a small encoder and reads the export with
peft's own loader, or finds it refused with this reason. Some need settings that fit the width of
the encoder, which their messages name.
"""
PEFT_HEADER = ("`peft_type`", "priming", "transfer and export", "reason")

USAGE = """## Use a method

```yaml
peft: {method: pfeiffer, bottleneck: 48}
transfer:
  methods: [pfeiffer, head, full, {method: lora, rank: 4}]
```

The section `peft` is the method that priming simulates. `transfer.methods` lists those that are
fine-tuned afterwards: names, or mappings with settings. A name has the settings of the section
`peft` where that is its method, and its defaults otherwise. Cells and tables call a method by its
name, and by its settings where they are not the defaults: `lora-rank4`.

- Adapters: `houlsby`, `pfeiffer`, `parallel`, `scaled_parallel`, `parallel_attention`,
  `multihead_parallel`, and any point of He et al.'s design space as `bottleneck`.
- Prefixes, prompts, LoRA and vectors: `prefix`, `prompt`, `lora`, `ffn_lora`, `mam`, `ia3`,
  `bitfit`.
- Controls: `head` moves the head alone, `full` everything; `full` is for fine-tuning only.
- A share `budget` of the weights themselves, kept as (indices, delta), so that the others stay to
  the last bit: `sam`, `fisher`, `magnitude`, `random_mask`, `child_pruning`, `diff_pruning`; and
  `mixout`.
- Whatever Hugging Face's peft can put into modules, by its own config: `peft: {method: hf, config:
  {peft_type: LORA, use_dora: true}}`.

What happens to adapter and head between meta-steps is `outer.adapter` and `outer.head`
([learners.md](learners.md)).

```
metaprime peft list --encoder DIR
metaprime peft show mam --encoder DIR
metaprime peft export CELL OUT --format transformers
```

`metaprime peft export` writes a transfer's model for other packages, with a model card:

| `--format` | what | loaded by |
|---|---|---|
| `peft` | adapter and head | `peft.AutoPeftModelForTokenClassification.from_pretrained(OUT)` |
| `adapterhub` | adapter and head | `model.load_adapter(OUT, use_safetensors=True)` of AdapterHub |
| `transformers` | encoder with the adapter in its weights, head, tokenizer | `pipeline("token-classification", OUT)` |

`AutoModelForTokenClassification.from_pretrained(OUT)` reads the last one too. AdapterHub's package
needs transformers 4, and so an environment of its own. For entities of running text give the pipeline
`aggregation_strategy="simple"`: with `"first"`, encoders whose pieces mark spaces (XLM-R) lose entities
in brackets and in scripts without spaces, as it takes what lies between two spaces for a word.

What was written for peft or transformers is loaded again by these loaders before it is kept, and
refused if its logits are not ours. peft's loader takes the labels from the encoder's config, where
priming writes them; for another encoder the card has the call with the labels in it. The
architecture's own token classifier must have one linear layer on the encoder, which ModernBERT's,
for one, has not.

A task of whole texts is exported as `AutoModelForSequenceClassification` (`peft` and `transformers`; a regression's output
is the number itself) or as `AutoModelForMultipleChoice` (`transformers`), from `task.pooling: first`: BERT's
classifiers and their like read the first sub-word alone (EuroBERT's can read the mean). Between it and the head
they have one more layer, BERT's pooler or RoBERTa's `dense`, which the export sets so that it lets the state pass: the
model is for use as it is, in float32 or bfloat16, not for float16 and not for further tuning. There is no class of
transformers for `span_pairs`.

With its default settings, on BERT:
"""


def page() -> str:
    """The whole page."""
    rows = [[f"[`{m.name}`](#{m.name})", f"`{m.formula}`", m.source, f"{_phi(m):,}"] for m in METHODS.values()]
    parts = [
        "# Methods\n",
        "Written by `python docs/methods.py`. Parameters are those of phi on BERT base (768 x 12), without "
        "the head; `metaprime peft list --encoder DIR` counts them on yours, `metaprime peft show NAME --encoder DIR` "
        "shows where they sit. s is `scale`, f `activation`, r `bottleneck` or `rank`, l `length`.\n",
        markdown(("method", "formula", "source", "parameters"), rows),
        USAGE,
        markdown(("method", *FORMATS), _exports()),
    ]
    return "\n".join(
        [*parts, *(_section(method) for method in METHODS.values()), PEFT, markdown(PEFT_HEADER, _types())]
    )


def _types() -> list[list[str]]:
    """Lists peft's methods with what each can be used for, or why not."""
    rows = []
    for kind in sorted(one.value for one in PeftType):
        if reason := why_not(kind):
            rows.append([f"`{kind}`", "no", "no", f"{kind} {reason}"])
            continue
        reason = METHODS["hf"].config(config={"peft_type": kind}).tuning_only
        rows.append([f"`{kind}`", "no" if reason else "yes", "yes", reason])
    return rows


def _exports() -> list[list[str]]:
    """Tries every format with every method, on a BERT of one narrow layer: yes, or the reason why not."""
    shape = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_attention_heads": 2, "num_hidden_layers": 1}
    module = BertModel(BertConfig(vocab_size=9, **shape))
    with TemporaryDirectory() as folder:
        with quiet():
            module.save_pretrained(folder)
        encoder = Encoder(module, cast(Any, None), BERT, folder, "")
        return [[f"`{name}`", *_answers(encoder, method)] for name, method in METHODS.items()]


def _answers(encoder: Encoder, method: Method) -> list[str]:
    adapter = method.inject(resolve(copy.deepcopy(encoder.module), BERT), method.config())
    values = {
        f"adapter.{name}": value.detach() for name, value in (*adapter.named_parameters(), *adapter.named_buffers())
    }
    values |= {"head.weight": torch.zeros(3, WIDTH), "head.bias": torch.zeros(3)}
    tuned, answers = Tuned(encoder, method.config(), ("O", "B-X", "I-X"), values), []
    for form in FORMATS.values():
        try:
            form.convert(tuned)
            answers.append("yes")
        except MetaprimeError as error:
            answers.append(str(error).removeprefix(f"peft.method {method.name!r} ").replace("|", "\\|"))
    return answers


def _phi(method: Method) -> int:
    with torch.device("meta"):
        modules = method.inject(resolve(BertModel(BertConfig()), BERT), method.config())
    return sum(parameter.numel() for parameter in modules.parameters())


def _section(method: Method) -> str:
    keys = yaml.safe_dump(method.config().model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=120)
    file = method.config.__module__.replace(".", "/") + ".py"
    return f"## {method.name}\n\n{inspect.getdoc(method.config)}\n\n```yaml\n{keys}```\n\nSee `{file}`.\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
