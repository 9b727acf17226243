"""Primes an encoder: every meta-step draws episodes, adapts phi on each, and moves theta.

    phi'  = phi - alpha dL_support(theta, phi) / dphi        n times        meta/maml.py
    theta <- theta - beta dL_query(theta, phi') / dtheta                    then priming/outer.py

This file holds the outer loop; the inner loop and the outer gradient are in meta/maml.py. Read
`_loop`. Its other calls can be skipped: the guards stop a run whose losses are not finite,
`spent_on` counts sub-words and FLOPs, and `run.learner.step` is the step of the configured learner
(meta/learners.py) in a wrapper that counts FLOPs.
"""

from __future__ import annotations

import logging
import time
from itertools import takewhile
from typing import Any, NoReturn

import torch
from accelerate import Accelerator

from metaprime.build.kind import kinds_of
from metaprime.config.sections import Config
from metaprime.files import discard
from metaprime.priming.best import is_nth, is_scored, validated
from metaprime.priming.guards import HALVINGS, Diverged, check_finite, check_weights
from metaprime.priming.metrics import metrics, note
from metaprime.priming.primed import PrimedEncoder
from metaprime.priming.setup import Run, set_up
from metaprime.priming.state import moved_weights, restore, save_primed, save_state
from metaprime.priming.step import check_collapse, draw, spent_on, sum_over_processes
from metaprime.runs.folder import PRIMED, Claim, check_output, check_provenance, clear_up, open_output
from metaprime.runs.launch import check_launch
from metaprime.runs.lock import locked
from metaprime.runs.log import METRICS_FILE, Display, MetricsLog
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
) -> PrimedEncoder:
    """Primes an encoder and saves it as a plain Hugging Face encoder in `<run.output>/primed`.

    Config, data and encoder are validated before the output directory is touched.

    Args:
        config: all sections are read except the targets of `data` and `transfer`.
        resume: whether to resume from the newest checkpoint in `run.output`.
        overwrite: whether to replace the content of `run.output`.
        force: with `resume`, whether to accept changes of config, data, encoder or versions.
        max_seconds: seconds after which the run saves a checkpoint and stops; None: no limit.
        quiet: whether to hide the progress display.

    Returns:
        The primed encoder.

    Raises:
        MetaprimeError: the input is invalid, `run.output` is in use, or a loss is not finite.
        Stopped: a signal arrived or `max_seconds` are over; the last step is finished and saved.

    Example:
        >>> config = metaprime.override(config, f"run.output={folder / 'again'}")
        >>> metaprime.prime(config, quiet=True).path.name
        'primed'
    """
    with Stopping(max_seconds, "continue with --resume") as stop:
        torch.set_num_threads(config.run.threads)
        accelerator = Accelerator()
        check_launch(accelerator.num_processes)
        if accelerator.mixed_precision != "no":
            raise MetaprimeError(
                f"mixed precision {accelerator.mixed_precision} cannot be set by the launcher: launch with "
                "--mixed_precision no, and set encoder.precision: bfloat16 instead"
            )
        kinds = kinds_of(config.encoder, config.transfer)
        for remark in config.remarks_on_rates(*kinds) if accelerator.is_main_process else ():
            log.warning("%s", remark)
        config = config.at_rates(*kinds)
        claim = Claim(*config.recorded())
        changed = check_output(claim, resume, overwrite, force)
        with locked(claim.output, accelerator):
            primed = claim.output / PRIMED
            if not (resume and primed.is_dir() and not changed):
                run = _open(set_up(config, accelerator), resume, overwrite, force)
                with stop.deferred():
                    _run(run, restore(run) if resume else 0, stop, quiet)
                    if accelerator.is_main_process:
                        save_primed(run, primed)
            elif accelerator.is_main_process:
                clear_up(claim.output)
            accelerator.wait_for_everyone()
        return PrimedEncoder(primed, config.encoder.trust_remote_code)


def _open(run: Run, resume: bool, overwrite: bool, force: bool) -> Run:
    """Opens the output directory of a run and returns the run."""
    provenance = run.provenance
    if resume:
        check_provenance(run.claim.output, provenance, force)
    # All processes check the directory before the main process writes to it.
    run.accelerator.wait_for_everyone()
    if run.accelerator.is_main_process:
        # A primed folder that exists at this point belongs to another config.
        if (old := run.claim.output / PRIMED).is_dir():
            discard(old)
        open_output(run.claim, overwrite, provenance)
    run.accelerator.wait_for_everyone()
    return run


