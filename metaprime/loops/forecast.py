"""What a suite would run and how long that would take, from cells that were timed. Runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metaprime.loops.cells import Priming, Rate, priming_cell, rate_cell, transfer_cell
from metaprime.loops.run_directory import check_writable
from metaprime.loops.suite import Plan, read_plan
from metaprime.loops.suite_record import check_suite
from metaprime.loops.timing import UNITS, seconds_per_unit


@dataclass(frozen=True)
class Count:
    """Cells of one kind, those that are done, and the units of work in the others."""

    cells: int
    done: int
    units: int


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


def count(plan: Plan) -> dict[str, Count]:
    """Each cell once, however many arms use it."""
    name, methods, first = plan.base.encoder.name, plan.base.transfer.methods, plan.seeds[0]
    primings: dict[tuple[str, int], Priming | None] = {
        (arm, seed): priming_cell(of.priming, seed, name) if of.priming else None
        for arm, of in plan.arms.items()
        for seed in plan.seeds
    }
    runs = {cell.folder: cell for cell in primings.values() if cell}
    choices: dict[Path, Rate] = {}
    records: dict[object, bool] = {}
    for arm, of in plan.arms.items():
        for method in methods:
            rate: float | None = of.target.transfer.lr[0]
            if len(of.target.transfer.lr) > 1:
                choice = rate_cell(of.target, primings[arm, first], method, first, name)
                choices[choice.file], rate = choice, choice.known
            for seed in plan.seeds:
                cell = transfer_cell(of.target, primings[arm, seed], method, rate or 1.0, seed, name)
                for asked, file in cell.files.items():
                    address = (arm, method, seed, asked) if rate is None else file  # where it will be is not known yet
                    records[address] = rate is not None and file.is_file()
    left = [cell for cell in runs.values() if not cell.done]
    open_choices = [choice for choice in choices.values() if choice.known is None]
    steps = sum(cell.config.outer.steps - cell.steps_done for cell in left)
    tries = sum(choice.fine_tunings for choice in open_choices)
    transfers_left = sum(not done for done in records.values())
    found = (
        Count(len(runs), len(runs) - len(left), steps),
        Count(len(choices), len(choices) - len(open_choices), tries),
        Count(len(records), len(records) - transfers_left, transfers_left),
    )
    return dict(zip(UNITS, found, strict=True))
