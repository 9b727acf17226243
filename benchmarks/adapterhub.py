"""Compares our logits with those of exported adapters in AdapterHub's own package.

    make adapterhub
    python benchmarks/adapterhub.py .venv-adapterhub/bin/python

The package needs transformers 4 and so an environment of its own, which the first line makes.

Each case has a small random encoder, random values for adapter and head, and two sentences of
different lengths. Writes benchmarks/results/adapterhub.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.func import functional_call
from transformers import AutoConfig, AutoModel

from metaprime.build.model import build_model
from metaprime.build.pretrain import make_tokenizer
from metaprime.config.sections import PretrainConfig
from metaprime.data.readers import synthetic
from metaprime.data.rows import Lengths
from metaprime.data.subwords import Subwords
from metaprime.interop.adapterhub import save_for_adapterhub
from metaprime.interop.classifier import Tuned
from metaprime.models.encoder import load_encoder
from metaprime.models.task_model import TaskModel, partition
from metaprime.nn import Adapter
from metaprime.peft import METHODS
from metaprime.reports.wording import markdown
from metaprime.rng import torch_stream
from metaprime.tasks.tagging.task import TaggingConfig, build
from metaprime.tasks.task import Text

RESULT = Path(__file__).parent / "results" / "adapterhub.md"
SHAPE = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "pad_token_id": 0,
}
ENCODERS = ("bert", "xlm-roberta", "electra")
CASES: list[tuple[str, dict[str, Any]]] = [
    ("pfeiffer", {"bottleneck": 7}),
    ("pfeiffer", {"bottleneck": 16, "composition": "learned", "activation": "gelu"}),
    ("houlsby", {"bottleneck": 7, "activation": "silu"}),
    ("houlsby", {"bottleneck": 12, "layer_norm": "in"}),
    ("parallel", {"bottleneck": 11}),
    ("scaled_parallel", {"bottleneck": 16, "activation": "tanh"}),
    ("lora", {"rank": 3, "alpha": 5.0}),
    ("ffn_lora", {"rank": 4}),
    ("prefix", {"length": 5}),
    ("mam", {"prefix": {"length": 4}, "scaled_parallel": {"bottleneck": 12}}),
]
TOLERANCE = 1e-5
"""Largest difference of equal logits, as a share of the largest logit."""

LOAD = """
import sys
import torch, transformers, adapters
from safetensors.torch import load_file, save_file
encoder, saved, inputs, out = sys.argv[1:]
model = adapters.AutoAdapterModel.from_pretrained(encoder)
model.load_adapter(saved, set_active=True, use_safetensors=True)
with torch.no_grad():
    logits = model.eval()(**load_file(inputs)).logits
save_file({"logits": logits.contiguous()}, out)
print(f"adapters {adapters.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")
"""


def difference(
    python: str, model_type: str, method: str, settings: dict[str, Any], folder: Path
) -> tuple[float, float, str]:
    """Exports one adapter and compares the logits of both packages.

    Args:
        python: interpreter of AdapterHub's environment.
        model_type: architecture of the encoder.
        method: PEFT method.
        settings: settings of the method.
        folder: an empty folder.

    Returns:
        Largest difference between a logit there and ours, and largest change that the adapter makes
        to a logit, both as shares of the largest logit; versions of AdapterHub's environment.
    """
    # A random encoder with a tokenizer, and our model over it.
    torch.manual_seed(0)
    sentences = synthetic.read("", "qaa", "train")
    tokenizer = make_tokenizer(sentences, PretrainConfig(vocabulary=400))
    config = AutoConfig.for_model(model_type, vocab_size=len(tokenizer), initializer_range=0.2, **SHAPE)
    AutoModel.from_config(config).save_pretrained(folder / "encoder")
    tokenizer.save_pretrained(folder / "encoder")
    encoder = load_encoder(str(folder / "encoder"))
    task = build(TaggingConfig(), Text(Subwords(encoder.tokenizer), Lengths(64)))
    chosen = METHODS[method].config(**settings)
    model = build_model(encoder, task, chosen, task.encode(sentences[:4]))

    # Random values for adapter and head; two sentences, the second padded.
    draw, state = torch_stream(0, "adapterhub"), partition(model)
    values = {k: 0.3 * torch.randn(v.shape, generator=draw) for k, v in {**state.adapter, **state.head}.items()}
    ids = torch.randint(5, 60, (2, 12), generator=draw)
    mask = (torch.arange(12) < torch.tensor([[12], [7]])).long()
    inputs = {"input_ids": ids * mask, "attention_mask": mask}

    # Logits of AdapterHub's package.
    (folder / "adapter").mkdir()
    save_for_adapterhub(Tuned(encoder, chosen, task.labels, values), folder / "adapter")
    save_file(inputs, folder / "inputs")
    words = [folder / "encoder", folder / "adapter", folder / "inputs", folder / "out"]
    done = subprocess.run([python, "-c", LOAD, *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{model_type} {method} {settings}: {done.stderr[-2000:]}")
    theirs = load_file(folder / "out")["logits"][mask.bool()]

    # Our logits, with the adapter and without it.
    bare = TaskModel(encoder.module, Adapter(), model.head).eval()
    heads = {name: value for name, value in values.items() if name.startswith("head.")}
    with torch.no_grad():
        ours = functional_call(model, values, (inputs,))[mask.bool()]
        without = functional_call(bare, heads, (inputs,))[mask.bool()]
    found, made = (float((ours - other).abs().max() / ours.abs().max()) for other in (theirs, without))
    return found, made, done.stdout.strip().splitlines()[-1]


def main(python: str) -> None:
    rows, versions = [], ""
    for model_type in ENCODERS:
        for method, settings in CASES:
            with tempfile.TemporaryDirectory() as folder:
                found, made, versions = difference(python, model_type, method, settings, Path(folder))
            equal = "yes" if found < TOLERANCE else "NO"
            rows.append([model_type, method, f"`{json.dumps(settings)}`", f"{made:.2f}", f"{found:.1e}", equal])
            print(rows[-1], flush=True)
    header = ("encoder", "method", "settings", "largest change by the adapter", "largest difference", "equal")
    RESULT.write_text(
        "# Our adapters in AdapterHub's package\n\n"
        f"Logits of two sentences, small random encoders, float32, as shares of the largest logit; equal: within "
        f"{TOLERANCE:g}.\n\n"
        + markdown(header, rows)
        + f"\nWritten by `python benchmarks/adapterhub.py .venv-adapterhub/bin/python`; there: {versions}.\n",
        encoding="utf-8",
    )
    if any(row[-1] == "NO" for row in rows):
        raise SystemExit("not equal: see the table")


if __name__ == "__main__":
    main(sys.argv[1])
