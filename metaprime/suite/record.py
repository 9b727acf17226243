"""Records a suite's definition; resuming with a different one is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaprime.files import check_readable, discard, write_json, writing
from metaprime.reports.summary import TABLE
from metaprime.runs.provenance import Provenance, changes, versions
from metaprime.runs.results import RESULTS
from metaprime.suite.spec import SuitePlan
from metaprime.types import MetaprimeError

if TYPE_CHECKING:
    from metaprime.models.encoder import Encoder

SUITE_RECORD = "suite.json"
"""File in a suite's folder with the definition that it was started with."""


def check_suite(plan: SuitePlan, folder: Path, overwrite: bool, weights: str | None = None) -> None:
    """Validates that a folder is new or holds this suite; seeds, contrasts and matches may differ.

    Args:
        plan: the suite.
        folder: the suite's folder.
        overwrite: True skips the comparison with the suite that was started there.
        weights: hash of the base encoder's weights; None: not known yet.

    Raises:
        MetaprimeError: the folder holds files of something else, its record is damaged, or another suite was
            started there; each difference is listed as old -> new.

    Example: `check_suite(plan, Path("runs/ablations/order"), overwrite=False)`.
    """
    record = folder / SUITE_RECORD
    check_readable(record)
    if not record.is_file():
        if folder.exists() and any(folder.iterdir()):
            raise MetaprimeError(f"{folder} holds files but no suite: choose another name or run.output")
        return
    if overwrite:
        return
    try:
        recorded: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        different = changes(recorded, _provenance(plan, weights or recorded["weights"]["encoder.name"]))
    except (ValueError, KeyError, TypeError) as error:
        raise MetaprimeError(f"{record} is damaged ({error}): use --overwrite, which keeps all cells") from None
    if different:
        raise MetaprimeError(
            "\n".join(
                [
                    f"{folder} holds a suite that was started with another definition: choose another name or run.output, or "
                    "replace its record with --overwrite, which keeps all cells",
                    *different,
                ]
            )
        )


def open_suite(plan: SuitePlan, folder: Path, encoder: Encoder, overwrite: bool) -> None:
    """Writes the record of a suite; with `overwrite`, removes results and table of another one.

    Args:
        plan: the suite.
        folder: the suite's folder.
        encoder: the base encoder.
        overwrite: True replaces the record of another suite.

    Raises:
        MetaprimeError: as `check_suite`, or the folder cannot be written.
    """
    check_suite(plan, folder, overwrite, encoder.weights)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if overwrite:
        for name in (RESULTS, TABLE):
            if (folder / name).is_file():
                discard(folder / name)
    write_json(folder / SUITE_RECORD, _provenance(plan, encoder.weights).as_json())


def _provenance(plan: SuitePlan, weights: str) -> Provenance:
    """Returns all that a suite's results depend on."""
    arms = {
        name: {"set": list(arm.set), "transfer": list(arm.transfer), "primed": arm.primer is not None}
        for name, arm in plan.arms.items()
    }
    config = plan.base.facts() | {"suite": {"arms": arms, "tune": plan.tune}}
    return Provenance(config=config, versions=versions(), weights={"encoder.name": weights})
