"""An ablation suite: prime each arm with each seed, choose downstream rates, transfer, sum up.

What is finished is never repeated, in this suite or another one with the same `run.output`; what fails is recorded and
the rest goes on. The replicate is the priming seed, and one priming run serves all the transfers that start from it.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from metaprime.files import write_json, write_text
from metaprime.loops.artifact import load_artifact
from metaprime.loops.assemble import open_encoder
from metaprime.loops.build import build_task
from metaprime.loops.cells import Priming, Rate, Transfers, priming_cell, rate_cell, transfer_cell
from metaprime.loops.lock import locked
from metaprime.loops.prime import prime
from metaprime.loops.run_directory import check_writable
from metaprime.loops.stopping import Stopping
from metaprime.loops.suite import Plan, read_plan
from metaprime.loops.suite_record import check_suite, open_suite
from metaprime.loops.suite_results import RESULTS, TABLE, Done, results_of, show, table_of
from metaprime.loops.timing import note
from metaprime.loops.transfer import open_source, transfer, try_rates
from metaprime.loops.workers import in_parallel, workers
from metaprime.models.encoder import Encoder
from metaprime.types import MetaprimeError

log = logging.getLogger(__name__)


def ablate(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    setting: str | None = None,
    jobs: int = 2,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Runs a suite, `jobs` processes at a time, and returns the content of `<run.output>/<name>/results.json`.

    `table.md` is beside it. `overwrite` lets the suite's name stand for other arms or another base than before; cells
    are kept in any case.

    Raises:
        MetaprimeError: a bad suite; one that is not as it was when it was begun.
        Stopped: a signal came; the same command goes on.
    """
    plan = read_plan(path, overrides, setting)
    output = check_writable(plan.base)
    folder = output / plan.name
    check_suite(plan, folder, overwrite)
    with Stopping(None, "the same command goes on with the suite"), locked(output):
        encoder = open_encoder(plan.base)  # the embedded one is pre-trained here, once
        open_suite(plan, folder, encoder, overwrite)
        with workers(jobs) as pool:
            return carry_out(plan, folder, encoder, pool)


def carry_out(plan: Plan, folder: Path, encoder: Encoder, pool: Executor) -> dict[str, Any]:
    """Runs what is not done of a plan, writes `results.json` after each stage and `table.md` into `folder` at the end."""
    done = Done()
    _prime_all(plan, done, encoder, pool)
    write_json(folder / RESULTS, results_of(plan, done, folder))
    _choose_rates(plan, done, encoder, pool)
    _transfer_all(plan, done, encoder, pool)
    results = results_of(plan, done, folder)
    write_json(folder / RESULTS, results)
    write_text(folder / TABLE, table_of(results, folder))
    show(results, folder)
    return results


def _prime_all(plan: Plan, done: Done, encoder: Encoder, pool: Executor) -> None:
    cells: dict[Path, Priming] = {}
    users: dict[Path, list[tuple[str, int]]] = defaultdict(list)
    for name, arm in plan.arms.items():
        for seed in plan.seeds:
            cell = priming_cell(arm.priming, seed, encoder.name) if arm.priming else None
            done.primings[name, seed] = cell
            if cell:
                cells[cell.folder] = cell
                users[cell.folder].append((name, seed))
    todo = [cell for cell in cells.values() if not cell.done]
    steps = [cell.steps_done for cell in todo]
    for number, outcome in in_parallel("priming runs", pool, prime_one, [(cell,) for cell in todo]):
        cell = todo[number]
        if isinstance(outcome, Exception):
            _fail(done, users[cell.folder], outcome)
        else:
            note(plan.base, "priming", outcome, cell.config.outer.steps - steps[number])
    for cell in cells.values():
        if cell.done and (error := _foreign(cell, encoder)):
            _fail(done, users[cell.folder], error)


def prime_one(cell: Priming) -> float:
    """One priming run of one seed; seconds."""
    began = time.perf_counter()
    prime(cell.config, resume=True, quiet=True)
    return time.perf_counter() - began


def _foreign(cell: Priming, encoder: Encoder) -> MetaprimeError | None:
    """What is wrong where a finished run began from other weights: a suite before this one may have had another encoder."""
    used = load_artifact(cell.folder / "primed").provenance["base_weights"]
    if used == encoder.weights:
        return None
    return MetaprimeError(
        f"{cell.folder} was primed from weights {used[:12]}, {encoder.name} has {encoder.weights[:12]}: choose another run.output"
    )


