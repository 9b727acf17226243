"""Priming: config -> episodes -> inner loop -> outer step ... -> a primed encoder in plain Hugging Face form."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from metaprime.config import Config, dump_config
from metaprime.files import save_tensors, write_json, written_aside
from metaprime.loops.artifact import Artifact, save_artifact
from metaprime.loops.assemble import Run, assemble, primed_method
from metaprime.loops.carrying import carry, rules_of, starting_values
from metaprime.loops.checkpoint import (
    Checkpoint,
    load_checkpoint,
    newest_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from metaprime.loops.finetune import to_device
from metaprime.loops.metrics_log import Display, MetricsLog
from metaprime.loops.outer import REMEDY, check_finite, summed
from metaprime.loops.run_directory import check_output, open_output, versions
from metaprime.meta import LEARNERS, Outcome
from metaprime.models.encoder import save_encoder, weights_hash
from metaprime.models.primable import assign, functional_loss, partition
from metaprime.types import MetaBatch, MetaprimeError


def prime(config: Config, *, resume: bool = False, overwrite: bool = False, quiet: bool = False) -> Path:
    """Primes an encoder and returns the folder it is saved in, `<run.output>/primed`; `quiet` shows no progress.

    Everything that can be wrong with config, data and encoder is found before the output directory is touched.

    Raises:
        MetaprimeError: bad input, an output directory that is not free, or a loss that is not finite.
    """
    torch.set_num_threads(config.run.threads)
    accelerator = Accelerator()
    if accelerator.mixed_precision != "no":
        raise MetaprimeError(
            f"mixed precision {accelerator.mixed_precision} is not supported yet: launch with --mixed_precision no"
        )
    check_output(config, resume, overwrite)
    primed = Path(config.run.output) / "primed"
    if resume and primed.is_dir():
        return primed
    run = assemble(config, accelerator)
    accelerator.wait_for_everyone()  # every process has checked the directory before the first one writes
    if accelerator.is_main_process:
        open_output(config, resume, overwrite)
    accelerator.wait_for_everyone()
    first = _restore(run) if resume else 0
    _loop(run, first, quiet)
    if accelerator.is_main_process:
        _save_primed(run, primed)
    accelerator.wait_for_everyone()
    return primed


def _loop(run: Run, first: int, quiet: bool) -> None:
    """The method: draw episodes, adapt, take the outer step, carry; look at held-out languages; save."""
    config, every = run.config, run.config.outer
    rules, loss = rules_of(config), functional_loss(run.model, run.task.measure)
    rank, world = run.accelerator.process_index, run.accelerator.num_processes
    mine = range(rank, config.episodes.per_step, world)
    shown = run.accelerator.is_main_process
    log = MetricsLog(Path(config.run.output) / "metrics.jsonl", first or -1) if shown else None
    if first == 0 and run.held_out:
        unprimed = {"step": 0, **_validate(run, 0)}  # a run that only does harm keeps the encoder as it was
        if log:
            log.write(unprimed)
    with Display("priming", every.steps, shown and not quiet) as display:
        for step in range(first, every.steps):
            began = time.perf_counter()
            batch = _moved(run.episodes.meta_batch(step, mine, run.task.collate), run.accelerator.device)
            start = starting_values(run.model, run.state, rules, config.run.seed, step, mine)
            outcome = summed(run.meta_step(loss, run.state.backbone, start, batch, run.settings), run.accelerator)
            check_finite(outcome, step, run.episodes.languages_of(step))
            if shown and step > first and _due(step - 1, every.checkpoint_every, every.steps):
                _save_state(run, step)  # only now: the weights that step left have given a finite loss
            norm = run.outer.step(step, outcome.gradients)
            carry(run.model, outcome, rules)
            line = _metrics(run, step, outcome, norm) | {"volatile": {"seconds": time.perf_counter() - began}}
            if run.held_out and (_due(step, every.validate_every, every.steps) or 2 * step + 2 == every.validate_every):
                line |= _validate(run, step + 1)
            if log:
                log.write(line)
            display.show(step + 1, _note(line))
    if shown:
        _save_state(run, every.steps)


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
            with written_aside(_states(run.config) / "best") as aside:
                save_tensors(_weights(run), aside / "tensors.safetensors")
                write_json(aside / "state.json", {"step": steps, "score": score})
    return {"validation_f1": score, "best_step": run.best[1]}


def _restore(run: Run) -> int:
    """Weights, optimizer and best of the newest checkpoint; returns the steps done, 0 where there is none."""
    checkpoint = newest_checkpoint(_states(run.config))
    if checkpoint is None:
        return 0
    if checkpoint.state["base_weights"] != run.encoder.weights:
        raise MetaprimeError(
            f"{_states(run.config)} was primed from other base weights than encoder.name has now: restore them, or start "
            "anew with --overwrite"
        )
    assign(run.model, {name: value for name, value in checkpoint.tensors.items() if "/" not in name})
    restore_optimizer(run.outer.optimizer, run.outer.names, checkpoint.tensors)
    best = checkpoint.state["best"]
    run.best = (best[0], best[1]) if best else None
    return checkpoint.step


def _save_state(run: Run, steps: int) -> None:
    """A checkpoint of the run after so many meta-steps."""
    optimizer = optimizer_tensors(run.outer.optimizer, run.outer.names)
    state = {
        "base_weights": run.encoder.weights,
        "best": list(run.best) if run.best else None,
        "processes": run.accelerator.num_processes,
        "versions": versions(),
    }
    checkpoint = Checkpoint(steps, {**_weights(run), **optimizer}, state)
    save_checkpoint(_states(run.config), checkpoint, run.config.outer.keep_checkpoints)


def _save_primed(run: Run, folder: Path) -> None:
    """The best weights (the last, if nothing was validated) with tokenizer and provenance."""
    chosen = run.config.outer.steps
    if run.best:
        best = load_checkpoint(_states(run.config) / "best")
        assign(run.model, best.tensors)
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
    values = {**run.state.adapter, **run.state.head}
    with written_aside(folder) as aside:
        save_encoder(backbone, run.encoder.tokenizer, aside)
        (aside / "metaprime.yaml").write_text(dump_config(run.config), encoding="utf-8")
        save_artifact(aside, Artifact(primed_method(run.config), run.task.labels, values, ".", provenance))


def _weights(run: Run) -> dict[str, torch.Tensor]:
    return {**run.state.backbone, **run.state.adapter, **run.state.head}


def _states(config: Config) -> Path:
    return Path(config.run.output) / "state"


def _due(step: int, every: int, steps: int) -> bool:
    return (step + 1) % every == 0 or step + 1 == steps


def _moved(batch: MetaBatch, device: torch.device) -> MetaBatch:
    support = tuple(to_device(tensors, device) for tensors in batch.support)
    return replace(batch, support=support, query=to_device(batch.query, device))


def _metrics(run: Run, step: int, outcome: Outcome, norm: float) -> dict[str, Any]:
    line = {
        "step": step + 1,
        "languages": run.episodes.languages_of(step),
        "query_loss": outcome.query_loss.mean().item(),
        "gradient_norm": norm,
        "lr": run.outer.optimizer.param_groups[0]["lr"],
    }
    if LEARNERS[run.config.learner.name].adapts:
        line["support_loss_before"], line["support_loss_after"] = outcome.support_loss.mean(0).tolist()
    return line


def _note(line: dict[str, Any]) -> str:
    note = f"query loss {line['query_loss']:.3f}"
    if "support_loss_before" in line:
        note += f"  support {line['support_loss_before']:.3f} -> {line['support_loss_after']:.3f}"
    if "validation_f1" in line:
        note += f"  held-out F1 {line['validation_f1']:.1f}"
    return note
