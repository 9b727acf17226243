"""Forecasts what a suite would run and how long that would take, from cells that were timed. Runs nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metaprime.files import writing
from metaprime.runs.folder import check_writable
from metaprime.suite.order import WORK_UNITS, Count, count_cells
from metaprime.suite.record import check_suite
from metaprime.suite.spec import read_plan
from metaprime.types import MetaprimeError


@dataclass(frozen=True)
class Forecast:
    """Cells by kind, and the seconds to come; None where a kind that is left was never timed."""

    counts: dict[str, Count]
    seconds: float | None

    def lines(self, jobs: int) -> list[str]:
        """Returns the forecast as human-readable lines."""
        counted = [
            f"{kind}: {count.cells - count.done} to run, {count.done} of {count.cells} done"
            for kind, count in self.counts.items()
        ]
        time = "unknown: nothing like what is left has been timed here"
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
    """Forecasts what `ablate` would do with the same arguments.

    Raises:
        MetaprimeError: as `ablate`, for what can be seen without opening the encoder.
    """
    plan = read_plan(path, overrides, setting)
    output = check_writable(Path(plan.base.run.output))
    check_suite(plan, output / plan.name, overwrite)
    counts = count_cells(plan)
    known = seconds_per_unit(output)
    left = {kind: found.units for kind, found in counts.items() if found.units}
    seconds = sum(known[kind] * units for kind, units in left.items()) / jobs if left.keys() <= known.keys() else None
    return Forecast(counts, seconds)


TIMINGS = "timings.jsonl"
"""File in a suite's `run.output`: what each cell took."""


def add_timing(output: Path, kind: str, seconds: float, units: int) -> None:
    """Adds what one cell took for so many units of work."""
    file = output / TIMINGS
    line = {"kind": kind, "seconds": round(seconds, 3), "units": units}
    with writing(file), file.open("ab+") as lines:
        lines.seek(0)
        # A line that a kill has cut off is none.
        lines.truncate(lines.read().rfind(b"\n") + 1)
        lines.write(json.dumps(line).encode() + b"\n")


def seconds_per_unit(output: Path) -> dict[str, float]:
    """Returns the mean of each kind that has been timed, over all suites with this `run.output`.

    Raises:
        MetaprimeError: a line of the file is no timing; a last line that a kill has cut off is left out.
    """
    file = output / TIMINGS
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
