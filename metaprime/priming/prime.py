"""Priming: config -> episodes -> inner loop -> outer step ... -> a primed encoder in plain Hugging Face form."""

from __future__ import annotations

import logging
import time
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator

from metaprime.config.sections import Config
from metaprime.files import discard
from metaprime.models.task_model import functional_loss, partition
from metaprime.priming.guards import HALVINGS, REMEDY, Diverged, check_finite, check_weights
from metaprime.priming.metrics import metrics, note
from metaprime.priming.outer import outer_step
from metaprime.priming.setup import Run, assemble
from metaprime.priming.starts import carry, rules_of
from metaprime.priming.state import restore, save_primed, save_state, states_of, weights_of
from metaprime.priming.step import adapted
from metaprime.runs.checkpoint import Checkpoint, save_best
from metaprime.runs.folder import PRIMED, check_facts, check_output, clear_up, open_output
from metaprime.runs.lock import locked
from metaprime.runs.log import Display, MetricsLog
from metaprime.runs.provenance import Facts, fingerprint, versions
from metaprime.runs.stopping import Stopped, Stopping
from metaprime.types import MetaprimeError

log = logging.getLogger(__name__)


def prime(
    config: Config,
    *,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    max_seconds: float | None = None,
    quiet: bool = False,
) -> Path:
    """Primes an encoder and returns the folder it is saved in, `<run.output>/primed`; `quiet` shows no progress.

    Everything that can be wrong with config, data and encoder is found before the output directory is touched. `force`
    goes on with `resume` although something is not as it was when the run began.

    Raises:
        MetaprimeError: bad input, an output directory that is not free, or a loss that is not finite.
        Stopped: a signal came, or `max_seconds` are over; the last step is finished and saved.
    """
    with Stopping(max_seconds, "go on with --resume") as stop:
        torch.set_num_threads(config.run.threads)
        accelerator = Accelerator()
        if accelerator.mixed_precision != "no":
            raise MetaprimeError(
                f"mixed precision {accelerator.mixed_precision} is not the launcher's to choose: launch with --mixed_precision "
                "no; encoder.precision: bfloat16 does it"
            )
        changed = check_output(config, resume, overwrite, force)
        with locked(Path(config.run.output), accelerator):
            primed = Path(config.run.output) / PRIMED
            if not (resume and primed.is_dir() and not changed):
                run = _open(config, accelerator, resume, overwrite, force)
                with stop.deferred():
                    _run(run, restore(run) if resume else 0, stop, quiet)
                    if accelerator.is_main_process:
                        save_primed(run, primed)
            elif accelerator.is_main_process:
                clear_up(config)
            accelerator.wait_for_everyone()
        return primed


def _open(config: Config, accelerator: Accelerator, resume: bool, overwrite: bool, force: bool) -> Run:
    """Assembles the run and, if all is well, opens the output directory for it."""
    run = assemble(config, accelerator)
    facts: Facts = {
        "versions": versions(),
        "weights": {"encoder.name": run.encoder.weights},
        "sentences": {name: fingerprint(chain(*groups)) for name, groups in run.episodes.pools.items()},
    }
    if config.inner.task_chunk == "auto":  # sums of other parts end in other bits
        facts["memory"] = {"episodes at a time (inner.task_chunk)": run.inner.execution.chunk or "all"}
    for name, splits in run.held_out.rows.items() if run.held_out else ():
        facts["sentences"][f"{name} (held out)"] = fingerprint(chain(*splits))
    if resume:
        check_facts(config, facts, force)
    run.guards.shown = accelerator.is_main_process
    accelerator.wait_for_everyone()  # every process has checked the directory before the first one writes
    if accelerator.is_main_process:
        if (old := Path(config.run.output) / PRIMED).is_dir():
            discard(old)  # of another config, or it would not be here
        open_output(config, resume, overwrite, facts)
    accelerator.wait_for_everyone()
    return run


