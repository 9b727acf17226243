"""Defines the tagging of words by classes without spans, such as parts of speech: scores, mistakes, answers.

A word that no window holds has no answer and counts as wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from metaprime.data.rows import Example
from metaprime.tasks.class_scores import class_scores
from metaprime.tasks.task import Errors, Metric, Piece, Scores, Statistics, Trivial

CLASS_METRICS = (
    Metric("accuracy", ("accuracy",), "accuracy", heading="accuracy", note="of words"),
    Metric("macro F1", ("macro_f1",), "macro_f1", heading="macro F1", note="mean of the classes"),
)
"""Metrics of classes of words; the first is the headline."""


def score_classes(examples: Sequence[Example], predicted: Sequence[Sequence[str]]) -> Scores:
    """Scores predicted classes against the gold classes of all words.

    Args:
        examples: `gold` is a tuple of one class for each word.
        predicted: one class for each word of each sentence, or UNANSWERED.

    Raises:
        ValueError: gold and predicted classes of a sentence differ in number, or there is no word.

    Example: `score_classes(examples, [example.gold for example in examples]).headline` is 100.
    """
    pairs = [
        pair for example, own in zip(examples, predicted, strict=True) for pair in zip(example.gold, own, strict=True)
    ]
    gold, answers = map(list, zip(*pairs, strict=True))
    details = {"sentences": len(examples), **class_scores(gold, answers)}
    return Scores(CLASS_METRICS[0].of(details), details)


def _right_and_all(line: Mapping[str, Any]) -> tuple[int, int]:
    """Returns the numbers of right answers and of words in a line of predictions.jsonl."""
    gold, predicted = line["gold"], line["predicted"]
    if len({len(line["words"]), len(gold), len(predicted)}) != 1:
        raise ValueError("words, gold and predicted differ in number")
    return sum(map(str.__eq__, gold, predicted)), len(gold)


def _right_and_wrong(line: Mapping[str, Any]) -> tuple[int, int]:
    """Returns the numbers of right and of wrong answers in a line of predictions.jsonl."""
    right, words = _right_and_all(line)
    return right, words - right


def right_share(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the accuracy in per cent, `(...,)`; 0 without a word.

    Args:
        sums: numbers of right answers and of words, summed over sentences, `(..., 2)`.

    Example: `right_share(np.array([8.0, 10.0]))` is 80.
    """
    right: npt.NDArray[np.float64] = 100 * sums[..., 0] / np.maximum(sums[..., 1], 1)
    return right


def mistakes(line: Mapping[str, Any], reading: str) -> tuple[Piece, ...]:
    """Cuts a sentence into the words that are answered wrongly, with their class, and the words between.

    Args:
        line: of predictions.jsonl.
        reading: `gold` or `predicted`.

    Example: `mistakes(line, "predicted")[0].type`.
    """
    pieces: list[Piece] = []
    between: list[str] = []
    for word, right, answer in zip(line["words"], line["gold"], line["predicted"], strict=True):
        if right == answer:
            between.append(word)
            continue
        pieces += [Piece(" ".join(between))] if between else []
        between = []
        pieces.append(Piece(word, right, "gold") if reading == "gold" else Piece(word, answer or "no answer", "wrong"))
    return (*pieces, *([Piece(" ".join(between))] if between else []))


CLASS_TRIVIAL = Trivial(
    "Answering the most frequent class always", lambda details, metric: metric.of(details["majority"])
)

CLASS_STATISTICS = Statistics(_right_and_all, right_share)

CLASS_ERRORS = Errors(
    kinds=("right", "wrong"),
    of_example=_right_and_wrong,
    reference=("right", "wrong"),
    unit="words",
    caption="Right and wrong add up to 100. Sentences show the class of each word that is answered wrongly.",
    show=mistakes,
)
