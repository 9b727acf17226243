"""Scores entities by seqeval, in both readings that papers use without saying which.

`lenient` is conlleval's: an I- that continues nothing still opens an entity. `strict` counts only
well-formed IOB2. A model that learned the scheme scores alike in both; the gap is itself information.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from seqeval.metrics import classification_report
from seqeval.scheme import IOB2

from metaprime.data.rows import Example
from metaprime.tasks.task import Metric, Scores

READINGS: dict[str, dict[str, Any]] = {"lenient": {}, "strict": {"mode": "strict", "scheme": IOB2}}

NAMES = {"f1": "F1", "precision": "precision", "recall": "recall"}

METRICS = tuple(
    Metric(
        name=f"entity {name}",
        key=(reading, "overall", number),
        column=f"{reading}_{number}",
        short=f"{reading} {name}" if reading != "lenient" else name,
        heading=f"{reading} {name}" if number == "f1" else "",
        note=f"{reading}, micro",
    )
    for reading in READINGS
    for number, name in NAMES.items()
)
"""The first is the headline: lenient micro-F1."""

_NOTHING = {"precision": 0.0, "recall": 0.0, "f1-score": 0.0, "support": 0}


def score(examples: Sequence[Example], predicted: Sequence[Sequence[str]]) -> Scores:
    """Scores predicted tags against the gold ones of whole sentences.

    Args:
        examples: `gold` is a tuple of IOB2 tags.
        predicted: as many tags for each sentence.
    """
    details = entity_scores([example.gold for example in examples], predicted)
    return Scores(METRICS[0].of(details), details)


def entity_scores(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Computes precision, recall, F1 (per cent) and number of gold entities for each reading.

    Args:
        gold: a sequence of IOB2 tags for each sentence.
        predicted: likewise, of equal lengths.

    Returns:
        `sentences`, and for each reading `overall` (micro) and `types`.

    Raises:
        ValueError: the two differ in the number of tags of a sentence.
    """
    lengths = [(len(one), len(other)) for one, other in zip(gold, predicted, strict=True)]
    if wrong := [place for place, (one, other) in enumerate(lengths) if one != other]:
        raise ValueError(f"sentence {wrong[0]}: {lengths[wrong[0]][0]} gold tags, {lengths[wrong[0]][1]} predicted")
    truth, guess = [list(tags) for tags in gold], [list(tags) for tags in predicted]
    scores: dict[str, Any] = {"sentences": len(truth)}
    for reading, options in READINGS.items():
        # A type that is never predicted has an undefined precision: it is reported as 0.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = classification_report(truth, guess, output_dict=True, zero_division=0, **options)
        overall = _per_cent(report["micro avg"]) if "micro avg" in report else _per_cent(_NOTHING)
        types = {name: _per_cent(row) for name, row in sorted(report.items()) if not name.endswith(" avg")}
        scores[reading] = {"overall": overall, "types": types}
    return scores


def _per_cent(row: dict[str, Any]) -> dict[str, float]:
    return {
        "precision": 100 * float(row["precision"]),
        "recall": 100 * float(row["recall"]),
        "f1": 100 * float(row["f1-score"]),
        "entities": int(row["support"]),
    }
