"""python docs/methods.py > docs/methods.md

Every method as the code has it: formula, source, size on BERT base, and the keys of its config with their defaults.
"""

import inspect
import sys

import torch
import yaml
from transformers import BertConfig, BertModel

from metaprime.models.sites import BERT, resolve
from metaprime.peft import METHODS, Method
from metaprime.reports.wording import markdown


def page() -> str:
    """The whole page."""
    rows = [[f"[`{m.name}`](#{m.name})", f"`{m.formula}`", m.source, f"{_phi(m):,}"] for m in METHODS.values()]
    parts = [
        "# Methods\n",
        "Written by `python docs/methods.py > docs/methods.md`. Parameters are those of phi on BERT base (768 x 12), without "
        "the tag head; `metaprime peft list --encoder DIR` counts them on yours, `metaprime peft show NAME --encoder DIR` "
        "shows where they sit. s is `scale`, f `activation`, r `bottleneck` or `rank`, l `length`.\n",
        markdown(("method", "formula", "source", "parameters"), rows),
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
    sys.stdout.write(page())
