"""Scores entities by seqeval in two readings; papers often do not name theirs.

`lenient` is conlleval's: an I- that continues nothing opens an entity. `strict` counts only
well-formed IOB2. The two agree for a model that has learned the scheme; a gap shows that it has
not. Neither bounds the other: a wrong entity that begins with I- costs precision in the lenient
reading alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from seqeval.scheme import IOB2

from metaprime.data.rows import Example
from metaprime.tasks.task import Metric, Scores

READINGS: dict[str, dict[str, Any]] = {"lenient": {}, "strict": {"mode": "strict", "scheme": IOB2}}
"""Options of seqeval for each reading."""

NAMES = {"f1": "F1", "precision": "precision", "recall": "recall"}
"""Names of the numbers of a reading by their keys."""

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
"""Metrics of the task; the first is the headline, lenient micro-F1."""

_NOTHING = {"precision": 0.0, "recall": 0.0, "f1-score": 0.0, "support": 0}


def score(examples: Sequence[Example], predicted: Sequence[Sequence[str]]) -> Scores:
    """Scores predicted tags against the gold tags of whole sentences.

    Args:
        examples: `gold` is a tuple of IOB2 tags.
        predicted: one tag for each word of each sentence.

    Raises:
        ValueError: gold and predicted tags of a sentence differ in number.

    Example: `score(examples, [example.gold for example in examples]).headline` is 100.
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
        ValueError: gold and predicted tags of a sentence differ in number.

    Example: `entity_scores([["B-PER"]], [["O"]])["strict"]["overall"]["recall"]` is 0.
    """
    lengths = [(len(tags), len(guesses)) for tags, guesses in zip(gold, predicted, strict=True)]
    if wrong := [number for number, (expected, actual) in enumerate(lengths) if expected != actual]:
        raise ValueError(f"sentence {wrong[0]}: {lengths[wrong[0]][0]} gold tags, {lengths[wrong[0]][1]} predicted")
    # Imported here: it loads scikit-learn, which takes a second, and no start of a run counts entities.
    from seqeval.metrics import classification_report

    truth, guess = [list(tags) for tags in gold], [list(tags) for tags in predicted]
    scores: dict[str, Any] = {"sentences": len(truth)}
    for reading, options in READINGS.items():
        # The precision of a type that is never predicted is undefined; it is reported as 0.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = classification_report(truth, guess, output_dict=True, zero_division=0, **options)
        overall = _per_cent(report["micro avg"]) if "micro avg" in report else _per_cent(_NOTHING)
        types = {name: _per_cent(row) for name, row in sorted(report.items()) if not name.endswith(" avg")}
        scores[reading] = {"overall": overall, "types": types}
    return scores


def _per_cent(row: dict[str, Any]) -> dict[str, float]:
    """Converts a row of seqeval's report to per cent."""
    return {
        "precision": 100 * float(row["precision"]),
        "recall": 100 * float(row["recall"]),
        "f1": 100 * float(row["f1-score"]),
        "entities": int(row["support"]),
    }
