"""An ablation suite: prime each arm with each seed, choose downstream rates, transfer, sum up.

What is finished is never repeated, in this suite or another one with the same `run.output`; what fails is recorded and
the rest goes on. The replicate is the priming seed, and one priming run serves all the transfers that start from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from metaprime.build.data import build_task
from metaprime.build.encoder import open_encoder
from metaprime.files import write_json, write_text
from metaprime.models.encoder import Encoder
from metaprime.priming.prime import prime
from metaprime.reports.read import read_suite
from metaprime.reports.summary import TABLE, as_text, show, tables_of
from metaprime.runs.folder import check_writable
from metaprime.runs.lock import locked
from metaprime.runs.log import Display
from metaprime.runs.results import as_json, write_results
from metaprime.runs.stopping import Stopping
from metaprime.suite.cells import Priming, Rate, Transfers
from metaprime.suite.forecast import note
from metaprime.suite.order import PRIMING, RATES, TRANSFER, CellOrder, count
from metaprime.suite.record import check_suite, open_suite
from metaprime.suite.results import results_of
from metaprime.suite.spec import Plan, read_plan
from metaprime.suite.workers import Job, Pool, in_parallel, workers
from metaprime.transfers.rates import try_rates
from metaprime.transfers.start import method_config, open_source
from metaprime.transfers.transfer import transfer


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


@dataclass(frozen=True)
class Ran:
    """What a cell took: seconds for so many units of work; and the rate, if it was to choose one."""

    seconds: float
    units: int
    rate: float | None = None


def carry_out(plan: Plan, folder: Path, encoder: Encoder, pool: Pool) -> dict[str, Any]:
    """Runs what is not done of a plan; `results.json` is written after each priming run, `table.md` at the end."""
    order = CellOrder(plan, encoder)
    left = sum(kind.cells - kind.done for kind in count(plan).values())
    ended = 0
    with Display("cells", left, bool(left)) as display:

        def follow(job: Job, outcome: Ran | Exception) -> list[Job]:
            nonlocal ended
            if isinstance(outcome, Exception):
                return order.ended(job, outcome)
            note(plan.base, job.kind, outcome.seconds, outcome.units)
            ended += outcome.units if job.kind == TRANSFER else 1
            display.show(ended, job.kind)
            after = order.ended(job, None, outcome.rate)
            if job.kind == PRIMING:
                write_results(folder, results_of(plan, order.done, folder))
            return after

        work: dict[str, Callable[[Any], Any]] = {PRIMING: prime_one, RATES: choose_one, TRANSFER: transfer_one}
        in_parallel(pool, work, order.first(), follow)
    results = results_of(plan, order.finished(), folder)
    write_results(folder, results)
    suite = read_suite(folder, results)
    tables = tables_of(suite)
    write_text(folder / TABLE, as_text(suite, tables))
    show(tables)
    return as_json(results)


def prime_one(cell: Priming) -> Ran:
    """Runs the priming of one seed."""
    began, steps = time.perf_counter(), cell.steps_done
    prime(cell.config, resume=True, quiet=True)
    return Ran(time.perf_counter() - began, cell.config.outer.steps - steps)


def choose_one(cell: Rate) -> Ran:
    """Chooses the rate that serves the held-out languages best, in the mean over K, and writes it down."""
    began = time.perf_counter()
    torch.set_num_threads(1)
    config = cell.config
    source = open_source(config)
    task = build_task(config, source.encoder, method_config(config, cell.method))
    tried = try_rates(config, source, task, Accelerator().device, cell.method, config.transfer.shots)
    scores = {lr: sum(by_rate[lr] for by_rate in tried.values()) / len(tried) for lr in config.transfer.lr}
    rate = max(scores, key=lambda lr: scores[lr])
    cell.file.parent.mkdir(parents=True, exist_ok=True)
    write_json(cell.file, {"rate": rate, "validation_f1": {str(lr): score for lr, score in scores.items()}})
    return Ran(time.perf_counter() - began, cell.fine_tunings, rate)


def transfer_one(cell: Transfers) -> Ran:
    """Runs the transfers to all languages and K of one arm, seed and method."""
    began, missing = time.perf_counter(), cell.missing()
    transfer(cell.config, quiet=True)
    return Ran(time.perf_counter() - began, missing)
