"""Collects the results of a suite: paths of records and priming runs, costs, and errors."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from metaprime.peft import method_of
from metaprime.runs.flops import Spent, estimated_flops
from metaprime.runs.folder import PRIMED
from metaprime.runs.log import read_metrics
from metaprime.runs.provenance import versions
from metaprime.runs.results import Arm, Entry, Facts, Failure, Results
from metaprime.suite.cells import Priming, Transfers
from metaprime.suite.spec import ArmPlan, SuitePlan


@dataclass
class Done:
    """Cells, rates and errors of a plan so far.

    Attributes:
        primings: priming run of each (arm, seed); None: the arm has no priming.
        rates: learning rate of each (arm, column), once it is known.
        transfers: transfers of each (arm, seed).
        failed: error of each (arm, seed) that failed.
    """

    primings: dict[tuple[str, int], Priming | None] = field(default_factory=dict)
    rates: dict[tuple[str, int], float] = field(default_factory=dict)
    transfers: dict[tuple[str, int], list[Transfers]] = field(default_factory=lambda: defaultdict(list))
    failed: dict[tuple[str, int], str] = field(default_factory=dict)


def results_of(plan: SuitePlan, done: Done, folder: Path) -> Results:
    """Returns the results of a plan so far.

    Args:
        plan: the suite.
        done: cells, rates and errors so far.
        folder: the suite's folder, to which paths in the results are relative.

    Raises:
        MetaprimeError: the metrics of a priming run are damaged.
    """
    columns = plan.columns
    primings: dict[str, dict[int, str]] = defaultdict(dict)
    for (name, seed), cell in done.primings.items():
        if cell and cell.done:
            primings[name][seed] = os.path.relpath(cell.folder, folder)
    return Results(
        name=plan.name,
        setting=plan.setting,
        command=shlex.join(["metaprime", *sys.argv[1:]]),
        seeds=plan.seeds,
        config=plan.base.model_dump(mode="json"),
        versions=versions(),
        task=plan.base.task.name,
        methods=columns,
        titles=_titles(plan),
        languages=plan.base.data.target_languages,
        shots=plan.base.transfer.shots,
        arms={name: _arm(plan, done, name, arm) for name, arm in plan.arms.items()},
        contrasts=plan.contrasts,
        matched=plan.matched,
        records=tuple(_entries(plan, done, folder)),
        primings={name: primings[name] for name in plan.arms if name in primings},
        failed=tuple(Failure(arm=name, seed=seed, error=error) for (name, seed), error in sorted(done.failed.items())),
    )


def _entries(plan: SuitePlan, done: Done, folder: Path) -> Iterator[Entry]:
    """Yields the existing records, sorted by arm, seed, method, K and language."""
    columns = plan.columns
    for name, seed in itertools.product(plan.arms, plan.seeds):
        for cell in sorted(done.transfers.get((name, seed), []), key=lambda cell: cell.column):
            for (language, shots), file in cell.files.items():
                if file.is_file():
                    path, method = os.path.relpath(file, folder), columns[cell.column]
                    yield Entry(arm=name, seed=seed, language=language, method=method, shots=shots, path=path)


def _titles(plan: SuitePlan) -> dict[str, str]:
    """Returns the short names of columns with one method in all arms, if the method has a short name."""
    first = next(iter(plan.arms.values()))
    titles = {}
    for label, config in first.target.config.methods().items():
        if label in plan.columns and method_of(config).short:
            titles[label] = method_of(config).short
    return titles


def _arm(plan: SuitePlan, done: Done, name: str, arm: ArmPlan) -> Arm:
    """Returns one arm's entry of the results."""
    cells = [cell for seed in plan.seeds if (cell := done.primings[name, seed]) and cell.done]
    keys = [cell.key for seed in plan.seeds if (cell := done.primings[name, seed])]
    return Arm(
        title=arm.title,
        set=arm.set,
        transfer=arm.transfer,
        line=arm.line,
        priming=keys[0] if keys else None,
        rates={
            label: done.rates[name, column] for column, label in enumerate(plan.columns) if (name, column) in done.rates
        },
        methods=arm.methods,
        facts=_priming_facts(cells) if cells else None,
        simulates=arm.primer.simulates if arm.primer else None,
    )


def _priming_facts(cells: Sequence[Priming]) -> Facts:
    """Returns the cost of priming, as means over seeds; FLOPs are None if a seed has no count of them."""
    config = cells[0].config
    shape = config.episodes
    per_step = shape.per_step * (shape.support * config.inner.steps + shape.query)
    chosen, seconds, flops, flops_chosen = [], [], [], []
    for cell in cells:
        card = json.loads((cell.folder / PRIMED / "metaprime.json").read_text(encoding="utf-8"))
        chosen.append(card["provenance"]["steps"])
        # The validation before the first step has a line without seconds.
        steps = [line for line in read_metrics(cell.folder) if "volatile" in line]
        seconds.append(sum(step["volatile"]["seconds"] for step in steps))
        # Runs of the first versions have no counts of sub-words, from which FLOPs are estimated.
        spent = [Spent(step.get("subwords", 0), step["volatile"].get("flops")) for step in steps]
        known = all(step.subwords for step in spent)
        total = estimated_flops(spent) if known else None
        # A run that ended early was allowed more: its later steps would have been like those it took.
        flops.append(total and total * (config.outer.steps / len(spent)))
        flops_chosen.append(estimated_flops(spent, chosen[-1]) if known else None)
    return Facts(
        sentence_passes=per_step * config.outer.steps,
        sentence_passes_chosen=per_step * sum(chosen) / len(chosen),
        steps_chosen=tuple(chosen),
        flops=_mean(flops),
        flops_chosen=_mean(flops_chosen),
        seconds=sum(seconds) / len(seconds),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """Returns the mean; None if a value is missing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
