"""`results.json`, which says where everything a suite made is, and `table.md`, which says what came of it."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metaprime.runs.flops import Spent, reckoned
from metaprime.runs.folder import PRIMED
from metaprime.runs.log import read_metrics
from metaprime.runs.provenance import versions
from metaprime.suite.cells import Priming, Transfers
from metaprime.suite.spec import Arm, Plan

RESULTS = "results.json"


@dataclass
class Done:
    """What became of a plan: cells by (arm, seed), rates by (arm, method), and the error of each (arm, seed) that failed."""

    primings: dict[tuple[str, int], Priming | None] = field(default_factory=dict)
    rates: dict[tuple[str, str], float] = field(default_factory=dict)
    transfers: dict[tuple[str, int], list[Transfers]] = field(default_factory=lambda: defaultdict(list))
    failed: dict[tuple[str, int], str] = field(default_factory=dict)


def results_of(plan: Plan, done: Done, folder: Path) -> dict[str, Any]:
    """The content of `results.json`; paths in it are relative to `folder`, where it will lie."""
    settings = plan.base.transfer
    primings: dict[str, dict[str, str]] = {name: {} for name in plan.arms}
    for (name, seed), cell in done.primings.items():
        if cell and cell.done:
            primings[name][str(seed)] = os.path.relpath(cell.folder, folder)
    records = [
        {
            "arm": name,
            "seed": seed,
            "language": language,
            "method": cell.method,
            "shots": shots,
            "path": os.path.relpath(file, folder),
        }
        for name in plan.arms
        for seed in plan.seeds
        for cell in sorted(done.transfers.get((name, seed), []), key=lambda cell: settings.methods.index(cell.method))
        for (language, shots), file in cell.files.items()
        if file.is_file()
    ]
    return {
        "name": plan.name,
        "setting": plan.setting,
        "command": shlex.join(["metaprime", *sys.argv[1:]]),
        "seeds": list(plan.seeds),
        "config": plan.base.model_dump(mode="json"),
        "versions": versions(),
        "methods": list(settings.methods),
        "languages": list(plan.base.data.target_languages),
        "shots": list(settings.shots),
        "order": list(plan.arms),
        "arms": {name: _arm(plan, done, name, arm) for name, arm in plan.arms.items()},
        "contrasts": [list(pair) for pair in plan.contrasts],
        "matched": dict(plan.matched),
        "records": records,
        "primings": {name: folders for name, folders in primings.items() if folders},
        "failed": [{"arm": name, "seed": seed, "error": error} for (name, seed), error in sorted(done.failed.items())],
    }


def _arm(plan: Plan, done: Done, name: str, arm: Arm) -> dict[str, Any]:
    cells = [cell for seed in plan.seeds if (cell := done.primings[name, seed]) and cell.done]
    keys = [cell.key for seed in plan.seeds if (cell := done.primings[name, seed])]
    methods = plan.base.transfer.methods
    return {
        "title": arm.title,
        "set": list(arm.set),
        "transfer": list(arm.transfer),
        "line": arm.line,
        "priming": keys[0] if keys else None,
        "rates": {method: done.rates[name, method] for method in methods if (name, method) in done.rates},
        "facts": _facts(cells) if cells else None,
    }


def _facts(cells: Sequence[Priming]) -> dict[str, Any]:
    """What priming cost, up to its chosen stopping point and in all; means over seeds, None where a seed does not say."""
    config = cells[0].config
    shape = config.episodes
    per_step = shape.per_step * (shape.support * config.inner.steps + shape.query)
    chosen, seconds, flops, flops_chosen = [], [], [], []
    for cell in cells:
        card = json.loads((cell.folder / PRIMED / "metaprime.json").read_text(encoding="utf-8"))
        chosen.append(card["provenance"]["steps"])
        # The look before the first step has a line too, without what a step took.
        steps = [line for line in read_metrics(cell.folder) if "volatile" in line]
        seconds.append(sum(step["volatile"]["seconds"] for step in steps))
        # A run that was begun before sub-words were kept has none to reckon with.
        spent = [Spent(step.get("subwords", 0), step["volatile"].get("flops")) for step in steps]
        known = all(step.subwords for step in spent)
        flops.append(reckoned(spent) if known else None)
        flops_chosen.append(reckoned(spent, chosen[-1]) if known else None)
    return {
        "sentence_passes": per_step * config.outer.steps,
        "sentence_passes_chosen": per_step * sum(chosen) / len(chosen),
        "steps_chosen": chosen,
        "flops": _mean(flops),
        "flops_chosen": _mean(flops_chosen),
        "seconds": sum(seconds) / len(seconds),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
