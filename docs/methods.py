"""python docs/methods.py

Writes docs/methods.md: every method as the code has it, with formula, source, size on BERT base, and the keys of its config
with their defaults.
"""

import inspect
from pathlib import Path

import torch
import yaml
from transformers import BertConfig, BertModel

from metaprime.models.sites import BERT, resolve
from metaprime.peft import METHODS, Method
from metaprime.reports.wording import markdown

PAGE = Path(__file__).parent / "methods.md"

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
metaprime peft export CELL OUT --format adapterhub
```

`metaprime peft export` writes a transfer's adapter and head for other packages:

| format | methods |
|---|---|
| `peft`, for Hugging Face's peft | `lora`, `ffn_lora`, `ia3`, `prompt`, `prefix` with `shift_positions: true`, `hf` |
| `adapterhub`, for AdapterHub | `houlsby`, `pfeiffer`, `parallel`, `scaled_parallel`, `prefix`, `lora`, `ffn_lora`, `mam` |
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
    ]
    return "\n".join([*parts, *(_section(method) for method in METHODS.values())])


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
