"""Prepares transfers: opens the encoder, builds models over it, and draws starting values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator

from metaprime.build.encoder import open_encoder
from metaprime.build.folders import started_from
from metaprime.build.model import build_model
from metaprime.config.sections import EncoderConfig, TransferConfig
from metaprime.data.rows import Row, to_device
from metaprime.meta.selection import backbone_gradients
from metaprime.models.encoder import Encoder, load_encoder, shortened
from metaprime.models.task_model import TaskModel, functional_loss, initial_values, partition
from metaprime.peft import MethodConfig, method_of
from metaprime.peft.method import label
from metaprime.rng import torch_stream
from metaprime.runs.artifact import CARD, Artifact, load_artifact, sites_of, trained_groups
from metaprime.tasks import Task
from metaprime.transfers.shots import check_primed, check_untrained, set_aside
from metaprime.types import Loss, MetaprimeError, Params


@dataclass(frozen=True)
class Source:
    """The encoder that transfers start from, with the artifact of its priming run.

    Attributes:
        encoder: the encoder.
        artifact: holds primed adapter, head and provenance; None if the encoder was not primed.
    """

    encoder: Encoder
    artifact: Artifact | None

    @property
    def primed(self) -> Params:
        """Values of the primed adapter and head by full name; empty if there are none."""
        return self.artifact.values if self.artifact else {}

    @property
    def priming_seed(self) -> int | None:
        """Seed of the priming run; None if the encoder was not primed."""
        return self.artifact.provenance["seed"] if self.artifact else None


def open_source(
    encoder: EncoderConfig,
    settings: TransferConfig,
    output: Path,
    threads: int = 1,
    accelerator: Accelerator | None = None,
) -> Source:
    """Opens the encoder that `transfer.encoder` names.

    Args:
        encoder: the section `encoder`: the base encoder, and how encoders are loaded.
        settings: the section `transfer`.
        output: folder of the run, `run.output`.
        threads: CPU threads of this process.
        accelerator: this process and its place among those launched together.

    Raises:
        MetaprimeError: the primed encoder does not exist, or the settings ask for a primed start
            from an encoder that was not primed.

    Example: `open_source(config.encoder, config.transfer, Path(config.run.output)).encoder`.
    """
    name = started_from(settings, output)
    if name is None:
        source = Source(open_encoder(encoder, output, threads, accelerator), None)
    else:
        artifact = load_artifact(Path(name)) if (Path(name) / CARD).is_file() else None
        sites = encoder.sites or (sites_of(artifact) if artifact else None)
        loaded = load_encoder(
            name,
            encoder.attention,
            sites,
            encoder.trust_remote_code,
            spacing=encoder.spacing,
            direction=encoder.direction,
        )
        # A primed head, and priming itself, know the features at the scale of the priming run.
        loaded = replace(shortened(loaded, encoder.layer), autocast=encoder.precision == "bfloat16")
        loaded = replace(loaded, scale=artifact.scale) if artifact else loaded
        source = Source(loaded, artifact)
    check_primed(settings, source.encoder.name, source.artifact is not None)
    return source


def check_start(source: Source, settings: TransferConfig, methods: Sequence[MethodConfig], task: Task) -> None:
    """Validates that primed adapter and head fit the transfers that start from them.

    Args:
        source: the encoder with its primed adapter and head.
        settings: the section `transfer`.
        methods: methods of the transfers.
        task: its labels are those of the head.

    Raises:
        MetaprimeError: adapter or head is a random draw, or is of another method or other labels;
            K = 0 would score one that is fresh.
    """
    check_untrained(settings, methods)
    check_primed(settings, source.encoder.name, source.artifact is not None)
    artifact = source.artifact
    if artifact is None:
        return
    for group, start in (("adapter", settings.start_adapter), ("head", settings.start_head)):
        if start == "primed" and group not in trained_groups(artifact):
            raise MetaprimeError(
                f"transfer.start_{group}: the encoder was primed with outer.{group} reset or keep, so that its {group} "
                f"is a random draw: prime with outer.{group}=meta, or use start_{group}: fresh"
            )
    for method in methods if settings.start_adapter == "primed" else ():
        if method_of(method).injects and artifact.method != method:
            raise MetaprimeError(
                f"transfer.start_adapter: the encoder was primed with {label(artifact.method)}, and {label(method)} cannot start "
                f"from that: name {label(artifact.method)} alone in transfer.methods, or use start_adapter: fresh"
            )
    if settings.start_head == "primed" and artifact.task.own_heads:
        raise MetaprimeError(
            "transfer.start_head: each task has an output layer of its own, and that of a target, which was not primed on, is a "
            "random draw: use start_head: fresh"
        )
    if settings.start_head == "primed" and artifact.labels != task.labels:
        raise MetaprimeError(
            f"transfer.start_head: the encoder was primed with the labels {', '.join(artifact.labels)}, task.labels gives "
            f"{', '.join(task.labels)}: use the same task.labels, or start_head: fresh"
        )


@dataclass(frozen=True)
class TransferContext:
    """The parts that all fine-tunings of one method over one encoder share.

    Attributes:
        task: encodes, collates, predicts and scores.
        model: encoder, adapter and head.
        method: settings of the PEFT method.
        loss: `loss(backbone, fast, batch)` in nats, a scalar (); (E,) for E runs in one pass.
        backbone: theta before fine-tuning by full name, in shapes such as (D, D).
        settings: the section `transfer`.
        primed: primed adapter and head by full name, for `start_adapter` or `start_head` `primed`.
        moves_backbone: whether the method trains theta too.
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
        """Device of the model."""
        return next(self.model.parameters()).device


