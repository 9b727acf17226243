"""Records a suite's definition; resuming with a different one is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from metaprime.files import discard, write_json, writing
from metaprime.models.encoder import Encoder
from metaprime.reports.summary import TABLE
from metaprime.runs.provenance import Provenance, changes, versions
from metaprime.runs.results import RESULTS
from metaprime.suite.spec import SuitePlan
from metaprime.types import MetaprimeError

SUITE_RECORD = "suite.json"


def check_suite(plan: SuitePlan, folder: Path, overwrite: bool, weights: str | None = None) -> None:
    """Refuses a folder that holds another suite, or that is no suite's. Seeds, contrasts and matches may change.

    Args:
        plan: the suite.
        folder: its folder.
        overwrite: whether its record may be replaced.
        weights: hash of the base encoder; None: not known yet.

    Raises:
        MetaprimeError: the suite differs; each difference is named, with what it was and is.
    """
    record = folder / SUITE_RECORD
    if not record.is_file():
        if folder.exists() and any(folder.iterdir()):
            raise MetaprimeError(f"{folder} holds files that are no suite's; choose another name or run.output")
        return
    if overwrite:
        return
    try:
        before: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        different = changes(before, _provenance(plan, weights or before["weights"]["encoder.name"]))
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
    """Records what the suite is, once its encoder is known."""
    check_suite(plan, folder, overwrite, encoder.weights)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if overwrite:
        for name in (RESULTS, TABLE):
            if (folder / name).is_file():
                discard(folder / name)
    write_json(folder / SUITE_RECORD, _provenance(plan, encoder.weights).as_json())


def _provenance(plan: SuitePlan, weights: str) -> Provenance:
    """Returns what the suite's results depend on."""
    arms = {
        name: {"set": list(arm.set), "transfer": list(arm.transfer), "primed": arm.primer is not None}
        for name, arm in plan.arms.items()
    }
    config = plan.base.facts() | {"suite": {"arms": arms, "tune": plan.tune}}
    return Provenance(config=config, versions=versions(), weights={"encoder.name": weights})
