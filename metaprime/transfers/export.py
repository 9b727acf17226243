"""Exports adapter and head to the files of another package (`metaprime peft export`)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from metaprime.files import written_aside
from metaprime.interop.formats import FORMATS, Format
from metaprime.models.folder import refuse_bad_folder
from metaprime.runs.artifact import check_artifact, load_artifact, load_encoder_of, trained_groups
from metaprime.runs.records import RECORD, read_record
from metaprime.tasks import Task
from metaprime.transfers.predict import CHECKED_TEXT
from metaprime.types import MetaprimeError, Params

if TYPE_CHECKING:
    from metaprime.interop.classifier import Tuned

TOLERANCE = 1e-4
"""Largest difference between our logits and those of a loaded export, as a share of the largest logit."""

log = logging.getLogger(__name__)


def export(folder: str | Path, out: str | Path, form: str = "peft", trust_remote_code: bool = False) -> Path:
    """Writes adapter and head in the file format of another package, with a model card.

    What was written for peft or transformers is loaded again by their own loader, and kept only if
    its logits are ours.

    Args:
        folder: folder of a transfer's cell, or a primed folder with a trained adapter and head.
        out: folder to write, which must not exist.
        form: `peft` for Hugging Face's peft, `adapterhub`, or `transformers` for an ordinary classifier,
            with the adapter merged into its weights.
        trust_remote_code: whether Python files that come with the encoder may be run.

    Returns:
        `out` as a path.

    Raises:
        MetaprimeError: the format is unknown, metaprime did not write the folder, adapter or head
            is a random draw, the other package lacks the method or the head, or `out` exists.

    Example:
        >>> metaprime.export(results[0].path, folder / "exported", "adapterhub").name
        'exported'
    """
    target = Path(out)
    _check_asked(Path(folder), target, form)
    # Imported here: a mistake is refused before torch is loaded.
    from metaprime.build.data import restored_task
    from metaprime.interop.classifier import Tuned, told_to_loader
    from metaprime.transfers.card import Export, write_card

    artifact = load_artifact(Path(folder))
    # Whoever loads the export computes in float32.
    encoder = replace(load_encoder_of(artifact, trust_remote_code), autocast=False)
    task = restored_task(artifact.task, encoder, artifact.method)
    record = read_record(Path(folder) / RECORD) if (Path(folder) / RECORD).is_file() else None
    if task.plain is None:
        raise MetaprimeError(
            f"{folder}: no class of transformers or of its peft has a head like that of task.name {artifact.task.name}: export "
            "the folder of a transfer, if there are several tasks, or use `metaprime predict`"
        )
    labels = task.plain.labels or artifact.labels
    shown = slice(task.plain.first, task.plain.first + len(labels))
    head = {name: value[shown] for name, value in artifact.values.items() if name.startswith("head.")}
    tuned = Tuned(encoder, artifact.method, labels, {**artifact.values, **head}, trust_remote_code, task.plain)
    with written_aside(target) as aside:
        _save(tuned, form, aside)
        settings = told_to_loader(tuned)
        _check(tuned, _Ours(task, artifact.values, shown), form, aside)
        write_card(aside, Export(replace(artifact, labels=labels), task.kind, record, form, settings, task.plain))
    if form == "peft" and "id2label" in settings:
        log.warning(
            "the config of %s does not name the %d labels: peft's loader needs them as README.md of %s shows",
            artifact.encoder,
            len(labels),
            target,
        )
    return target


def _check_asked(folder: Path, target: Path, form: str) -> None:
    """Refuses a format that there is not, a folder without a trained model or its encoder, and a target that exists."""
    if form not in FORMATS:
        raise MetaprimeError(f"--format {form!r} is unknown: {', '.join(FORMATS)}")
    artifact = check_artifact(folder)
    if target.exists():
        raise MetaprimeError(f"{target} exists: choose another folder, or remove it")
    if missing := {"adapter", "head"} - trained_groups(artifact):
        raise MetaprimeError(
            f"{folder} holds only a random draw of {' and '.join(sorted(missing))} (outer.adapter or outer.head reset or "
            "keep): prime with meta, or export a transfer"
        )
    refuse_bad_folder(artifact.encoder)


def _save(tuned: Tuned, form: str, folder: Path) -> None:
    """Writes the files of a format; a refusal names the formats that are possible instead."""
    try:
        FORMATS[form].save(tuned, folder)
    except MetaprimeError as error:
        others = [name for name, other in FORMATS.items() if name != form and _possible(tuned, other)]
        remedy = f"use --format {' or '.join(others)}" if others else "no other format can hold it either"
        raise MetaprimeError(f"{error}; {remedy}. The metaprime folder itself works with `metaprime predict`") from None


def _possible(tuned: Tuned, other: Format) -> bool:
    """Returns True if a format can hold the model."""
    try:
        other.convert(tuned)
    except MetaprimeError:
        return False
    return True


@dataclass(frozen=True)
class _Ours:
    """Our model: its task, its values, and the outputs of its head that are exported."""

    task: Task
    values: Params
    shown: slice


def _check(tuned: Tuned, ours: _Ours, form: str, folder: Path) -> None:
    """Checks that the loader which users call gives our logits.

    Raises:
        MetaprimeError: it gives others, because the format cannot hold what the model computes.
    """
    # AdapterHub's package needs another version of transformers.
    if form == "adapterhub":
        return
    # Imported here, as in `export`.
    import torch

    from metaprime.build.model import build_model
    from metaprime.interop.classifier import told_to_loader
    from metaprime.interop.hf_peft import load_peft
    from metaprime.interop.transformers_folder import load_transformers
    from metaprime.models.task_model import assign

    task, texts, auto_class = ours.task, ours.task.config.texts, tuned.plain.auto_class
    rows = task.encode([task.example(CHECKED_TEXT.split())])
    model, batch = build_model(tuned.encoder, task, tuned.method, rows), task.collate(rows)
    assign(model, ours.values)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
    if auto_class == "AutoModelForMultipleChoice":
        inputs = {name: value[None] for name, value in inputs.items()}
    if form == "peft":
        theirs = load_peft(folder, told_to_loader(tuned), tuned.trust_remote_code, auto_class)
    else:
        theirs = load_transformers(folder, tuned.trust_remote_code, auto_class)
    with torch.no_grad():
        expected = task.outputs(model, batch)[..., ours.shown] * tuned.plain.unit + tuned.plain.centre
        logits = theirs.eval()(**inputs).logits
    if auto_class == "AutoModelForMultipleChoice":
        logits = logits.T
    elif not texts:
        # peft returns logits at the positions of a prompt too, before those of the words.
        logits = logits[:, -batch["input_ids"].shape[1] :]
    if expected.shape != logits.shape:
        raise MetaprimeError(
            f"task.name {task.config.name}: its outputs of shape {tuple(expected.shape)} are not one for each sub-word, as those "
            "of a token classifier are: it cannot be exported"
        )
    difference, size = (expected - logits).abs().max().item(), max(1.0, expected.abs().max().item())
    if not difference <= TOLERANCE * size:
        raise MetaprimeError(
            f"--format {form}: what its loader reads gives other logits than this model (largest difference {difference:.1e}): "
            f"peft.method {tuned.method.method} on this {type(tuned.encoder.module).__name__} cannot be exported so"
        )
