"""A priming run's state on disk: saved so that a run which goes on from it is, to the bit, the one that never stopped."""

from __future__ import annotations

import logging
from pathlib import Path

from metaprime.config import Config
from metaprime.loops.assemble import Run
from metaprime.loops.carrying import draw_initial
from metaprime.loops.checkpoint import (
    Checkpoint,
    forget_after,
    newest_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from metaprime.loops.run_directory import STATES, versions
from metaprime.models.primable import assign
from metaprime.types import MetaprimeError, Params

log = logging.getLogger(__name__)


def states_of(config: Config) -> Path:
    """The folder of a run's checkpoints."""
    return Path(config.run.output) / STATES


def weights_of(run: Run) -> Params:
    """Everything priming moves, by full name."""
    return {**run.state.backbone, **run.state.adapter, **run.state.head, **run.state.rates}


def restore(run: Run) -> int:
    """Brings the run to where its newest whole checkpoint is; returns the steps done there, 0 where there is none."""
    states, steps = states_of(run.config), run.config.outer.steps
    checkpoint = newest_checkpoint(states)
    done = checkpoint.step if checkpoint else 0
    if done > steps:
        raise MetaprimeError(f"outer.steps is {steps}, but {states} is at step {done}: raise it, or use --overwrite")
    run.accelerator.wait_for_everyone()  # every process has read before the first one tidies
    if run.accelerator.is_main_process:
        forget_after(states, done if checkpoint else -1)
    if checkpoint is None:
        _begin_again(run)
        return 0
    if checkpoint.state["processes"] != run.accelerator.num_processes and run.guards.shown:
        log.warning(
            "begun by %d processes, gone on with by %d: the result is the same only up to rounding",
            checkpoint.state["processes"],
            run.accelerator.num_processes,
        )
    assign(run.model, {name: value for name, value in checkpoint.tensors.items() if "/" not in name})
    restore_optimizer(run.outer.optimizer, run.outer.names, checkpoint.tensors)
    best = checkpoint.state["best"]
    run.best = (best[0], best[1]) if best else None
    run.guards.restore(checkpoint.state["guards"])
    run.outer.halvings = run.guards.halvings
    return done


def _begin_again(run: Run) -> None:
    """As before the first step: the encoder's own weights, adapter and head as they are drawn."""
    assign(run.model, {f"backbone.{name}": value for name, value in run.encoder.module.named_parameters()})
    draw_initial(run.model, run.config.run.seed, run.config.inner.lr)
    run.outer.optimizer.state.clear()
    run.best = None
    run.guards.restore({"recent": [], "halvings": 0})


def save_state(run: Run, steps: int) -> None:
    """A checkpoint of the run after so many meta-steps."""
    optimizer = optimizer_tensors(run.outer.optimizer, run.outer.names)
    state = {
        "base_weights": run.encoder.weights,
        "best": list(run.best) if run.best else None,
        "guards": run.guards.state(),
        "processes": run.accelerator.num_processes,
        "versions": versions(),
    }
    checkpoint = Checkpoint(steps, {**weights_of(run), **optimizer}, state)
    save_checkpoint(states_of(run.config), checkpoint, run.config.outer.keep_checkpoints)
