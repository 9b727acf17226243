"""Saves and restores a priming run; a resumed run equals an uninterrupted one bit for bit."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import cast

from transformers import PreTrainedModel

from metaprime.files import written_aside
from metaprime.meta import Way
from metaprime.models.encoder import save_encoder, weights_hash
from metaprime.models.task_model import assign
from metaprime.priming.setup import Run
from metaprime.priming.starts import draw_initial
from metaprime.runs.artifact import Artifact, save_artifact
from metaprime.runs.checkpoint import (
    Checkpoint,
    forget_after,
    newest_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from metaprime.runs.folder import STATES
from metaprime.runs.provenance import made_here, versions
from metaprime.types import MetaprimeError, Params

log = logging.getLogger(__name__)


def moved_weights(run: Run) -> Params:
    """Returns all parameters that priming moves, by full name."""
    return {**run.state.backbone, **run.state.adapter, **run.state.head, **run.state.rates}


def restore(run: Run) -> int:
    """Restores the run from its newest intact checkpoint, or to its initial state if there is none.

    Returns:
        The meta-steps done; 0 without a checkpoint.

    Raises:
        MetaprimeError: every checkpoint is damaged, or the newest is beyond `outer.steps`.
    """
    states, steps = run.claim.output / STATES, run.asked.outer.steps
    checkpoint = newest_checkpoint(states)
    done = checkpoint.step if checkpoint else 0
    if done > steps:
        raise MetaprimeError(f"outer.steps is {steps}, but {states} is at step {done}: raise it, or use --overwrite")
    # All processes read the checkpoint before the main process removes files.
    run.accelerator.wait_for_everyone()
    if run.accelerator.is_main_process:
        forget_after(states, done if checkpoint else -1)
    if checkpoint is None:
        _begin_again(run)
        return 0
    if checkpoint.state["processes"] != run.accelerator.num_processes and run.guards.shown:
        log.warning(
            "started by %d processes, resumed by %d: the result is the same only up to rounding",
            checkpoint.state["processes"],
            run.accelerator.num_processes,
        )
    assign(run.model, {name: value for name, value in checkpoint.tensors.items() if "/" not in name})
    restore_optimizer(run.outer.adamw, run.outer.names, checkpoint.tensors)
    run.best.restore(checkpoint.state["best"])
    run.guards.restore(checkpoint.state["guards"])
    # Checkpoints of version 0.1 lack the verdicts.
    run.watch.restore(checkpoint.state.get("watch", {}))
    return done


def _begin_again(run: Run) -> None:
    """Resets the run to its initial state: unprimed encoder, first draws, empty optimizer."""
    assign(run.model, {f"backbone.{name}": value for name, value in run.encoder.module.named_parameters()})
    draw_initial(run.model, run.seed, run.asked.inner.rate)
    run.outer.adamw.state.clear()
    run.best.restore(None)
    run.guards.clear()
    run.watch.restore({})


def save_state(run: Run, steps: int) -> None:
    """Saves a checkpoint of the run after `steps` meta-steps."""
    optimizer = optimizer_tensors(run.outer.adamw, run.outer.names)
    state = {
        "base_weights": run.encoder.weights,
        "best": run.best.saved(),
        "guards": run.guards.state(),
        "processes": run.accelerator.num_processes,
        "versions": versions(),
        "watch": run.watch.bad,
    }
    checkpoint = Checkpoint(steps, {**moved_weights(run), **optimizer}, state)
    save_checkpoint(run.claim.output / STATES, checkpoint, run.asked.outer.keep_checkpoints)


def save_primed(run: Run, folder: Path) -> None:
    """Saves the primed encoder to a folder, with tokenizer, adapter, head and provenance.

    The weights are the best ones on the held-out languages; the last ones without validation.
    """
    steps = run.best.put_back(run.model, run.asked.outer.steps)
    backbone = cast(PreTrainedModel, run.model.backbone)
    provenance = {
        "kind": "primed",
        "steps": steps,
        "seed": run.seed,
        run.task.kind.validation_key: run.best.score,
        "base": run.config["encoder"]["name"],
        "base_weights": run.encoder.weights,
        "encoder_weights": weights_hash(dict(backbone.state_dict())),
        "config": run.config,
        "processes": run.accelerator.num_processes,
        "versions": versions(),
        "volatile": {**made_here(), "batches": _batches(run)},
    }
    values = {**run.state.adapter, **(run.state.head if run.learner.reads_labels else {})}
    with written_aside(folder) as aside:
        # A head of masked words has no labels; the task's are those of the heads that transfers make.
        save_encoder(backbone, run.encoder.tokenizer, aside, run.task.labels)
        (aside / "metaprime.yaml").write_text(run.claim.text, encoding="utf-8")
        save_artifact(
            aside, Artifact(run.method, run.task.config, run.task.labels, values, ".", provenance, run.model.scale)
        )


def _batches(run: Run) -> str:
    """Returns how the run's encoder reads batches: `packed`, or `padded: ` with the reason."""
    if run.model.packed and run.asked.inner.compile:
        return "padded: inner.compile"
    if run.model.packed and run.inner.execution.way is Way.VMAP:
        return "padded: episodes share passes by torch.func.vmap"
    return run.model.batches


def expected_artifact(run: Run) -> Artifact:
    """Returns what `save_primed` would save beside the encoder, without values: `expected_artifact(run).labels`."""
    provenance = {"kind": "primed", "seed": run.seed, "config": run.config}
    return Artifact(run.method, run.task.config, run.task.labels, {}, ".", provenance)
