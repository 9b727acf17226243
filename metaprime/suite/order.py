"""Orders a suite's cells: priming, then rates after the first seed's priming, then transfers."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from metaprime.runs.artifact import load_artifact
from metaprime.suite.cells import Priming, Rate, Transfers
from metaprime.suite.spec import SuitePlan
from metaprime.suite.workers import Job
from metaprime.types import MetaprimeError

if TYPE_CHECKING:
    from metaprime.models.encoder import Encoder
    from metaprime.suite.results import Done

PRIMING, RATE, TRANSFER = "priming", "rates", "transfer"
"""Kinds of cells, as forecasts and timings name them."""

log = logging.getLogger(__name__)


class CellOrder:
    """The queue of a plan's missing cells: each runs once, however many arms use it.

    Args:
        plan: the suite.
        encoder: the base encoder.

    Attributes:
        done: cells, rates and errors so far.
    """

    def __init__(self, plan: SuitePlan, encoder: Encoder) -> None:
        # Imported here: cells are counted before torch is loaded.
        from metaprime.suite.results import Done

        self.plan, self.encoder, self.done = plan, encoder, Done()
        self.columns = range(len(plan.columns))
        # Users of each cell by its folder or file: (arm, seed), or (arm, column) of a rate.
        self.primed: dict[Path, list[tuple[str, int]]] = defaultdict(list)
        self.chosen: dict[Path, list[tuple[str, int]]] = defaultdict(list)
        self.transferred: dict[Path, list[tuple[str, int]]] = defaultdict(list)
        self.errors: dict[Path, Exception] = {}
        self.ready: list[tuple[str, int]] = []
        # A single rate needs no selection.
        for name, arm in plan.arms.items():
            each = {column: arm.target.rates(column) for column in self.columns}
            self.done.rates |= {(name, column): rates[0] for column, rates in each.items() if len(rates) == 1}

    def first(self) -> list[Job]:
        """Returns the jobs that can run first: priming, and jobs without unfinished priming."""
        cells: dict[Path, Priming] = {}
        for seed in self.plan.seeds:
            for name, arm in self.plan.arms.items():
                cell = arm.primer.cell(seed, self.encoder.name) if arm.primer else None
                self.done.primings[name, seed] = cell
                if cell:
                    cells[cell.folder] = cell
                    self.primed[cell.folder].append((name, seed))
        jobs = [Job(PRIMING, cell) for cell in cells.values() if not cell.done]
        for cell in cells.values():
            jobs += self._after_priming(cell) if cell.done else []
        unprimed = [user for user, cell in self.done.primings.items() if cell is None]
        return jobs + [job for user in unprimed for job in self._after(user)]

    def ended(self, job: Job, error: Exception | None, rate: float | None = None) -> list[Job]:
        """Returns the jobs that can run after a job has ended.

        Args:
            job: the job.
            error: the exception that it ended in; None: it succeeded.
            rate: the rate that a job of the kind RATE selected.
        """
        cell: Priming | Rate | Transfers = job.cell
        if isinstance(cell, Rate):
            if rate is not None:
                return [later for user in self.chosen[cell.file] for later in self._after_rate(*user, rate)]
            users = [(name, self.plan.seeds[0]) for name, _ in self.chosen[cell.file]]
        elif isinstance(cell, Priming):
            users = self.primed[cell.folder]
        else:
            users = self.transferred[cell.folder]

        # An error fails all arms and seeds that use the cell.
        if error:
            self.errors[cell.file if isinstance(cell, Rate) else cell.folder] = error
            self._fail(users, error)
        return self._after_priming(cell) if isinstance(cell, Priming) and not error else []

    def finished(self) -> Done:
        """Returns cells, rates and errors of the whole plan; for use after the last job."""
        first = self.plan.seeds[0]
        for name, seed in self.done.primings:
            if not any((name, column) in self.done.rates for column in self.columns):
                self.done.failed.setdefault((name, seed), f"no rate was chosen: see seed {first}")
        return self.done

    def _after_priming(self, cell: Priming) -> list[Job]:
        """Returns the jobs that can run after a priming run; a run from other base weights is refused."""
        primed_from = load_artifact(cell.folder / "primed").provenance["base_weights"]
        if primed_from == self.encoder.weights:
            return [job for user in self.primed[cell.folder] for job in self._after(user)]
        weights = f"{primed_from[:12]}, {self.encoder.name} has {self.encoder.weights[:12]}"
        error = MetaprimeError(f"{cell.folder} was primed from weights {weights}: choose another run.output")
        self._fail(self.primed[cell.folder], error)
        return []

    def _after(self, user: tuple[str, int]) -> list[Job]:
        """Returns the jobs of a primed arm and seed: transfers, or selections of unknown rates."""
        self.ready.append(user)
        name, seed = user
        jobs = []
        for column in self.columns:
            if (name, column) in self.done.rates:
                jobs += self._transfers(name, seed, column)
            elif seed == self.plan.seeds[0]:
                jobs += self._choice(name, column)
        return jobs

    def _choice(self, name: str, column: int) -> list[Job]:
        """Returns the selection of a rate as a job; if the rate is known, the transfers that use it."""
        target, first = self.plan.arms[name].target, self.plan.seeds[0]
        cell = target.rate(self.done.primings[name, first], column, first, self.encoder.name)
        error, rate = self.errors.get(cell.file), None
        try:
            rate = cell.known
        except MetaprimeError as damage:
            error = damage
        if error:
            self._fail([(name, first)], error)
            return []
        if rate is not None:
            return self._after_rate(name, column, rate)
        self.chosen[cell.file].append((name, column))
        return [Job(RATE, cell)] if len(self.chosen[cell.file]) == 1 else []

    def _after_rate(self, name: str, column: int, rate: float) -> list[Job]:
        """Records a rate and returns the transfers of all primed seeds that use it."""
        self.done.rates[name, column] = rate
        seeds = [seed for arm, seed in self.ready if arm == name]
        return [job for seed in seeds for job in self._transfers(name, seed, column)]

    def _transfers(self, name: str, seed: int, column: int) -> list[Job]:
        """Returns the transfers of one seed and method as a job, unless done or shared with a job."""
        arm, source = self.plan.arms[name], self.done.primings[name, seed]
        cell = arm.target.transfers(source, column, self.done.rates[name, column], seed, self.encoder.name)
        self.transferred[cell.folder].append((name, seed))
        error, missing = self.errors.get(cell.folder), 0
        try:
            missing = cell.missing()
        except MetaprimeError as damage:
            error = damage
        # A record that cannot be read is left out of results and tables.
        if error:
            self._fail([(name, seed)], error)
            return []
        self.done.transfers[name, seed].append(cell)
        return [Job(TRANSFER, cell)] if missing and len(self.transferred[cell.folder]) == 1 else []

    def _fail(self, users: Sequence[tuple[str, int]], error: Exception) -> None:
        """Records and logs a cell's error for each arm and seed that uses it and has no error yet."""
        text = str(error) if isinstance(error, MetaprimeError) else f"{type(error).__name__}: {error}"
        for user in users:
            if user not in self.done.failed:
                self.done.failed[user] = text
                log.warning("arm %s, seed %d failed: %s", *user, text)


