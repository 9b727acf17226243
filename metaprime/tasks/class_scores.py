"""Scores answers that are one of several classes; the numbers are scikit-learn's.

A class that is never predicted has no precision, which then counts as 0, and Matthews' coefficient of answers that
are all alike is 0 by definition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

UNANSWERED = ""
"""Answer where there is none, such as for a word that no window holds: a wrong one."""


def class_scores(gold: Sequence[str], predicted: Sequence[str]) -> dict[str, Any]:
    """Computes accuracy, F1 and Matthews' coefficient, in per cent.

    Args:
        gold: right classes.
        predicted: answers, as many.

    Returns:
        `count`, `accuracy`, `macro_f1` (mean over all classes in `gold` or `predicted`), `micro_f1` (over
        all answers that were given), `matthews`, `classes` with precision, recall, F1 and number of
        each, and `majority`: the most frequent right class, and the accuracy of answering it always.

    Raises:
        ValueError: there is no answer, or not as many as right classes.

    Example: `class_scores(["NOUN", "VERB"], ["NOUN", "NOUN"])["accuracy"]` is 50.
    """
    # Imported here: it takes a second, and no start of a run scores anything.
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, precision_recall_fscore_support

    names = sorted({*gold, *predicted} - {UNANSWERED})
    columns = precision_recall_fscore_support(gold, predicted, labels=names, zero_division=0)
    rows = zip(names, *(column.tolist() for column in columns), strict=True)
    name, most = Counter(gold).most_common(1)[0]
    return {
        "count": len(gold),
        "accuracy": 100 * float(accuracy_score(gold, predicted)),
        "macro_f1": 100 * float(np.mean(columns[2])),
        "micro_f1": 100 * float(f1_score(gold, predicted, labels=names, average="micro", zero_division=0)),
        "matthews": 100 * float(matthews_corrcoef(gold, predicted)),
        "classes": {
            label: {"precision": 100 * precision, "recall": 100 * recall, "f1": 100 * f1, "count": support}
            for label, precision, recall, f1, support in rows
        },
        "majority": {"class": name, "accuracy": 100 * most / len(gold)},
    }


def accuracy(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the accuracy in per cent of confusion matrices, `(...,)`; 0 without an answer.

    Args:
        counts: answers of each right class (first) and predicted class (second), `(..., C, C)`.

    Example: `accuracy(np.array([[3.0, 1.0], [0.0, 4.0]]))` is 87.5.
    """
    right = np.trace(counts, axis1=-2, axis2=-1)
    share: npt.NDArray[np.float64] = 100 * right / np.maximum(counts.sum((-2, -1)), 1)
    return share


def macro_f1(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the mean F1 in per cent of confusion matrices, `(...,)`, over classes that occur or are predicted.

    Args:
        counts: answers of each right class (first) and predicted class (second), `(..., C, C)`.

    Example: `macro_f1(np.array([[4.0, 0.0], [0.0, 4.0]]))` is 100.
    """
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    either = counts.sum(-1) + counts.sum(-2)
    f1 = 200 * right / np.maximum(either, 1)
    mean: npt.NDArray[np.float64] = f1.sum(-1) / np.maximum((either > 0).sum(-1), 1)
    return mean


def matthews(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns Matthews' coefficient in per cent of confusion matrices, `(...,)` (Gorodkin 2004, R_K); 0 if undefined.

    Args:
        counts: answers of each right class (first) and predicted class (second), `(..., C, C)`.

    Example: `matthews(np.array([[4.0, 0.0], [0.0, 4.0]]))` is 100.
    """
    right, total = np.trace(counts, axis1=-2, axis2=-1), counts.sum((-2, -1))
    gold, predicted = counts.sum(-1), counts.sum(-2)
    above = right * total - (gold * predicted).sum(-1)
    squares = (total**2 - (gold**2).sum(-1)) * (total**2 - (predicted**2).sum(-1))
    value: npt.NDArray[np.float64] = 100 * above / np.sqrt(np.where(squares > 0, squares, np.inf))
    return value


OF_COUNTS: dict[str, Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    # With one answer for each question, precision, recall and micro F1 are the accuracy.
    "micro_f1": accuracy,
    "matthews": matthews,
}
"""Metrics as functions of confusion matrices, for intervals over test examples."""
