"""Runs an ablation suite: primes each arm with each seed, chooses downstream rates, transfers, writes results and table.

Finished cells are never repeated, in this suite or another one with the same `run.output`; a cell that fails is
recorded and the others run. The replicate is the priming seed, and one priming run serves all transfers that start from it.
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
from metaprime.reports.summary import TABLE, as_text, print_tables, tables_of
from metaprime.runs.folder import check_writable
from metaprime.runs.lock import locked
from metaprime.runs.log import Display
from metaprime.runs.results import as_json, write_results
from metaprime.runs.stopping import Stopping
from metaprime.suite.cells import Priming, Rate, Transfers
from metaprime.suite.forecast import add_timing
from metaprime.suite.order import PRIMING, RATE, TRANSFER, CellOrder, count_cells
from metaprime.suite.record import check_suite, open_suite
from metaprime.suite.results import results_of
from metaprime.suite.spec import SuitePlan, read_plan
from metaprime.suite.workers import Job, Pool, in_parallel, workers
from metaprime.transfers.held_out import Validation, held_out_splits
from metaprime.transfers.rates import best_rate, try_rates
from metaprime.transfers.start import make_context, open_source
from metaprime.transfers.transfer import transfer


def ablate(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    setting: str | None = None,
    jobs: int = 2,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Runs a suite and writes `results.json` and `table.md` in `<run.output>/<name>`.

    Args:
        path: the suite's YAML file.
        overrides: of the base config, or of the suite itself.
        setting: one of the suite's; None: the first.
        jobs: processes at a time.
        overwrite: whether the suite's name may stand for other arms or another base than before; cells are kept.
        quiet: whether to show neither progress nor tables.

    Returns:
        The content of `results.json`.

    Raises:
        MetaprimeError: a bad suite; one that differs from what it was when it was started.
        Stopped: a signal came; the same command resumes.

    Example:
        >>> results = metaprime.ablate(suite, jobs=1, quiet=True)
        >>> sorted(results["arms"]), results["failed"]
        (['none'], [])
    """
    plan = read_plan(path, overrides, setting)
    output = check_writable(Path(plan.base.run.output))
    folder = output / plan.name
    check_suite(plan, folder, overwrite)
    with Stopping(None, "the same command goes on with the suite"), locked(output):
        # The embedded one is pre-trained here, once.
        encoder = open_encoder(plan.base.encoder, output, plan.base.run.threads)
        open_suite(plan, folder, encoder, overwrite)
        with workers(jobs) as pool:
            return carry_out(plan, folder, encoder, pool, quiet)


@dataclass(frozen=True)
class Ran:
    """Seconds that a cell took for so many units of work; and the rate, if it was to choose one."""

    seconds: float
    units: int
    rate: float | None = None


def carry_out(plan: SuitePlan, folder: Path, encoder: Encoder, pool: Pool, quiet: bool = False) -> dict[str, Any]:
    """Runs what is not done of a plan; `results.json` is written after each priming run, `table.md` at the end."""
    order = CellOrder(plan, encoder)
    left = sum(kind.cells - kind.done for kind in count_cells(plan).values())
    ended = 0
    with Display("cells", left, bool(left) and not quiet) as display:

        def follow(job: Job, outcome: Ran | Exception) -> list[Job]:
            nonlocal ended
            if isinstance(outcome, Exception):
                return order.ended(job, outcome)
            add_timing(Path(plan.base.run.output), job.kind, outcome.seconds, outcome.units)
            ended += outcome.units if job.kind == TRANSFER else 1
            display.show(ended, job.kind)
            after = order.ended(job, None, outcome.rate)
            if job.kind == PRIMING:
                write_results(folder, results_of(plan, order.done, folder))
            return after

        work: dict[str, Callable[[Any], Any]] = {PRIMING: prime_one, RATE: choose_one, TRANSFER: transfer_one}
        in_parallel(pool, work, order.first(), follow)
    results = results_of(plan, order.finished(), folder)
    write_results(folder, results)
    suite = read_suite(folder, results)
    tables = tables_of(suite)
    write_text(folder / TABLE, as_text(suite, tables))
    if not quiet:
        print_tables(suite, tables)
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
    config, device = cell.config, Accelerator().device
    output, settings = Path(config.run.output), config.transfer
    source = open_source(config.encoder, settings, output, config.run.threads)
    (method,) = config.methods().values()
    task = build_task(config.task, config.data, source.encoder, method, config.run.cache)
    splits = held_out_splits(task, config.data, settings)
    context = make_context(source, task, method, settings, next(iter(splits.values())).train, device)
    validation = Validation(context, splits, config.run.seed)
    tried = try_rates(settings.lr, settings.shots, validation)
    scores = {lr: sum(by_rate[lr] for by_rate in tried.values()) / len(tried) for lr in settings.lr}
    rate = best_rate(scores, validation)
    cell.file.parent.mkdir(parents=True, exist_ok=True)
    write_json(cell.file, {"rate": rate, task.kind.validation_key: {str(lr): score for lr, score in scores.items()}})
    return Ran(time.perf_counter() - began, cell.fine_tunings, rate)


def transfer_one(cell: Transfers) -> Ran:
    """Runs the transfers to all languages and K of one arm, seed and method."""
    began, missing = time.perf_counter(), cell.missing()
    transfer(cell.config, quiet=True)
    return Ran(time.perf_counter() - began, missing)