WORK_UNITS = {PRIMING: "meta-step", RATE: "fine-tuning", TRANSFER: "fine-tuning"}
"""The unit of work of each kind of cell."""


@dataclass(frozen=True)
class Count:
    """The number of cells of one kind.

    Attributes:
        cells: all cells.
        done: finished cells.
        units: units of work in the unfinished cells, as WORK_UNITS counts them.
    """

    cells: int
    done: int
    units: int


def count_cells(plan: SuitePlan) -> dict[str, Count]:
    """Counts the cells of a plan by kind, each once, however many arms use it.

    Args:
        plan: the suite.

    Raises:
        MetaprimeError: a file of a selected rate is damaged.

    Example: `count_cells(read_plan("suite.yaml"))[PRIMING].cells`.
    """
    name, first = plan.base.encoder.name, plan.seeds[0]
    primings: dict[tuple[str, int], Priming | None] = {
        (arm, seed): section.primer.cell(seed, name) if section.primer else None
        for arm, section in plan.arms.items()
        for seed in plan.seeds
    }
    runs = {cell.folder: cell for cell in primings.values() if cell}
    choices: dict[Path, Rate] = {}
    records: dict[object, bool] = {}

    # The places of transfers depend on rates.
    for arm, section in plan.arms.items():
        for column in range(len(plan.columns)):
            rates = section.target.rates(column)
            rate: float | None = rates[0]
            if len(rates) > 1:
                choice = section.target.rate(primings[arm, first], column, first, name)
                choices[choice.file], rate = choice, choice.known
            for seed in plan.seeds:
                cell = section.target.transfers(primings[arm, seed], column, rate or 1.0, seed, name)
                for language_and_shots, file in cell.files.items():
                    # Until the rate is known, the file's place is not.
                    address = (arm, column, seed, language_and_shots) if rate is None else file
                    records[address] = rate is not None and file.is_file()

    unprimed = [cell for cell in runs.values() if not cell.done]
    open_choices = [choice for choice in choices.values() if choice.known is None]
    transfers_left = sum(not done for done in records.values())
    return {
        PRIMING: Count(
            len(runs), len(runs) - len(unprimed), sum(c.config.outer.steps - c.steps_done for c in unprimed)
        ),
        RATE: Count(len(choices), len(choices) - len(open_choices), sum(c.fine_tunings for c in open_choices)),
        TRANSFER: Count(len(records), len(records) - transfers_left, transfers_left),
    }
