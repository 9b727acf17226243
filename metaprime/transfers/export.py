"""Exports adapter and head to the files of another package (`metaprime peft export`)."""

from __future__ import annotations

from pathlib import Path

from metaprime.files import written_aside
from metaprime.interop.adapterhub import save_for_adapterhub
from metaprime.interop.hf_peft import save_as_peft
from metaprime.runs.artifact import load_artifact, load_encoder_of, trained_groups
from metaprime.types import MetaprimeError

FORMATS = ("peft", "adapterhub")


def export(folder: str | Path, out: str | Path, form: str = "peft", trust_remote_code: bool = False) -> Path:
    """Writes adapter and head in the file format of another package.

    Args:
        folder: folder of a transfer's cell, or a primed folder with a trained adapter and head.
        out: folder to write, which must not exist.
        form: `peft` for Hugging Face's peft, or `adapterhub`.
        trust_remote_code: whether Python files that come with the encoder may be run.

    Returns:
        `out` as a path.

    Raises:
        MetaprimeError: the format is unknown, metaprime did not write the folder, adapter or head
            is a random draw, the other package lacks the method, or `out` exists.

    Example:
        >>> metaprime.export(results[0].path, folder / "exported", "adapterhub").name
        'exported'
    """
    if form not in FORMATS:
        raise MetaprimeError(f"--format {form!r} is unknown: {' or '.join(FORMATS)}")
    artifact, target = load_artifact(Path(folder)), Path(out)
    if target.exists():
        raise MetaprimeError(f"{target} exists: choose another folder, or remove it")
    if missing := {"adapter", "head"} - trained_groups(artifact):
        raise MetaprimeError(
            f"{folder} holds only a random draw of {' and '.join(sorted(missing))} (outer.adapter or outer.head reset or "
            "keep): prime with meta, or export a transfer"
        )
    encoder = load_encoder_of(artifact, trust_remote_code)
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(target) as aside:
        if form == "peft":
            save_as_peft(encoder, artifact.method, artifact.labels, artifact.values, aside, trust_remote_code)
        else:
            save_for_adapterhub(encoder, artifact.method, artifact.labels, artifact.values, aside)
    return target