def context_over(
    model: TaskModel, task: Task, method: MethodConfig, settings: TransferConfig, primed: Params
) -> TransferContext:
    """Returns the context of fine-tunings over an existing model.

    Args:
        model: encoder, adapter and head; it is not copied.
        task: encodes, collates, predicts and scores.
        method: settings of the model's method.
        settings: the section `transfer`.
        primed: primed adapter and head by full name in shapes such as (D, D); empty without them.
    """
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
    """Returns the context of fine-tunings with a new model over a copy of the encoder.

    Args:
        source: the encoder with its primed adapter and head.
        task: encodes, collates, predicts and scores.
        method: settings of the PEFT method to inject.
        settings: the section `transfer`.
        example: rows on which the injection is tested.
        device: device of the model.

    Raises:
        MetaprimeError: the method cannot be injected into this encoder.
    """
    model = build_model(source.encoder, task, method, example).to(device)
    return context_over(model, task, method, settings, source.primed)


@dataclass(frozen=True)
class KShotRun:
    """One fine-tuning on K sentences.

    Attributes:
        rows: the K training rows.
        seed: with `language`, draws the order of the rows and fresh starting values.
        language: the language of the rows.
        start: returns the starting values by full name, in shapes such as (D, D).
    """

    rows: Sequence[Row]
    seed: int
    language: str
    start: Callable[[], Params]


def k_shot_run(context: TransferContext, rows: Sequence[Row], seed: int, language: str) -> KShotRun:
    """Returns a fine-tuning on K rows: `k_shot_run(context, rows, 0, "qaa")`."""

    def start() -> Params:
        """Returns adapter and head, and theta if the method trains it."""
        values = start_values(context, rows, seed, language)
        return values | context.backbone if context.moves_backbone else values

    return KShotRun(rows, seed, language, start)


def start_values(context: TransferContext, rows: Sequence[Row], seed: int, language: str) -> Params:
    """Returns the starting values of adapter and head, each fresh or primed as the settings say.

    A fresh adapter of a sparse method selects its weights by the gradients of the training rows.

    Args:
        context: model, settings and primed values.
        rows: the K rows of the fine-tuning.
        seed: with `language`, draws fresh values.
        language: the language of the rows.

    Returns:
        Values by full name on the model's device, in shapes such as (D, D).
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
