"""Which cell of a suite may run when: priming at once, rates once the first seed is primed, transfers once both are there."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metaprime.models.encoder import Encoder
from metaprime.runs.artifact import load_artifact
from metaprime.suite.cells import Priming, Rate, Transfers, priming_cell, rate_cell, transfer_cell
from metaprime.suite.results import Done
from metaprime.suite.spec import Plan
from metaprime.suite.workers import Job
from metaprime.types import MetaprimeError

PRIMING, RATES, TRANSFER = "priming", "rates", "transfer"

log = logging.getLogger(__name__)


class CellOrder:
    """Every cell that a plan asks for and that is not there, once, however many arms use it; and what became of all."""

    def __init__(self, plan: Plan, encoder: Encoder) -> None:
        self.plan, self.encoder, self.done = plan, encoder, Done()
        # Who uses a cell: each (arm, seed), or each (arm, method).
        self.primed: dict[Path, list[tuple[str, int]]] = defaultdict(list)
        self.chosen: dict[Path, list[tuple[str, str]]] = defaultdict(list)
        self.transferred: dict[Path, list[tuple[str, int]]] = defaultdict(list)
        self.errors: dict[Path, Exception] = {}
        self.ready: list[tuple[str, int]] = []
        for name, arm in plan.arms.items():
            if len(arm.target.transfer.lr) == 1:
                self.done.rates |= {(name, method): arm.target.transfer.lr[0] for method in plan.base.transfer.methods}

    def first(self) -> list[Job]:
        """What can run before anything else has: priming runs, and what follows from those that are there already."""
        cells: dict[Path, Priming] = {}
        for seed in self.plan.seeds:
            for name, arm in self.plan.arms.items():
                cell = priming_cell(arm.priming, seed, self.encoder.name) if arm.priming else None
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
        """What can run now that a job has ended, in an error or not; `rate` is what a job of that kind has chosen."""
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
        """What became of the plan, once there is no job left."""
        first = self.plan.seeds[0]
        for name, seed in self.done.primings:
            if not any((name, method) in self.done.rates for method in self.plan.base.transfer.methods):
                self.done.failed.setdefault((name, seed), f"no rate was chosen: see seed {first}")
        return self.done

    def _after_priming(self, cell: Priming) -> list[Job]:
        """A suite before this one may have had another encoder: what began from other weights is refused."""
        used = load_artifact(cell.folder / "primed").provenance["base_weights"]
        if used == self.encoder.weights:
            return [job for user in self.primed[cell.folder] for job in self._after(user)]
        theirs, ours = used[:12], f"{self.encoder.name} has {self.encoder.weights[:12]}"
        error = MetaprimeError(f"{cell.folder} was primed from weights {theirs}, {ours}: choose another run.output")
        self._fail(self.primed[cell.folder], error)
        return []

    def _after(self, user: tuple[str, int]) -> list[Job]:
        """What an arm and seed are ready for: transfers at rates that are known, and with the first seed to choose them."""
        self.ready.append(user)
        name, seed = user
        jobs = []
        for method in self.plan.base.transfer.methods:
            if (name, method) in self.done.rates:
                jobs += self._transfers(name, seed, method)
            elif seed == self.plan.seeds[0]:
                jobs += self._choice(name, method)
        return jobs

    def _choice(self, name: str, method: str) -> list[Job]:
        target, first = self.plan.arms[name].target, self.plan.seeds[0]
        cell = rate_cell(target, self.done.primings[name, first], method, first, self.encoder.name)
        error, known = self.errors.get(cell.file), None
        try:
            known = cell.known
        except MetaprimeError as damage:
            error = damage
        if error:
            self._fail([(name, first)], error)
            return []
        if known is not None:
            return self._after_rate(name, method, known)
        self.chosen[cell.file].append((name, method))
        return [Job(RATES, cell)] if len(self.chosen[cell.file]) == 1 else []

    def _after_rate(self, name: str, method: str, rate: float) -> list[Job]:
        self.done.rates[name, method] = rate
        return [job for of, seed in self.ready if of == name for job in self._transfers(name, seed, method)]

    def _transfers(self, name: str, seed: int, method: str) -> list[Job]:
        arm, source = self.plan.arms[name], self.done.primings[name, seed]
        cell = transfer_cell(arm.target, source, method, self.done.rates[name, method], seed, self.encoder.name)
        self.transferred[cell.folder].append((name, seed))
        error, missing = self.errors.get(cell.folder), 0
        try:
            missing = cell.missing()
        except MetaprimeError as damage:
            error = damage
        if error:  # what cannot be read is in no table
            self._fail([(name, seed)], error)
            return []
        self.done.transfers[name, seed].append(cell)
        return [Job(TRANSFER, cell)] if missing and len(self.transferred[cell.folder]) == 1 else []

    def _fail(self, users: Sequence[tuple[str, int]], error: Exception) -> None:
        """Notes the error of a cell for every arm and seed that needs it; the first of several is kept."""
        text = str(error) if isinstance(error, MetaprimeError) else f"{type(error).__name__}: {error}"
        for user in users:
            if user not in self.done.failed:
                self.done.failed[user] = text
                log.warning("arm %s, seed %d failed: %s", *user, text)


UNITS = {"priming": "meta-step", "rates": "fine-tuning", "transfer": "fine-tuning"}


@dataclass(frozen=True)
class Count:
    """Cells of one kind, those that are done, and the units of work in the others."""

    cells: int
    done: int
    units: int


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
