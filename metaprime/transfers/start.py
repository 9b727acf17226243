"""Prepares transfers: the encoder they start from, one method's model over it, and the values that fine-tuning starts with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator

from metaprime.build.encoder import open_encoder
from metaprime.build.model import build_model
from metaprime.config.sections import EncoderConfig, TransferConfig
from metaprime.data.rows import Row, to_device
from metaprime.meta.selection import backbone_gradients
from metaprime.models.encoder import Encoder, load_encoder
from metaprime.models.task_model import TaskModel, functional_loss, initial_values, partition
from metaprime.peft import MethodConfig, method_of
from metaprime.rng import torch_stream
from metaprime.runs.artifact import CARD, Artifact, load_artifact, sites_of, trained_groups
from metaprime.runs.folder import PRIMED
from metaprime.tasks import Task
from metaprime.transfers.shots import set_aside
from metaprime.types import Loss, MetaprimeError, Params


@dataclass(frozen=True)
class Source:
    """The encoder that transfers start from, and its primed adapter and head if it has them."""

    encoder: Encoder
    artifact: Artifact | None

    @property
    def primed(self) -> Params:
        """Values of the primed adapter and head; empty without them."""
        return self.artifact.values if self.artifact else {}

    @property
    def priming_seed(self) -> int | None:
        """Seed of the priming run; None without one."""
        return self.artifact.provenance["seed"] if self.artifact else None


def open_source(
    encoder: EncoderConfig,
    settings: TransferConfig,
    output: Path,
    threads: int = 1,
    accelerator: Accelerator | None = None,
) -> Source:
    """Opens the encoder named by `transfer.encoder`.

    Args:
        encoder: the section `encoder`: the base encoder, and how any is read.
        settings: the section `transfer`.
        output: folder of the run.
        threads: CPU threads of this process.
        accelerator: of processes that were launched together.

    Raises:
        MetaprimeError: nothing is primed there, or a primed start is asked of an encoder that was not primed.
    """
    if settings.encoder == "base":
        source = Source(open_encoder(encoder, output, threads, accelerator), None)
    else:
        name = str(output / PRIMED) if settings.encoder == "primed" else settings.encoder
        if settings.encoder == "primed" and not Path(name).is_dir():
            raise MetaprimeError(
                f"transfer.encoder: {name} does not exist; run `metaprime prime` first, or set transfer.encoder to base or "
                "to a folder"
            )
        artifact = load_artifact(Path(name)) if (Path(name) / CARD).is_file() else None
        sites = encoder.sites or (sites_of(artifact) if artifact else None)
        loaded = load_encoder(name, encoder.attention, sites, encoder.trust_remote_code)
        source = Source(replace(loaded, autocast=encoder.precision == "bfloat16"), artifact)
    if "primed" in (settings.start_adapter, settings.start_head) and source.artifact is None:
        raise MetaprimeError(
            f"transfer.start_adapter and start_head cannot be primed: encoder {source.encoder.name} was not primed by "
            "metaprime"
        )
    return source


def check_start(source: Source, settings: TransferConfig, methods: Sequence[MethodConfig], task: Task) -> None:
    """Refuses a primed start that the primed adapter and head do not fit.

    Raises:
        MetaprimeError: the encoder was primed with another method, or its head with other labels.
    """
    artifact = source.artifact
    if artifact is None:
        return
    for group, start in (("adapter", settings.start_adapter), ("head", settings.start_head)):
        if start == "primed" and group not in trained_groups(artifact):
            raise MetaprimeError(
                f"transfer.start_{group}: the encoder was primed with outer.{group} reset or keep, so that the one it comes "
                f"with is a random draw: prime with outer.{group}=meta, or use start_{group}: fresh"
            )
    for method in methods if settings.start_adapter == "primed" else ():
        if method_of(method).injects and artifact.method != method:
            raise MetaprimeError(
                f"transfer.start_adapter: the encoder was primed with {artifact.method!r}, this transfer uses {method!r}: "
                "use the same peft section, or start_adapter: fresh"
            )
    if settings.start_head == "primed" and artifact.labels != task.labels:
        raise MetaprimeError(
            f"transfer.start_head: the encoder was primed with the tags {', '.join(artifact.labels)}, task.labels gives "
            f"{', '.join(task.labels)}: use the same task.labels, or start_head: fresh"
        )


@dataclass(frozen=True)
class TransferContext:
    """Everything that the fine-tunings of one method over one encoder share.

    Attributes:
        task: what is fine-tuned for.
        model: the encoder with the method's adapter in it.
        method: the method's settings.
        loss: of the task over the model.
        backbone: theta, as every fine-tuning finds it.
        settings: the section `transfer`.
        primed: values of the primed adapter and head, for `start_adapter: primed` and `start_head: primed`.
        moves_backbone: whether theta is trained too.
    """

    task: Task
    model: TaskModel
    method: MethodConfig
    loss: Loss
    backbone: Params
    settings: TransferConfig
    primed: Params
    moves_backbone: bool

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device


def context_over(
    model: TaskModel, task: Task, method: MethodConfig, settings: TransferConfig, primed: Params
) -> TransferContext:
    """Returns the context of fine-tunings over a model that is there."""
    loss, backbone = functional_loss(model, task.loss), partition(model).backbone
    return TransferContext(task, model, method, loss, backbone, settings, primed, method_of(method).moves_backbone)


def make_context(
    source: Source,
    task: Task,
    method: MethodConfig,
    settings: TransferConfig,
    example: Sequence[Row],
    device: torch.device,
) -> TransferContext:
    """Builds a method's model over a copy of the encoder, and returns the context of its fine-tunings.

    Raises:
        MetaprimeError: the method is not connected to this encoder as it should be.
    """
    model = build_model(source.encoder, task, method, example).to(device)
    return context_over(model, task, method, settings, source.primed)


@dataclass(frozen=True)
class KShotRun:
    """One fine-tuning: its sentences, what draws their order, and the values it starts from, made when asked for."""

    rows: Sequence[Row]
    seed: int
    language: str
    start: Callable[[], Params]


def k_shot_run(context: TransferContext, rows: Sequence[Row], seed: int, language: str) -> KShotRun:
    """Returns a fine-tuning on some rows; with theta among the values, if that is to move too."""

    def start() -> Params:
        values = start_values(context, rows, seed, language)
        return values | context.backbone if context.moves_backbone else values

    return KShotRun(rows, seed, language, start)


def start_values(context: TransferContext, rows: Sequence[Row], seed: int, language: str) -> Params:
    """Returns adapter and head to fine-tune from: drawn anew, or the primed ones, each as the settings say.

    A new adapter that selects weights selects them by the sentences it will be tuned on.
    """
    model, settings = context.model, context.settings
    values: Params = {}
    for group, choice in (("adapter", settings.start_adapter), ("head", settings.start_head)):
        drawn = initial_values(model, group, torch_stream(seed, "start", group, language))
        values |= {
            name: (context.primed[name] if choice == "primed" else value).to(context.device)
            for name, value in drawn.items()
        }
    if model.adapter.selects and settings.start_adapter == "fresh":
        rows, _ = set_aside(rows, settings, seed, language)
        parts = (rows[first : first + settings.batch] for first in range(0, len(rows), settings.batch))
        batches = [to_device(context.task.collate(part), context.device) for part in parts]
        gradients = backbone_gradients(context.loss, context.backbone, values, batches)
        values |= model.select(context.backbone, gradients)
    return values
