"""What a run leaves for others: adapter, head and provenance beside (or pointing to) a plain Hugging Face encoder.

A folder holds `metaprime.json` and `metaprime.safetensors` (values of `adapter.*` and `head.*`). A primed folder is also
the encoder itself; a fine-tuned one names the encoder it belongs to, with the hash of its weights.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from metaprime.files import save_tensors, write_json
from metaprime.meta import LEARNERS
from metaprime.models.encoder import Encoder, load_encoder
from metaprime.models.sites import Layout
from metaprime.peft import METHODS, MethodConfig
from metaprime.tasks import TASKS, TaskConfig
from metaprime.types import MetaprimeError, Params

CARD, VALUES = "metaprime.json", "metaprime.safetensors"


@dataclass(frozen=True)
class Artifact:
    """A folder's content.

    Attributes:
        method: of its adapter.
        task: of its head.
        labels: what the head's outputs mean, in order.
        values: of `adapter.*` and `head.*`.
        encoder: folder or hub id of the encoder they belong to; `.`: the folder itself.
        provenance: where it came from.
    """

    method: MethodConfig
    task: TaskConfig
    labels: tuple[str, ...]
    values: Params
    encoder: str
    provenance: dict[str, Any]


def save_artifact(folder: Path, artifact: Artifact) -> None:
    """Writes card and values into an existing folder. `artifact.encoder` may be `.`: the folder itself."""
    encoder = artifact.encoder
    if encoder != "." and Path(encoder).exists():
        encoder = os.path.relpath(encoder, folder)
    save_tensors(artifact.values, folder / VALUES)
    card = {
        "peft": artifact.method.model_dump(mode="json"),
        "task": artifact.task.model_dump(mode="json"),
        "labels": list(artifact.labels),
        "encoder": encoder,
        "provenance": artifact.provenance,
    }
    write_json(folder / CARD, card)


def load_artifact(folder: Path) -> Artifact:
    """Reads card and values.

    Raises:
        MetaprimeError: the folder is not one of ours, or is damaged.
    """
    if not (folder / CARD).is_file():
        raise MetaprimeError(f"{folder} holds no {CARD}: give a folder that `metaprime prime` or `transfer` wrote")
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        values = load_file(folder / VALUES)
        method = METHODS[card["peft"]["method"]].config.model_validate(card["peft"])
        encoder = card["encoder"]
        if encoder == ".":
            encoder = str(folder)
        elif (folder / encoder).exists():
            encoder = os.path.normpath(folder / encoder)
        provenance = card["provenance"]
        if missing := {"kind", "encoder_weights"} - set(provenance):
            raise KeyError(*missing)
        return Artifact(method, _task_of(card), tuple(card["labels"]), values, encoder, provenance)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise MetaprimeError(f"{folder}: {CARD} or {VALUES} is damaged ({error})") from None


def _task_of(card: dict[str, Any]) -> TaskConfig:
    """Returns the task of a card. Cards before there were several tasks are of tagging, and hold the tags alone."""
    if "task" not in card:
        return TASKS["tagging"].of_labels(card["labels"])
    return TASKS[card["task"]["name"]].config.model_validate(card["task"])


def trained_groups(artifact: Artifact) -> set[str]:
    """Which of `adapter` and `head` hold anything but a random draw: priming may have reset or kept them."""
    if artifact.provenance["kind"] == "tuned":
        return {"adapter", "head"}
    used = artifact.provenance["config"]
    learner = LEARNERS[used["learner"]["name"]]
    if not learner.adapts:
        return {"adapter", "head"} & set(learner.outer) if learner.reads_labels else set()
    return {group for group in ("adapter", "head") if used["outer"][group] not in ("reset", "keep")}


def sites_of(artifact: Artifact) -> Layout | None:
    """The sites that the config of its run gave, None where they are the architecture's own.

    Raises:
        MetaprimeError: they are no sites.
    """
    given = _encoder_config(artifact).get("sites")
    try:
        return None if given is None else Layout.model_validate(given)
    except ValidationError as error:
        raise MetaprimeError(f"{CARD} of {artifact.encoder}: the encoder.sites in it are damaged ({error})") from None


def load_encoder_of(artifact: Artifact, trust_remote_code: bool = False) -> Encoder:
    """The encoder the adapter and head were trained on, with the attention, precision and sites of that run.

    Whether code that comes with it may be run is never taken from the folder itself.

    Raises:
        MetaprimeError: its weights are not the ones they were trained on.
    """
    attention = _encoder_config(artifact).get("attention", "sdpa")
    encoder = load_encoder(artifact.encoder, attention, sites_of(artifact), trust_remote_code)
    wanted = artifact.provenance["encoder_weights"]
    if encoder.weights != wanted:
        raise MetaprimeError(
            f"encoder {artifact.encoder} has weights {encoder.weights[:12]}, adapter and head were trained on "
            f"{wanted[:12]}: restore that encoder, or train again"
        )
    return replace(encoder, autocast=_encoder_config(artifact).get("precision") == "bfloat16")


def _encoder_config(artifact: Artifact) -> dict[str, Any]:
    return dict(artifact.provenance.get("config", {}).get("encoder", {}))
