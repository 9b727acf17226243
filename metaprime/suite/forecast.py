"""What a suite would run and how long that would take, from cells that were timed. Runs nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metaprime.config.sections import Config
from metaprime.files import writing
from metaprime.runs.folder import check_writable
from metaprime.suite.order import UNITS, Count, count
from metaprime.suite.record import check_suite
from metaprime.suite.spec import read_plan


@dataclass(frozen=True)
class Forecast:
    """By kind of cell, and the seconds to come; None where a kind that is left was never timed."""

    counts: dict[str, Count]
    seconds: float | None

    def lines(self, jobs: int) -> list[str]:
        """For people."""
        said = [
            f"{kind}: {count.cells - count.done} to run, {count.done} of {count.cells} done"
            for kind, count in self.counts.items()
        ]
        time = "unknown: nothing like what is left has been timed here"
        if self.seconds is not None:
            time = f"about {self.seconds / 60:.0f} minutes with {jobs} at a time"
        return [*said, f"time: {time}"]


def forecast(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    setting: str | None = None,
    jobs: int = 2,
    overwrite: bool = False,
) -> Forecast:
    """What `ablate` would do with the same arguments.

    Raises:
        MetaprimeError: as `ablate`, for what can be seen without opening the encoder.
    """
    plan = read_plan(path, overrides, setting)
    check_suite(plan, check_writable(plan.base) / plan.name, overwrite)
    counts = count(plan)
    known = seconds_per_unit(plan.base)
    left = {kind: found.units for kind, found in counts.items() if found.units}
    seconds = sum(known[kind] * units for kind, units in left.items()) / jobs if left.keys() <= known.keys() else None
    return Forecast(counts, seconds)


TIMINGS = "timings.jsonl"


def note(base: Config, kind: str, seconds: float, units: int) -> None:
    """Adds what one cell took for so many units."""
    file = Path(base.run.output) / TIMINGS
    line = {"kind": kind, "seconds": round(seconds, 3), "units": units}
    with writing(file), file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(line) + "\n")


def seconds_per_unit(base: Config) -> dict[str, float]:
    """The mean of each kind that has been timed, over all suites with this `run.output`."""
    file = Path(base.run.output) / TIMINGS
    seconds, units = dict.fromkeys(UNITS, 0.0), dict.fromkeys(UNITS, 0)
    for text in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # cut off by a kill
        seconds[line["kind"]] += line["seconds"]
        units[line["kind"]] += line["units"]
    return {kind: seconds[kind] / units[kind] for kind in UNITS if units[kind]}
