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


def class_scores(gold: Sequence[str], predicted: Sequence[str], positive: str | None = None) -> dict[str, Any]:
    """Computes accuracy, F1 and Matthews' coefficient, in per cent.

    Args:
        gold: right classes.
        predicted: answers, as many.
        positive: of two classes the one whose F1 is a score, as in GLUE's MRPC and QQP; None: none is.

    Returns:
        `count`, `accuracy`, `macro_f1` (mean over all classes in `gold` or `predicted`), `micro_f1` (over
        all answers that were given), `matthews`, `accuracy_macro_f1` (mean of these two, as in SuperGLUE's
        CB), with `positive` its `f1` and `accuracy_f1`; `classes` with precision, recall, F1 and number of
        each; and `majority`: the most frequent right class, and the same scores of answering it always.

    Raises:
        ValueError: there is no answer, or not as many as right classes.

    Example: `class_scores(["NOUN", "VERB"], ["NOUN", "NOUN"])["accuracy"]` is 50.
    """
    # Imported here: it takes a second, and no start of a run scores anything.
    from sklearn.metrics import precision_recall_fscore_support

    names = sorted({*gold, *predicted} - {UNANSWERED})
    columns = precision_recall_fscore_support(gold, predicted, labels=names, zero_division=0)
    rows = zip(names, *(column.tolist() for column in columns), strict=True)
    name = Counter(gold).most_common(1)[0][0]
    return {
        "count": len(gold),
        **_numbers(gold, predicted, positive),
        "classes": {
            label: {"precision": 100 * precision, "recall": 100 * recall, "f1": 100 * f1, "count": support}
            for label, precision, recall, f1, support in rows
        },
        "majority": {"class": name, **_numbers(gold, [name] * len(gold), positive)},
    }


def _numbers(gold: Sequence[str], predicted: Sequence[str], positive: str | None) -> dict[str, float]:
    """Computes the scores that are one number."""
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    def f1(labels: Sequence[str], average: str) -> float:
        """Returns the F1 of some classes in per cent."""
        return 100 * float(f1_score(gold, predicted, labels=labels, average=average, zero_division=0))

    names = sorted({*gold, *predicted} - {UNANSWERED})
    # scikit-learn's is 0 then, too, but it warns.
    matthews = 0.0 if len({*gold, *predicted}) < 2 else 100 * float(matthews_corrcoef(gold, predicted))
    right, mean = 100 * float(accuracy_score(gold, predicted)), f1(names, "macro")
    found = {
        "accuracy": right,
        "macro_f1": mean,
        "micro_f1": f1(names, "micro"),
        "matthews": matthews,
        "accuracy_macro_f1": (right + mean) / 2,
    }
    if positive is None:
        return found
    own = f1([positive], "macro")
    return {**found, "f1": own, "accuracy_f1": (right + own) / 2}


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


def last_f1(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the F1 of the last class in per cent of confusion matrices, `(...,)`; 0 if it is never right.

    Args:
        counts: answers of each right class (first) and predicted class (second), `(..., C, C)`.

    Example: `last_f1(np.array([[4.0, 0.0], [0.0, 4.0]]))` is 100.
    """
    either = counts[..., -1, :].sum(-1) + counts[..., :, -1].sum(-1)
    f1: npt.NDArray[np.float64] = 200 * counts[..., -1, -1] / np.maximum(either, 1)
    return f1


OF_COUNTS: dict[str, Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    # With one answer for each question, precision, recall and micro F1 are the accuracy.
    "micro_f1": accuracy,
    "matthews": matthews,
    "f1": last_f1,
    "accuracy_f1": lambda counts: (accuracy(counts) + last_f1(counts)) / 2,
    "accuracy_macro_f1": lambda counts: (accuracy(counts) + macro_f1(counts)) / 2,
}
"""Metrics as functions of confusion matrices, for intervals over test examples."""
