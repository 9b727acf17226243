"""Runs an ablation suite: primes each arm with each seed, selects rates, transfers, writes results.

Finished cells are never repeated, in this suite or another with the same `run.output`. A cell that
fails is recorded and the others run. The replicate is the priming seed; one priming run serves all
transfers that start from it.
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
from metaprime.runs.launch import check_no_launch
from metaprime.runs.lock import locked
from metaprime.runs.log import Display
from metaprime.runs.results import as_json, write_results
from metaprime.runs.stopping import Stopping
from metaprime.suite.cells import Priming, Rate, Transfers
from metaprime.suite.checks import check_plan
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
        overrides: changes of the base config or of the suite itself, such as `seeds=0-2`.
        setting: name of one of the suite's settings; None: the first.
        jobs: number of processes that run in parallel.
        overwrite: True replaces the record of another suite of this name; finished cells are kept.
        quiet: True shows neither progress nor tables.

    Returns:
        The content of `results.json`.

    Raises:
        MetaprimeError: the suite is invalid, or differs from the suite that was started in its folder.
        Stopped: a signal arrived; the same command resumes the suite.

    Example:
        >>> results = metaprime.ablate(suite, jobs=1, quiet=True)
        >>> sorted(results["arms"]), results["failed"]
        (['none'], [])
    """
    check_no_launch()
    plan = read_plan(path, overrides, setting)
    output = check_writable(plan.base.output)
    folder = output / plan.name
    check_suite(plan, folder, overwrite)
    check_plan(plan)
    with Stopping(None, "the same command resumes the suite"), locked(output):
        # An embedded encoder is pre-trained here, once.
        encoder = open_encoder(plan.base.encoder, output, plan.base.run.threads)
        open_suite(plan, folder, encoder, overwrite)
        with workers(jobs) as pool:
            return carry_out(plan, folder, encoder, pool, quiet)


@dataclass(frozen=True)
class Ran:
    """The outcome of a cell.

    Attributes:
        seconds: duration of the cell.
        units: units of work that were done, as WORK_UNITS counts them.
        rate: the selected learning rate; None for cells that select none.
    """

    seconds: float
    units: int
    rate: float | None = None


def carry_out(plan: SuitePlan, folder: Path, encoder: Encoder, pool: Pool, quiet: bool = False) -> dict[str, Any]:
    """Runs the remaining cells of a plan and writes its results.

    `results.json` is written after each priming run, `table.md` at the end.

    Args:
        plan: the suite.
        folder: the suite's folder.
        encoder: the base encoder.
        pool: processes that run the cells.
        quiet: True shows neither progress nor tables.

    Returns:
        The content of `results.json`.
    """
    order = CellOrder(plan, encoder)
    remaining = sum(kind.cells - kind.done for kind in count_cells(plan).values())
    ended = 0
    with Display("cells", remaining, bool(remaining) and not quiet, unit="cell") as display:

        def follow(job: Job, outcome: Ran | Exception) -> list[Job]:
            """Records how a job ended and returns the jobs that can run now."""
            nonlocal ended
            if isinstance(outcome, Exception):
                return order.ended(job, outcome)
            add_timing(Path(plan.base.run.output), job.kind, outcome.seconds, outcome.units)
            ended += outcome.units if job.kind == TRANSFER else 1
            display.show(ended, job.kind)
            ready = order.ended(job, None, outcome.rate)
            if job.kind == PRIMING:
                write_results(folder, results_of(plan, order.done, folder))
            return ready

        work: dict[str, Callable[[Any], Any]] = {PRIMING: prime_one, RATE: choose_one, TRANSFER: transfer_one}
        in_parallel(pool, work, order.first(), follow)

    # Some cells could not run: `finished` names the reason for each.
    results = results_of(plan, order.finished(), folder)
    write_results(folder, results)
    suite = read_suite(folder, results)
    tables = tables_of(suite)
    write_text(folder / TABLE, as_text(suite, tables))
    if not quiet:
        print_tables(suite, tables)
    return as_json(results)


def prime_one(cell: Priming) -> Ran:
    """Runs or resumes the priming of one seed: `prime_one(primer.cell(0, "runs/base"))`."""
    began, steps = time.perf_counter(), cell.steps_done
    prime(cell.config, resume=True, quiet=True)
    return Ran(time.perf_counter() - began, cell.steps_done - steps)


def choose_one(cell: Rate) -> Ran:
    """Selects the rate with the best held-out score, averaged over K, and writes it to the cell's file.

    Args:
        cell: arm, seed and method, with the rates to try.

    Raises:
        MetaprimeError: the held-out languages or the encoder cannot be used.
    """
    began = time.perf_counter()
    torch.set_num_threads(1)

    # The source, its task and one method.
    config, device = cell.config, Accelerator().device
    output, settings = Path(config.run.output), config.transfer
    source = open_source(config.encoder, settings, output, config.run.threads)
    (method,) = config.methods().values()
    task = build_task(config.task, config.data, source.encoder, method, config.run.cache)

    # One score for each rate and K, in the unit of the task's metric.
    splits = held_out_splits(task, config.data, settings)
    context = make_context(source, task, method, settings, next(iter(splits.values())).rows, device)
    validation = Validation(context, splits, config.run.seed)
    rates = settings.rates(method)
    tried = try_rates(rates, settings.shots, validation)
    scores = {lr: sum(by_rate[lr] for by_rate in tried.values()) / len(tried) for lr in rates}

    rate = best_rate(scores, validation)
    cell.file.parent.mkdir(parents=True, exist_ok=True)
    write_json(cell.file, {"rate": rate, task.kind.validation_key: {str(lr): score for lr, score in scores.items()}})
    return Ran(time.perf_counter() - began, cell.fine_tunings, rate)


def transfer_one(cell: Transfers) -> Ran:
    """Runs the missing transfers of one arm, seed and method, to all languages and with all K.

    Args:
        cell: arm, seed and method.
    """
    began, missing = time.perf_counter(), cell.missing()
    transfer(cell.config, quiet=True)
    return Ran(time.perf_counter() - began, missing)
