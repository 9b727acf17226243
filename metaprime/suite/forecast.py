"""Checks a suite, and forecasts its cells and their duration from cells that were timed; runs nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metaprime.files import check_readable, writing
from metaprime.runs.folder import check_writable
from metaprime.suite.checks import check_plan
from metaprime.suite.order import WORK_UNITS, Count, count_cells
from metaprime.suite.record import check_suite
from metaprime.suite.spec import read_plan
from metaprime.types import MetaprimeError


@dataclass(frozen=True)
class Forecast:
    """The cells of a suite and the duration of those that remain.

    Attributes:
        counts: numbers of cells, by kind.
        seconds: duration of the remaining cells; None: a kind among them was never timed.
    """

    counts: dict[str, Count]
    seconds: float | None

    def lines(self, jobs: int) -> list[str]:
        """Returns the forecast as text: a line for each kind of cell, and one with the duration.

        Args:
            jobs: number of processes that run in parallel.
        """
        counted = [
            f"{kind}: {count.cells - count.done} to run, {count.done} of {count.cells} done"
            for kind, count in self.counts.items()
        ]
        time = (
            "unknown: some kind of the cells to run has never been timed in this run.output; `metaprime estimate` with the "
            "suite's base config measures a meta-step"
        )
        if self.seconds is not None:
            time = f"about {self.seconds / 60:.0f} minutes with {jobs} at a time"
        return [*counted, f"time: {time}"]


def forecast(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    setting: str | None = None,
    jobs: int = 2,
    overwrite: bool = False,
) -> Forecast:
    """Forecasts what `ablate` would run with the same arguments.

    Raises:
        MetaprimeError: the suite is invalid, an arm could not be primed or transferred, or the suite differs
            from the one that was started in its folder.

    Example: `forecast("recipes/ablations/order.yaml", ["seeds=0-2"], jobs=1).lines(1)`.
    """
    plan = read_plan(path, overrides, setting)
    output = check_writable(plan.base.output)
    check_suite(plan, output / plan.name, overwrite)
    check_plan(plan)
    counts = count_cells(plan)
    timed = seconds_per_unit(output)
    remaining = {kind: count.units for kind, count in counts.items() if count.units}
    seconds = None
    if remaining.keys() <= timed.keys():
        seconds = sum(timed[kind] * units for kind, units in remaining.items()) / jobs
    return Forecast(counts, seconds)


TIMINGS = "timings.jsonl"
"""File in a suite's `run.output` with the duration of each cell."""


def add_timing(output: Path, kind: str, seconds: float, units: int) -> None:
    """Appends the duration of one cell to the timings.

    Args:
        output: the suite's `run.output`.
        kind: kind of the cell, a key of WORK_UNITS.
        seconds: duration of the cell.
        units: units of work that the cell did.

    Raises:
        MetaprimeError: the file cannot be written.

    Example: `add_timing(output, PRIMING, 20.0, 300)`.
    """
    file = output / TIMINGS
    line = {"kind": kind, "seconds": round(seconds, 3), "units": units}
    with writing(file), file.open("ab+") as lines:
        lines.seek(0)
        # A kill may have cut the last line off: it is removed.
        lines.truncate(lines.read().rfind(b"\n") + 1)
        lines.write(json.dumps(line).encode() + b"\n")


def seconds_per_unit(output: Path) -> dict[str, float]:
    """Returns kind -> mean seconds per unit of work, over all timed cells in a `run.output`.

    A last line that a kill has cut off is skipped.

    Args:
        output: the `run.output` that suites share.

    Raises:
        MetaprimeError: a line of the file is damaged.
    """
    file = output / TIMINGS
    check_readable(file)
    seconds, units = dict.fromkeys(WORK_UNITS, 0.0), dict.fromkeys(WORK_UNITS, 0)
    texts = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.is_file() else []
    for number, text in enumerate(texts, 1):
        if number == len(texts) and not text.endswith("\n"):
            break
        try:
            line = json.loads(text)
            seconds[line["kind"]] += line["seconds"]
            units[line["kind"]] += line["units"]
        except (ValueError, KeyError, TypeError) as error:
            raise MetaprimeError(f"{file}:{number} is damaged ({error!r}): remove that line") from None
    return {kind: seconds[kind] / units[kind] for kind in WORK_UNITS if units[kind]}
