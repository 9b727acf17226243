"""A priming run's state on disk: saved so that a run which goes on from it is, to the bit, the one that never stopped."""

from __future__ import annotations

import logging
import os
import socket
import time
from pathlib import Path
from typing import cast

from transformers import PreTrainedModel

from metaprime.config.loading import dump_config
from metaprime.config.sections import Config
from metaprime.files import written_aside
from metaprime.meta import LEARNERS
from metaprime.models.encoder import save_encoder, weights_hash
from metaprime.models.task_model import assign
from metaprime.priming.setup import Run, primed_method
from metaprime.priming.starts import draw_initial
from metaprime.runs.artifact import Artifact, save_artifact
from metaprime.runs.checkpoint import (
    Checkpoint,
    forget_after,
    load_best,
    newest_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from metaprime.runs.folder import STATES
from metaprime.runs.provenance import versions
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


def save_primed(run: Run, folder: Path) -> None:
    """The best weights (the last, if nothing was validated) with tokenizer and provenance."""
    chosen = run.config.outer.steps
    if run.best:
        assign(run.model, load_best(states_of(run.config), run.best[1]).tensors)
        chosen = run.best[1]
    backbone = cast(PreTrainedModel, run.model.backbone)
    provenance = {
        "kind": "primed",
        "steps": chosen,
        "seed": run.config.run.seed,
        "validation_f1": run.best[0] if run.best else None,
        "base": run.config.encoder.name,
        "base_weights": run.encoder.weights,
        "encoder_weights": weights_hash(dict(backbone.state_dict())),
        "config": run.config.model_dump(mode="json"),
        "processes": run.accelerator.num_processes,
        "versions": versions(),
        "volatile": {"host": socket.gethostname(), "pid": os.getpid(), "written": time.strftime("%Y-%m-%dT%H:%M:%S")},
    }
    values = {**run.state.adapter, **(run.state.head if LEARNERS[run.config.learner.name].reads_labels else {})}
    with written_aside(folder) as aside:
        save_encoder(backbone, run.encoder.tokenizer, aside)
        (aside / "metaprime.yaml").write_text(dump_config(run.config), encoding="utf-8")
        save_artifact(aside, Artifact(primed_method(run.config), run.task.labels, values, ".", provenance))
