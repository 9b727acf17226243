"""What a suite was when it was begun: goes on only if it is the same still."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from metaprime.files import discard, write_json, writing
from metaprime.models.encoder import Encoder
from metaprime.reports.summary import TABLE
from metaprime.runs.provenance import changes, config_facts, versions
from metaprime.runs.results import RESULTS
from metaprime.suite.spec import Plan
from metaprime.types import MetaprimeError

RECORD = "suite.json"


def check_suite(plan: Plan, folder: Path, overwrite: bool, weights: str | None = None) -> None:
    """Refuses a folder in which another suite was begun, or that is no suite's. Seeds, contrasts and matches may change.

    Raises:
        MetaprimeError: naming each difference, with what it was and is.
    """
    record = folder / RECORD
    if not record.is_file():
        if folder.exists() and any(folder.iterdir()):
            raise MetaprimeError(f"{folder} holds files that are no suite's; choose another name or run.output")
        return
    if overwrite:
        return
    try:
        before: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        different = changes(before, _facts(plan, weights or before["weights"]["encoder.name"]))
    except (ValueError, KeyError, TypeError) as error:
        raise MetaprimeError(f"{record} is damaged ({error}): use --overwrite, which keeps all cells") from None
    if different:
        raise MetaprimeError(
            "\n".join(
                [
                    f"{folder} holds a suite that was begun otherwise: choose another name or run.output, or replace its record "
                    "with --overwrite, which keeps all cells",
                    *different,
                ]
            )
        )


def open_suite(plan: Plan, folder: Path, encoder: Encoder, overwrite: bool) -> None:
    """Records what the suite is, once its encoder is known."""
    check_suite(plan, folder, overwrite, encoder.weights)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if overwrite:
        for name in (RESULTS, TABLE):
            if (folder / name).is_file():
                discard(folder / name)
    write_json(folder / RECORD, _facts(plan, encoder.weights))


def _facts(plan: Plan, weights: str) -> dict[str, dict[str, Any]]:
    arms = {
        name: {"set": list(arm.set), "transfer": list(arm.transfer), "primed": arm.priming is not None}
        for name, arm in plan.arms.items()
    }
    config = config_facts(plan.base) | {"suite": {"arms": arms, "tune": plan.tune}}
    return {"config": config, "versions": versions(), "weights": {"encoder.name": weights}}