def _run(run: Run, first: int, stop: Stopping, quiet: bool) -> None:
    """Runs the loop; `outer.rollback` restarts a run that diverges, at half the rates."""
    while True:
        try:
            return _loop(run, first, stop, quiet)
        except Diverged as error:
            halvings = run.guards.halvings + 1
            if not run.asked.outer.rollback or halvings > HALVINGS:
                raise
            first = restore(run)
            run.guards.slow_down(halvings)
            if run.guards.shown:
                log.warning("%s. Back to step %d, outer.lr halved (%d of %d)", error, first, halvings, HALVINGS)


def _loop(run: Run, first: int, stop: Stopping, quiet: bool) -> None:
    """Runs the method: all meta-steps from `first` on."""
    outer, shown = run.asked.outer, run.accelerator.is_main_process
    lines, done = MetricsLog(run.claim.output / METRICS_FILE, first or -1, shown), first
    run.meter.count_next()
    # The unprimed encoder is scored too, so that a run that only does harm returns it unchanged.
    if first == 0 and run.best.validation:
        lines.write({"step": 0, **run.best.look(run.state, moved_weights(run), 0)})
    with Display("priming", outer.steps, shown and not quiet) as display:
        for step in takewhile(lambda step: not run.best.ends(step, outer), range(first, outer.steps)):
            began = time.perf_counter()

            # Draw T episodes, and the phi and head that each starts from.
            episodes = draw(run, step)
            start = run.starts.values(step, episodes.indices)

            # phi' = phi - alpha dL_support / dphi, n times; dL_query / dtheta there: meta/maml.py.
            outcome = run.learner.step(run.loss, run.state.backbone, start, episodes, run.inner)
            outcome = sum_over_processes(outcome, run.accelerator)

            # Guards. The last step is saved only now, when its weights have given a finite loss.
            languages = run.sampler.languages_of(step)
            check_finite(outcome, step, languages, moved_weights(run))
            run.guards.check(outer, outcome, step)
            if shown and step > first and is_nth(step - 1, outer.checkpoint_every, outer.steps):
                save_state(run, step)
            run.guards.note(outcome, run.state.adapter, step)

            # theta <- theta - beta dL_query / dtheta, by AdamW. A rule may carry phi' or head'.
            norm = run.outer.step(step, outcome.gradients, languages, run.guards.halvings)
            run.starts.carry(outcome)

            # Report the step, and score the held-out languages if it is time.
            seconds = time.perf_counter() - began
            line = metrics(run, step, outcome, norm, spent_on(run, episodes), seconds)
            line |= check_collapse(run, step, episodes, start)
            if run.best.validation and is_scored(step, outer):
                line |= _validate(run, step)
            lines.write(line)
            done = step + 1
            display.show(done, note(line, run.task.kind.metric.label))

            if (code := stop.due(run.accelerator)) and done < outer.steps:
                _stop(run, done, code)
    _end(run, first, done)


def _end(run: Run, first: int, done: int) -> None:
    """Saves the last of the meta-steps `first` to `done`, and says so if held-out scores ended the run early."""
    check_weights(run.state, done)
    if run.accelerator.is_main_process and first < done:
        save_state(run, done)
    if run.guards.shown and done < run.asked.outer.steps:
        log.warning(
            "priming ends after %d of %d meta-steps: %d held-out scores in a row were no better than that of step %d "
            "(outer.early_stop)",
            *(done, run.asked.outer.steps, run.asked.outer.early_stop, run.best.gained),
        )


def _stop(run: Run, steps: int, code: int) -> NoReturn:
    """Saves a checkpoint after `steps` meta-steps and raises `Stopped` with an exit code."""
    check_weights(run.state, steps)
    if run.accelerator.is_main_process:
        save_state(run, steps)
    # A launcher kills the other processes as soon as one has exited.
    run.accelerator.wait_for_everyone()
    raise Stopped(code, f" after step {steps} of {run.asked.outer.steps}, which is saved")


def _validate(run: Run, step: int) -> dict[str, Any]:
    """Scores the held-out languages after a meta-step and compares the score with the unprimed encoder's."""
    line = run.best.look(run.state, moved_weights(run), step + 1)
    if run.best.unprimed is not None and (score := validated(line)) is not None:
        run.watch.held_out(run.task.kind.metric.rank, (run.best.unprimed, score), step)
    return line
