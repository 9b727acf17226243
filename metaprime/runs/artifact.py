"""Writes and reads artifacts: adapter, head and provenance for a plain Hugging Face encoder.

A folder holds `metaprime.json` (the card) and `metaprime.safetensors` (values of `adapter.*` and
`head.*`). A primed folder is also the encoder itself; a fine-tuned one names its encoder, with the
hash of its weights.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from metaprime.config.code import code_hashes
from metaprime.files import check_readable, save_tensors, write_json
from metaprime.meta import LEARNERS
from metaprime.models.sites import Layout
from metaprime.peft import METHODS, MethodConfig
from metaprime.peft import settings_of as method_settings
from metaprime.tasks import TASKS, TaskConfig
from metaprime.tasks import settings_of as task_settings
from metaprime.types import MetaprimeError, Params

if TYPE_CHECKING:
    from metaprime.models.encoder import Encoder

CARD, VALUES = "metaprime.json", "metaprime.safetensors"
"""Files of an artifact: settings, labels and provenance; values of adapter and head."""


@dataclass(frozen=True)
class Artifact:
    """Adapter, head and provenance of a run.

    Attributes:
        method: settings of the adapter's PEFT method.
        task: settings of the head's task.
        labels: meaning of the head's C outputs, in order.
        values: `adapter.*` and `head.*` by full name, such as `head.weight` (C, D).
        encoder: folder or hub id of the encoder they were trained on; `.` is the artifact's own
            folder.
        provenance: `kind` (`primed` or `tuned`), `encoder_weights` (hash), config, seed and
            versions.
        scale: divisor of the encoder's output before the head.
    """

    method: MethodConfig
    task: TaskConfig
    labels: tuple[str, ...]
    values: Params
    encoder: str
    provenance: dict[str, Any]
    scale: float = 1.0


def save_artifact(folder: Path, artifact: Artifact) -> None:
    """Writes the card and the values into a folder: `save_artifact(Path("run/primed"), artifact)`.

    Args:
        folder: an existing folder.
        artifact: its content. An encoder that is a local folder is recorded relative to `folder`,
            so that both can be moved together.

    Raises:
        MetaprimeError: the card cannot be written.
    """
    encoder = artifact.encoder
    if encoder != "." and Path(encoder).exists():
        encoder = os.path.relpath(encoder, folder)
    save_tensors(artifact.values, folder / VALUES)
    card = {
        "peft": artifact.method.model_dump(mode="json"),
        "task": artifact.task.model_dump(mode="json"),
        "labels": list(artifact.labels),
        "encoder": encoder,
        "scale": artifact.scale,
        "provenance": artifact.provenance,
    }
    if own := code_hashes():
        card["code"] = own
    write_json(folder / CARD, card)


def check_card(folder: Path) -> None:
    """Refuses a folder that holds no artifact: `check_card(Path("run/primed"))`.

    Raises:
        MetaprimeError: the folder does not exist, has no card, or may not be read.
    """
    check_readable(folder)
    if not (folder / CARD).is_file():
        fault = f"holds no {CARD}" if folder.exists() else "does not exist"
        raise MetaprimeError(f"{folder} {fault}: give a folder that `metaprime prime` or `transfer` wrote")


def check_artifact(folder: Path) -> Artifact:
    """Returns an artifact without its values, which are left empty: all that is known of it before torch is loaded.

    Args:
        folder: the artifact's; a relative path to its encoder is resolved against it.

    Raises:
        MetaprimeError: the folder holds no artifact, or a file of it is damaged or may not be read.

    Example: `check_artifact(Path("run/primed")).labels`.
    """
    check_card(folder)
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        _check_own(folder, card)
        # The names of the values alone are read.
        with safe_open(folder / VALUES, framework="numpy"):
            pass
        method = method_settings(card["peft"]["method"]).model_validate(card["peft"])
        encoder = card["encoder"]
        if encoder == ".":
            encoder = str(folder)
        elif (folder / encoder).exists():
            encoder = os.path.normpath(folder / encoder)
        provenance = card["provenance"]
        if missing := {"kind", "encoder_weights"} - set(provenance):
            raise KeyError(*missing)
        scale = float(card.get("scale", 1.0))
        found = Artifact(method, _task_of(card), tuple(card["labels"]), {}, encoder, provenance, scale)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise MetaprimeError(f"{folder}: {CARD} or {VALUES} is damaged ({error})") from None
    return found


def load_artifact(folder: Path) -> Artifact:
    """Reads the card and the values of a folder: `load_artifact(Path("run/primed")).labels`.

    Args:
        folder: the artifact's; a relative path to its encoder is resolved against it.

    Raises:
        MetaprimeError: as for `check_artifact`.
    """
    artifact = check_artifact(folder)
    from safetensors.torch import load_file

    try:
        return replace(artifact, values=load_file(folder / VALUES))
    except (OSError, ValueError, SafetensorError) as error:
        raise MetaprimeError(f"{folder}: {CARD} or {VALUES} is damaged ({error})") from None


def _check_own(folder: Path, card: dict[str, Any]) -> None:
    """Refuses an artifact of own code, unless the user has named the files, and as they were.

    Raises:
        MetaprimeError: a name is unknown, or the code that this process has run is another.
    """
    provenance, own = card["provenance"], card.get("code", {})
    if not own:
        return
    named = ", ".join(f"{file} (SHA-256 {digest})" for file, digest in own.items())
    learner = provenance.get("config", {}).get("learner", {}).get("name", "maml")
    names = (("peft.method", card["peft"]["method"], METHODS), ("learner.name", learner, LEARNERS))
    for key, name, table in (*names, ("task.name", card.get("task", {}).get("name", "tagging"), TASKS)):
        if name not in table:
            raise MetaprimeError(
                f"{folder}: {key} {name!r} is unknown here; it was made with own code: {named}. Read that file, and add "
                "--code FILE to the command (run.code=FILE where it takes a config)"
            )
    if code_hashes() and not set(own.values()) <= set(code_hashes().values()):
        raise MetaprimeError(f"{folder}: made with own code {named}, which has changed since: give it as it was then")


def _task_of(card: dict[str, Any]) -> TaskConfig:
    """Returns the task of a card; cards of older versions, which lack it, are of tagging."""
    if "task" not in card:
        return TASKS["tagging"].of_labels(card["labels"])
    return task_settings(card["task"]["name"]).model_validate(card["task"])


def trained_groups(artifact: Artifact) -> set[str]:
    """Returns the trained ones of `adapter` and `head`: `"head" in trained_groups(artifact)`.

    A group that priming reset or kept fixed in the outer loop is a random draw.
    """
    if artifact.provenance["kind"] == "tuned":
        return {"adapter", "head"}
    config = artifact.provenance["config"]
    learner = LEARNERS[config["learner"]["name"]]
    if not learner.adapts:
        return {"adapter", "head"} & set(learner.outer) if learner.reads_labels else set()
    return {group for group in ("adapter", "head") if config["outer"][group] not in ("reset", "keep")}


def sites_of(artifact: Artifact) -> Layout | None:
    """Returns the sites in `encoder.sites` of the run's config; None: those of the architecture.

    Raises:
        MetaprimeError: `encoder.sites` in the card is not valid.
    """
    sites = _encoder_config(artifact).get("sites")
    try:
        return None if sites is None else Layout.model_validate(sites)
    except ValidationError as error:
        raise MetaprimeError(f"{CARD} of {artifact.encoder}: encoder.sites is damaged ({error})") from None


def load_encoder_of(artifact: Artifact, trust_remote_code: bool = False) -> Encoder:
    """Loads the encoder of adapter and head, with the attention, precision, sites and spacing of their run.

    Args:
        artifact: adapter, head and provenance.
        trust_remote_code: whether code that comes with the encoder may run; the card cannot allow
            it.

    Returns:
        The encoder, as in `load_encoder_of(load_artifact(folder)).module`.

    Raises:
        MetaprimeError: the encoder cannot be loaded, or its weights have changed since the
            training.
    """
    from metaprime.models.encoder import load_encoder, shortened

    read = _encoder_config(artifact)
    # What was trained before the key existed is read as it was then.
    attention, spacing = read.get("attention", "sdpa"), read.get("spacing")
    # Whether the encoder was one to take was asked before the training.
    loaded = load_encoder(
        artifact.encoder, attention, sites_of(artifact), trust_remote_code, spacing=spacing, direction="causal"
    )
    encoder = shortened(loaded, read.get("layer"))
    wanted = artifact.provenance["encoder_weights"]
    if encoder.weights != wanted:
        raise MetaprimeError(
            f"encoder {artifact.encoder} has weights {encoder.weights[:12]}, but adapter and head were trained on "
            f"{wanted[:12]}: restore that encoder, or train again"
        )
    return replace(encoder, autocast=read.get("precision") == "bfloat16", scale=artifact.scale)


def _encoder_config(artifact: Artifact) -> dict[str, Any]:
    """Returns the section `encoder` of the run's config; empty if the card has none."""
    return dict(artifact.provenance.get("config", {}).get("encoder", {}))
