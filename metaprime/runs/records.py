"""Reads the JSON records that transfers leave; everything that can be compared is outside the `volatile` block."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaprime.types import MetaprimeError

if TYPE_CHECKING:
    from metaprime.tasks.task import Metric

RECORD = "record.json"
"""File of a cell's record."""

PREDICTIONS = "predictions.jsonl"
"""File of a cell's predictions, one example in each line."""

Record = dict[str, Any]
KEYS = ("cell", "scores", "training", "frozen")


def read_record(file: Path) -> Record:
    """Reads one record.

    Raises:
        MetaprimeError: the file is missing, damaged or not a record.
    """
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MetaprimeError(f"record {file} cannot be read ({error}): remove it and run the command again") from None
    if not isinstance(record, dict) or not all(key in record for key in KEYS):
        raise MetaprimeError(f"record {file} lacks {', '.join(KEYS)}: remove it and run the command again")
    return record


def comparable(record: Record) -> Record:
    """Returns the record without what differs between two equal runs."""
    return {key: value for key, value in record.items() if key != "volatile"}


def headline(record: Record, metric: Metric) -> float:
    """Returns the record's number of a metric.

    Raises:
        KeyError: the record's scores have no such number.
    """
    return metric.of(record["scores"])


def select(records: Sequence[Record], **wanted: Any) -> list[Record]:
    """Returns the records whose cell has all the wanted values."""
    return [r for r in records if all(r["cell"].get(key) == value for key, value in wanted.items())]