def _run(run: Run, first: int, stop: Stopping, quiet: bool) -> None:
    """The loop; where it diverges and `outer.rollback` says so, again from the last checkpoint at half the rates."""
    while True:
        try:
            return _loop(run, first, stop, quiet)
        except Diverged as error:
            halvings = run.guards.halvings + 1
            if not run.config.outer.rollback or halvings > HALVINGS:
                raise
            first = restore(run)
            run.guards.halvings = run.outer.halvings = halvings
            if run.guards.shown:
                log.warning("%s. Back to step %d, outer.lr halved (%d of %d)", error, first, halvings, HALVINGS)


def _loop(run: Run, first: int, stop: Stopping, quiet: bool) -> None:
    """The method: draw episodes, adapt, take the outer step, carry; look at held-out languages; save."""
    config, every, guards = run.config, run.config.outer, run.guards
    rules, loss = rules_of(config), functional_loss(run.model, run.task.measure)
    shown = run.accelerator.is_main_process
    lines = MetricsLog(Path(config.run.output) / "metrics.jsonl", first or -1) if shown else None
    if first == 0 and run.held_out:
        unprimed = {"step": 0, **_validate(run, 0)}  # a run that only does harm keeps the encoder as it was
        if lines:
            lines.write(unprimed)
    with Display("priming", every.steps, shown and not quiet) as display:
        for step in range(first, every.steps):
            began = time.perf_counter()
            outcome, spent = adapted(run, loss, step, count=step == first)
            languages = run.episodes.languages_of(step)
            check_finite(outcome, step, languages, weights_of(run))
            guards.check(every, outcome, step)
            if shown and step > first and _due(step - 1, every.checkpoint_every, every.steps):
                save_state(run, step)  # only now: the weights that step left have given a finite loss
            guards.note(outcome, run.state.adapter, step)
            norm = outer_step(run.outer, step, outcome, languages)
            carry(run.model, outcome, rules)
            line = metrics(run, step, outcome, norm, spent, time.perf_counter() - began)
            if run.held_out and (_due(step, every.validate_every, every.steps) or 2 * step + 2 == every.validate_every):
                line |= _validate(run, step + 1)
            if lines:
                lines.write(line)
            display.show(step + 1, note(line))
            if (code := stop.due(run.accelerator)) and step + 1 < every.steps:
                _stop(run, step + 1, code)
    check_weights(run.state, every.steps)
    if shown and first < every.steps:
        save_state(run, every.steps)


def _stop(run: Run, steps: int, code: int) -> NoReturn:
    """Saves the run after so many meta-steps, and ends it."""
    check_weights(run.state, steps)
    if run.accelerator.is_main_process:
        save_state(run, steps)
    run.accelerator.wait_for_everyone()  # a launcher ends the others when the first is gone
    raise Stopped(code, f" after step {steps} of {run.config.outer.steps}, which is saved")


def _validate(run: Run, steps: int) -> dict[str, Any]:
    """Scores held-out languages after so many steps and keeps the weights if they are the best so far."""
    assert run.held_out
    transfer = run.config.transfer
    primed = {**run.state.adapter, **run.state.head}
    backbone = {**partition(run.held_out.model).backbone, **run.state.backbone}
    try:
        score = run.held_out.mean(backbone, primed, transfer.lr[0], transfer.shots[0], run.accelerator)
    except MetaprimeError as error:
        raise MetaprimeError(f"validation at step {steps}: {error}; or {REMEDY}") from None
    if run.best is None or score >= run.best[0]:  # of equals the later: it has seen more
        run.best = (score, steps)
        if run.accelerator.is_main_process:
            save_best(states_of(run.config), Checkpoint(steps, weights_of(run), {"score": score}))
    return {"validation_f1": score, "best_step": run.best[1]}


def _due(step: int, every: int, steps: int) -> bool:
    return (step + 1) % every == 0 or step + 1 == steps