def _choose_rates(plan: Plan, done: Done, encoder: Encoder, pool: Executor) -> None:
    """One rate for each arm and method, by the first seed's encoder."""
    first = plan.seeds[0]
    todo: dict[Path, Rate] = {}
    users: dict[Path, list[tuple[str, str]]] = defaultdict(list)
    for name, arm in plan.arms.items():
        for method in plan.base.transfer.methods:
            if (name, first) in done.failed:
                continue
            if len(arm.target.transfer.lr) == 1:
                done.rates[name, method] = arm.target.transfer.lr[0]
                continue
            cell = rate_cell(arm.target, done.primings[name, first], method, first, encoder.name)
            users[cell.file].append((name, method))
            todo[cell.file] = cell
    known = {file: rate for file, cell in todo.items() if (rate := cell.known) is not None}
    cells = [cell for file, cell in todo.items() if file not in known]
    for number, outcome in in_parallel("downstream rates", pool, choose_one, [(cell,) for cell in cells]):
        cell = cells[number]
        if isinstance(outcome, Exception):
            _fail(done, [(name, first) for name, _ in users[cell.file]], outcome)
        else:
            known[cell.file] = outcome[0]
            note(plan.base, "rates", outcome[1], cell.fine_tunings)
    for file, rate in known.items():
        done.rates |= dict.fromkeys(users[file], rate)


def choose_one(cell: Rate) -> tuple[float, float]:
    """The rate that serves the held-out languages best, in the mean over K; written down; and the seconds it took."""
    began = time.perf_counter()
    torch.set_num_threads(1)
    config = cell.config
    source = open_source(config)
    task = build_task(config, source.encoder)
    tried = try_rates(config, source, task, Accelerator().device, cell.method, config.transfer.shots)
    scores = {lr: sum(by_rate[lr] for by_rate in tried.values()) / len(tried) for lr in config.transfer.lr}
    rate = max(scores, key=lambda lr: scores[lr])
    cell.file.parent.mkdir(parents=True, exist_ok=True)
    write_json(cell.file, {"rate": rate, "validation_f1": {str(lr): score for lr, score in scores.items()}})
    return rate, time.perf_counter() - began


def _transfer_all(plan: Plan, done: Done, encoder: Encoder, pool: Executor) -> None:
    _place_transfers(plan, done, encoder)
    users: dict[Path, list[tuple[str, int]]] = defaultdict(list)
    for user, cells in done.transfers.items():
        for cell in cells:
            users[cell.folder].append(user)
    todo: dict[Path, tuple[Transfers, int]] = {}
    for cell in {cell.folder: cell for cells in done.transfers.values() for cell in cells}.values():
        try:
            if missing := cell.missing():
                todo[cell.folder] = (cell, missing)
        except MetaprimeError as error:
            _fail(done, users[cell.folder], error)
            for user in users[cell.folder]:  # what cannot be read is in no table
                done.transfers[user] = [other for other in done.transfers[user] if other.folder != cell.folder]
    left = list(todo.values())
    for number, outcome in in_parallel("transfers", pool, transfer_one, [(cell,) for cell, _ in left]):
        cell, missing = left[number]
        if isinstance(outcome, Exception):
            _fail(done, users[cell.folder], outcome)
        else:
            note(plan.base, "transfer", outcome, missing)


def _place_transfers(plan: Plan, done: Done, encoder: Encoder) -> None:
    """The transfers of every arm and seed that is primed, with each method whose rate is known."""
    for name, arm in plan.arms.items():
        for seed in plan.seeds:
            if (name, seed) in done.failed:
                continue
            source = done.primings[name, seed]
            rates = {method: rate for (of, method), rate in done.rates.items() if of == name}
            if not rates:
                done.failed[name, seed] = f"no rate was chosen: see seed {plan.seeds[0]}"
            done.transfers[name, seed] = [
                transfer_cell(arm.target, source, method, rates[method], seed, encoder.name)
                for method in plan.base.transfer.methods
                if method in rates
            ]


def transfer_one(cell: Transfers) -> float:
    """All languages and K of one arm, seed and method; seconds."""
    began = time.perf_counter()
    transfer(cell.config, quiet=True)
    return time.perf_counter() - began


def _fail(done: Done, users: Sequence[tuple[str, int]], error: Exception) -> None:
    """Notes the error of a cell for every arm and seed that needs it; the first of several is kept."""
    text = str(error) if isinstance(error, MetaprimeError) else f"{type(error).__name__}: {error}"
    for user in users:
        if user not in done.failed:
            done.failed[user] = text
            log.warning("arm %s, seed %d failed: %s", *user, text)
