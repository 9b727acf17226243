"""A small suite over the default config, and files that stand for its finished cells."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from safetensors.torch import save_file

from metaprime.config.loading import load_config
from metaprime.models.encoder import Encoder
from metaprime.runs.artifact import CARD, VALUES
from metaprime.runs.folder import PRIMED
from metaprime.suite.cells import Priming, Rate, Transfers
from metaprime.suite.spec import ArmSection, SuitePlan, SuiteSection, make_plan

NONE = ArmSection(name="none", title="no priming", priming=None)
META = ArmSection(name="meta", title="meta-priming")
KEPT = ArmSection(name="kept", priming="meta", transfer=("transfer.start_head=primed",))
MULTITASK = ArmSection(name="multitask", set=("learner.name=multitask",), rate=0.5)
ENCODER = cast(Encoder, SimpleNamespace(name="base-encoder", weights="a" * 64))
"""A base encoder of which name and hash are all that is used."""

FEW = (
    f"encoder.name={ENCODER.name}",
    "data.languages=[qaa, qaf]",
    "data.validation_languages=[qac]",
    "data.target_languages=[qai, qao]",
    "outer.steps=4",
    "transfer.methods=[pfeiffer, head]",
    "transfer.shots=[8]",
    "inner.lr=0.1",
    "outer.lr=2e-3",
    "transfer.lr=[0.1, 0.3]",
)
RECORD: dict[str, Any] = {"cell": {}, "scores": {}, "training": {}, "frozen": {}}


def plan_at(output: Path, *changes: str, **suite: Any) -> SuitePlan:
    """Returns the four arms with two seeds, two methods and two languages, changed so: `plan_at(folder, seeds=(0,))`."""
    values = {"name": "tried", "arms": (NONE, META, KEPT, MULTITASK), "seeds": (0, 1), **suite}
    return make_plan(SuiteSection(**values), load_config(None, [f"run.output={output}", *FEW, *changes]), "here")


def put(file: Path, content: Any) -> Path:
    """Writes JSON, or lines of JSON from a list."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = content if isinstance(content, list) else [content]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def put_primed(cell: Priming, weights: str = ENCODER.weights, steps: int = 4) -> None:
    """Writes a primed encoder without values, with the weights that it was primed from and the steps chosen."""
    origin = {"kind": "primed", "encoder_weights": "b" * 64, "base_weights": weights, "steps": steps}
    card = {"peft": {"method": "pfeiffer"}, "encoder": ".", "labels": ["O"], "provenance": origin}
    put(cell.folder / PRIMED / CARD, card)
    save_file({}, cell.folder / PRIMED / VALUES)


def put_rate(cell: Rate, rate: float = 0.3) -> None:
    """Writes a selected rate."""
    put(cell.file, {"rate": rate})


def put_records(cell: Transfers) -> None:
    """Writes the records of all languages and K."""
    for file in cell.files.values():
        put(file, RECORD)
