"""`metaprime peft export`: adapter and head of a transfer in the files of another package."""

from __future__ import annotations

from pathlib import Path

from metaprime.files import written_aside
from metaprime.interop.adapterhub import save_for_adapterhub
from metaprime.interop.hf_peft import save_as_peft
from metaprime.runs.artifact import load_artifact, load_encoder_of, trained_groups
from metaprime.types import MetaprimeError

FORMATS = ("peft", "adapterhub")


def export(folder: str | Path, out: str | Path, form: str = "peft", trust_remote_code: bool = False) -> Path:
    """Writes what `folder` (a transfer's cell, or a primed folder that learned both) holds to `out`, in one of FORMATS.

    Raises:
        MetaprimeError: the format is unknown, the folder is not one of ours, its adapter or head is a random draw, its method
            has no equal there, or `out` exists.
    """
    if form not in FORMATS:
        raise MetaprimeError(f"--format {form!r} is unknown: {' or '.join(FORMATS)}")
    artifact, target = load_artifact(Path(folder)), Path(out)
    if target.exists():
        raise MetaprimeError(f"{target} exists: give a folder that does not, or remove it")
    if missing := {"adapter", "head"} - trained_groups(artifact):
        raise MetaprimeError(
            f"{folder}: {' and '.join(sorted(missing))} in it are a random draw (outer.adapter or outer.head reset or keep)"
        )
    encoder = load_encoder_of(artifact, trust_remote_code)
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(target) as aside:
        if form == "peft":
            save_as_peft(encoder, artifact.method, artifact.labels, artifact.values, aside, trust_remote_code)
        else:
            save_for_adapterhub(encoder, artifact.method, artifact.labels, artifact.values, aside)
    return target
