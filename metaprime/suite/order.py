"""Orders the cells of a suite: priming at once, rates once the first seed is primed, transfers once both are there."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metaprime.models.encoder import Encoder
from metaprime.runs.artifact import load_artifact
from metaprime.suite.cells import Priming, Rate, Transfers
from metaprime.suite.results import Done
from metaprime.suite.spec import SuitePlan
from metaprime.suite.workers import Job
from metaprime.types import MetaprimeError

PRIMING, RATE, TRANSFER = "priming", "rates", "transfer"
"""Kinds of cells, as forecasts and timings name them."""

log = logging.getLogger(__name__)


class CellOrder:
    """Hands out every cell that a plan asks for and that is not there, once, however many arms use it.

    Attributes:
        done: what became of all of them.
    """

    def __init__(self, plan: SuitePlan, encoder: Encoder) -> None:
        self.plan, self.encoder, self.done = plan, encoder, Done()
        self.columns = range(len(plan.columns))
        # Users of a cell: each (arm, seed), or each (arm, column).
        self.primed: dict[Path, list[tuple[str, int]]] = defaultdict(list)
        self.chosen: dict[Path, list[tuple[str, int]]] = defaultdict(list)
        self.transferred: dict[Path, list[tuple[str, int]]] = defaultdict(list)
        self.errors: dict[Path, Exception] = {}
        self.ready: list[tuple[str, int]] = []
        for name, arm in plan.arms.items():
            rates = arm.target.config.transfer.lr
            if len(rates) == 1:
                self.done.rates |= {(name, column): rates[0] for column in self.columns}

    def first(self) -> list[Job]:
        """Returns what can run first: priming runs, and what follows from those that are done."""
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
        """Returns what can run now that a job has ended, in an error or not; `rate` is what a job of that kind has chosen."""
        cell: Priming | Rate | Transfers = job.cell
        if isinstance(cell, Rate):
            if rate is not None:
                return [later for user in self.chosen[cell.file] for later in self._after_rate(*user, rate)]
            users = [(name, self.plan.seeds[0]) for name, _ in self.chosen[cell.file]]
        elif isinstance(cell, Priming):
            users = self.primed[cell.folder]
        else:
            users = self.transferred[cell.folder]
        if error:
            self.errors[cell.file if isinstance(cell, Rate) else cell.folder] = error
            self._fail(users, error)
        return self._after_priming(cell) if isinstance(cell, Priming) and not error else []

    def finished(self) -> Done:
        """Returns what became of the plan, once there is no job left."""
        first = self.plan.seeds[0]
        for name, seed in self.done.primings:
            if not any((name, column) in self.done.rates for column in self.columns):
                self.done.failed.setdefault((name, seed), f"no rate was chosen: see seed {first}")
        return self.done

    def _after_priming(self, cell: Priming) -> list[Job]:
        """Returns what can run after a priming run; one that started from other weights is refused."""
        used = load_artifact(cell.folder / "primed").provenance["base_weights"]
        if used == self.encoder.weights:
            return [job for user in self.primed[cell.folder] for job in self._after(user)]
        theirs, ours = used[:12], f"{self.encoder.name} has {self.encoder.weights[:12]}"
        error = MetaprimeError(f"{cell.folder} was primed from weights {theirs}, {ours}: choose another run.output")
        self._fail(self.primed[cell.folder], error)
        return []

    def _after(self, user: tuple[str, int]) -> list[Job]:
        """Returns what an arm and seed are ready for: transfers at known rates, and with the first seed the choice of rates."""
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
        """Returns the choice of a rate as a job; if it is made already, the transfers that it allows."""
        target, first = self.plan.arms[name].target, self.plan.seeds[0]
        cell = target.rate(self.done.primings[name, first], column, first, self.encoder.name)
        error, known = self.errors.get(cell.file), None
        try:
            known = cell.known
        except MetaprimeError as damage:
            error = damage
        if error:
            self._fail([(name, first)], error)
            return []
        if known is not None:
            return self._after_rate(name, column, known)
        self.chosen[cell.file].append((name, column))
        return [Job(RATE, cell)] if len(self.chosen[cell.file]) == 1 else []

    def _after_rate(self, name: str, column: int, rate: float) -> list[Job]:
        """Returns the transfers of all seeds that are ready, at the rate."""
        self.done.rates[name, column] = rate
        return [job for of, seed in self.ready if of == name for job in self._transfers(name, seed, column)]

    def _transfers(self, name: str, seed: int, column: int) -> list[Job]:
        """Returns the transfers of one seed and method as a job, unless they are done or another arm's job too."""
        arm, source = self.plan.arms[name], self.done.primings[name, seed]
        cell = arm.target.transfers(source, column, self.done.rates[name, column], seed, self.encoder.name)
        self.transferred[cell.folder].append((name, seed))
        error, missing = self.errors.get(cell.folder), 0
        try:
            missing = cell.missing()
        except MetaprimeError as damage:
            error = damage
        # What cannot be read is in no table.
        if error:
            self._fail([(name, seed)], error)
            return []
        self.done.transfers[name, seed].append(cell)
        return [Job(TRANSFER, cell)] if missing and len(self.transferred[cell.folder]) == 1 else []

    def _fail(self, users: Sequence[tuple[str, int]], error: Exception) -> None:
        """Records the error of a cell for every arm and seed that needs it; the first of several is kept."""
        text = str(error) if isinstance(error, MetaprimeError) else f"{type(error).__name__}: {error}"
        for user in users:
            if user not in self.done.failed:
                self.done.failed[user] = text
                log.warning("arm %s, seed %d failed: %s", *user, text)


WORK_UNITS = {PRIMING: "meta-step", RATE: "fine-tuning", TRANSFER: "fine-tuning"}
"""What the work of a cell of each kind is counted in."""


@dataclass(frozen=True)
class Count:
    """Cells of one kind, those that are done, and the units of work in the others."""

    cells: int
    done: int
    units: int


def count_cells(plan: SuitePlan) -> dict[str, Count]:
    """Counts the cells of a plan by kind, each once, however many arms use it."""
    name, first = plan.base.encoder.name, plan.seeds[0]
    primings: dict[tuple[str, int], Priming | None] = {
        (arm, seed): of.primer.cell(seed, name) if of.primer else None
        for arm, of in plan.arms.items()
        for seed in plan.seeds
    }
    runs = {cell.folder: cell for cell in primings.values() if cell}
    choices: dict[Path, Rate] = {}
    records: dict[object, bool] = {}
    for arm, of in plan.arms.items():
        for column in range(len(plan.columns)):
            rates = of.target.config.transfer.lr
            rate: float | None = rates[0]
            if len(rates) > 1:
                choice = of.target.rate(primings[arm, first], column, first, name)
                choices[choice.file], rate = choice, choice.known
            for seed in plan.seeds:
                cell = of.target.transfers(primings[arm, seed], column, rate or 1.0, seed, name)
                for asked, file in cell.files.items():
                    # Without a rate the file's place is not known yet.
                    address = (arm, column, seed, asked) if rate is None else file
                    records[address] = rate is not None and file.is_file()
    left = [cell for cell in runs.values() if not cell.done]
    open_choices = [choice for choice in choices.values() if choice.known is None]
    transfers_left = sum(not done for done in records.values())
    return {
        PRIMING: Count(len(runs), len(runs) - len(left), sum(c.config.outer.steps - c.steps_done for c in left)),
        RATE: Count(len(choices), len(choices) - len(open_choices), sum(c.fine_tunings for c in open_choices)),
        TRANSFER: Count(len(records), len(records) - transfers_left, transfers_left),
    }
