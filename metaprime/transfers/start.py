"""Where transfers start: the encoder, and the adapter and head that it was primed with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator

from metaprime.build.encoder import open_encoder
from metaprime.build.model import build_model
from metaprime.config.sections import OWN_METHOD, Config, TransferConfig
from metaprime.data.rows import Row, to_device
from metaprime.meta.selection import backbone_gradients
from metaprime.models.encoder import Encoder, load_encoder, weights_hash
from metaprime.models.task_model import TaskModel, functional_loss, initial_values, partition
from metaprime.peft import METHODS, MethodConfig
from metaprime.peft.method import no_modules
from metaprime.rng import torch_stream
from metaprime.runs.artifact import CARD, Artifact, load_artifact, sites_of, trained_groups
from metaprime.tasks.task import Task
from metaprime.transfers.finetune import set_aside
from metaprime.transfers.stacked import KShotRun
from metaprime.types import MetaprimeError, Params


@dataclass(frozen=True)
class Source:
    """The encoder that transfers start from, and its primed adapter and head if it has them."""

    encoder: Encoder
    artifact: Artifact | None

    @property
    def primed(self) -> Params:
        return self.artifact.values if self.artifact else {}

    @property
    def priming_seed(self) -> int | None:
        return self.artifact.provenance["seed"] if self.artifact else None


def open_source(config: Config, accelerator: Accelerator | None = None) -> Source:
    """The encoder named by `transfer.encoder`.

    Raises:
        MetaprimeError: nothing is primed there, or a primed start is asked of an encoder that was not primed.
    """
    settings = config.transfer
    if settings.encoder == "base":
        source = Source(open_encoder(config, accelerator), None)
    else:
        name = str(Path(config.run.output) / "primed") if settings.encoder == "primed" else settings.encoder
        if settings.encoder == "primed" and not Path(name).is_dir():
            raise MetaprimeError(
                f"transfer.encoder: {name} does not exist; run `metaprime prime` first, or set transfer.encoder to base or "
                "to a folder"
            )
        artifact = load_artifact(Path(name)) if (Path(name) / CARD).is_file() else None
        sites = config.encoder.sites or (sites_of(artifact) if artifact else None)
        encoder = load_encoder(name, config.encoder.attention, sites, config.encoder.trust_remote_code)
        source = Source(replace(encoder, autocast=config.encoder.precision == "bfloat16"), artifact)
    if "primed" in (settings.start_adapter, settings.start_head) and source.artifact is None:
        raise MetaprimeError(
            f"transfer.start_adapter and start_head cannot be primed: encoder {source.encoder.name} was not primed by "
            "metaprime"
        )
    return source


def method_config(config: Config, name: str) -> MethodConfig:
    """The `peft` section where it is this method's or meant by the name, the method's defaults otherwise."""
    return config.peft if name in (config.peft.method, OWN_METHOD) else METHODS[name].config()


def check_start(config: Config, source: Source, task: Task) -> None:
    """Refuses a primed start that the primed adapter and head do not fit.

    Raises:
        MetaprimeError: the encoder was primed with another method, or its head with other labels.
    """
    settings, artifact = config.transfer, source.artifact
    if artifact is None:
        return
    for group, start in (("adapter", settings.start_adapter), ("head", settings.start_head)):
        if start == "primed" and group not in trained_groups(artifact):
            raise MetaprimeError(
                f"transfer.start_{group}: the encoder was primed with outer.{group} reset or keep, so that the one it comes "
                f"with is a random draw: prime with outer.{group}=meta, or use start_{group}: fresh"
            )
    for name in settings.methods if settings.start_adapter == "primed" else ():
        method = method_config(config, name)
        if METHODS[method.method].inject is not no_modules and artifact.method != method:
            raise MetaprimeError(
                f"transfer.start_adapter: the encoder was primed with {artifact.method!r}, this transfer uses {method!r}: "
                "use the same peft section, or start_adapter: fresh"
            )
    if settings.start_head == "primed" and artifact.labels != task.labels:
        raise MetaprimeError(
            f"transfer.start_head: the encoder was primed with the tags {', '.join(artifact.labels)}, data.labels gives "
            f"{', '.join(task.labels)}: use the same data.labels, or start_head: fresh"
        )


def tuning(
    model: TaskModel,
    task: Task,
    backbone: Params,
    settings: TransferConfig,
    primed: Params,
    rows: Sequence[Row],
    seed: int,
    language: str,
    moves_backbone: bool,
) -> KShotRun:
    """A fine-tuning that starts as `start_values` says, with theta if that is to move too."""

    def start() -> Params:
        values = start_values(model, task, backbone, settings, primed, rows, seed, language)
        return values | backbone if moves_backbone else values

    return KShotRun(rows, seed, language, start)


def start_values(
    model: TaskModel,
    task: Task,
    backbone: Params,
    settings: TransferConfig,
    primed: Params,
    rows: Sequence[Row],
    seed: int,
    language: str,
) -> Params:
    """Adapter and head to fine-tune from: drawn anew, or the primed ones, each as `settings` says.

    What a new adapter chooses, it chooses by the sentences it will be tuned on.
    """
    device = next(model.parameters()).device
    values: Params = {}
    for group, choice in (("adapter", settings.start_adapter), ("head", settings.start_head)):
        drawn = initial_values(model, group, torch_stream(seed, "start", group, language))
        values |= {name: (primed[name] if choice == "primed" else value).to(device) for name, value in drawn.items()}
    if model.adapter.selects and settings.start_adapter == "fresh":
        rows, _ = set_aside(rows, settings, seed, language)
        parts = (rows[first : first + settings.batch] for first in range(0, len(rows), settings.batch))
        batches = [to_device(task.collate(part), device) for part in parts]
        loss = functional_loss(model, task.measure)
        values |= model.select(backbone, backbone_gradients(loss, backbone, values, batches))
    return values


@dataclass(frozen=True)
class Bench:
    """A method's injected model over one encoder, and theta's hash before anything was trained; `name` as cells call it."""

    name: str
    model: TaskModel
    method: MethodConfig
    backbone: Params
    frozen: str


def make_bench(
    config: Config, source: Source, task: Task, name: str, example: Sequence[Row], device: torch.device
) -> Bench:
    """Injects one method into a copy of the encoder."""
    method = method_config(config, name)
    model = build_model(source.encoder, task, method, example).to(device)
    state = partition(model)
    return Bench(name, model, method, state.backbone, weights_hash(state.backbone))
