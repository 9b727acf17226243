"""Reads and selects the JSON records of transfers. Their block `volatile` is never compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaprime.files import check_readable
from metaprime.types import MetaprimeError

if TYPE_CHECKING:
    from metaprime.tasks.task import Metric

RECORD = "record.json"
"""File of a cell's record."""

PREDICTIONS = "predictions.jsonl"
"""File of a cell's predictions, one example in each line."""

Record = dict[str, Any]
"""Content of `record.json`."""

KEYS = ("cell", "scores", "training", "frozen")
"""Keys that every record has."""


@dataclass(frozen=True)
class Cell:
    """The address of one transfer within a command.

    Attributes:
        language: target language.
        method: label of the PEFT method, such as `lora-rank4`.
        shots: K, the number of training sentences.
        seed: seed that draws sentences, their order, and fresh adapter and head.
    """

    language: str
    method: str
    shots: int
    seed: int

    @property
    def folder(self) -> str:
        """Name of the cell's folder, such as `qai-lora-rank4-k8-s0`."""
        return f"{self.language}-{self.method}-k{self.shots}-s{self.seed}"


def read_record(file: Path) -> Record:
    """Reads one record: `read_record(folder / RECORD)["scores"]`.

    Raises:
        MetaprimeError: the file is missing, damaged, not a record, or may not be read.
    """
    check_readable(file)
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MetaprimeError(f"record {file} cannot be read ({error}): remove it and run the command again") from None
    if not isinstance(record, dict) or not all(key in record for key in KEYS):
        raise MetaprimeError(f"record {file} lacks {', '.join(KEYS)}: remove it and run the command again")
    return record


def comparable(record: Record) -> Record:
    """Returns the record without its volatile block: `comparable(record) == comparable(other)`."""
    return {key: value for key, value in record.items() if key != "volatile"}


def headline(record: Record, metric: Metric) -> float:
    """Returns the record's value of a metric, in the metric's unit.

    Raises:
        KeyError: the record's scores lack the metric.

    Example: `headline(record, TAGGING.metric)`
    """
    return metric.of(record["scores"])


def select(records: Sequence[Record], **wanted: Any) -> list[Record]:
    """Returns the records whose cell has all the wanted values.

    Example: `select(records, language="qai", shots=50)`
    """
    return [r for r in records if all(r["cell"].get(key) == value for key, value in wanted.items())]


def read_predictions(folder: Path) -> list[dict[str, Any]]:
    """Reads a transfer's predictions: `read_predictions(transfer.folder)[0]["gold"]`.

    Returns:
        One mapping per test example, with at least `gold` and `predicted`.

    Raises:
        MetaprimeError: the file is missing or damaged.
    """
    file = folder / PREDICTIONS
    check_readable(file)
    try:
        return [_prediction(text, number) for number, text in enumerate(file.read_text("utf-8").splitlines(), 1)]
    except (OSError, ValueError) as error:
        raise MetaprimeError(
            f"predictions {file} cannot be read ({error}): remove {folder} and run the command again"
        ) from None


def _prediction(text: str, number: int) -> dict[str, Any]:
    """Reads one line of predictions.

    Raises:
        ValueError: the line is not a prediction; the message has its number.
    """
    try:
        line: dict[str, Any] = json.loads(text)
        if not {"gold", "predicted"} <= line.keys():
            raise KeyError("gold and predicted")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"line {number}: {error!r}") from None
    return line
