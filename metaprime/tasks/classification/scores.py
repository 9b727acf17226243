"""Scores the classes of texts, and shows texts with a wrong one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from metaprime.data.rows import Example
from metaprime.tasks.class_scores import OF_COUNTS, class_scores
from metaprime.tasks.classification.settings import OF_TWO, MetricName
from metaprime.tasks.task import Errors, Metric, Piece, Scores, Statistics, TaskKind, Trivial

BY_NAME: dict[MetricName, Metric] = {
    "accuracy": Metric("accuracy", ("accuracy",), "accuracy", heading="accuracy", note="of texts"),
    "macro_f1": Metric("macro F1", ("macro_f1",), "macro_f1", heading="macro F1", note="mean of the classes"),
    "micro_f1": Metric("micro F1", ("micro_f1",), "micro_f1", note="of all answers"),
    "matthews": Metric("Matthews correlation", ("matthews",), "matthews", short="Matthews", unit="x 100"),
    "f1": Metric("F1", ("f1",), "f1", note="of the last class"),
    "accuracy_f1": Metric("accuracy and F1", ("accuracy_f1",), "accuracy_f1", note="their mean; F1 of the last class"),
    "accuracy_macro_f1": Metric(
        "accuracy and macro F1", ("accuracy_macro_f1",), "accuracy_macro_f1", note="their mean"
    ),
}
"""Metrics by the values of `task.metric`."""

TRIVIAL = Trivial("Answering the most frequent class always", lambda details, metric: metric.of(details["majority"]))


def metrics_of(first: MetricName, labels: Sequence[str] = ()) -> tuple[Metric, ...]:
    """Returns all metrics, the one that models are chosen by first: `metrics_of("matthews")[0].label`.

    Args:
        first: that one.
        labels: the classes; those of two classes are left out for any other number.
    """
    others = [metric for name, metric in BY_NAME.items() if name != first and (name not in OF_TWO or len(labels) == 2)]
    return (BY_NAME[first], *others)


def score(
    examples: Sequence[Example], predicted: Sequence[str], headline: MetricName, labels: Sequence[str] = ()
) -> Scores:
    """Scores predicted classes.

    Args:
        examples: `gold` is a class.
        predicted: one class for each text.
        headline: the metric by which models are chosen.
        labels: the classes; of two, the last is the positive one.

    Raises:
        ValueError: there is no text, or not as many answers.

    Example: `score(examples, [example.gold for example in examples], "accuracy").headline` is 100.
    """
    positive = labels[-1] if len(labels) == 2 else None
    details = class_scores([example.gold for example in examples], list(predicted), positive)
    details = {"texts": details.pop("count"), **details, "constant": len(set(predicted)) == 1}
    return Scores(BY_NAME[headline].of(details), details)


def statistics(headline: MetricName, labels: Sequence[str]) -> Statistics:
    """Returns a metric as a function of sums over texts: `statistics("macro_f1", ("good", "bad"))`.

    Args:
        headline: the metric.
        labels: the C classes.
    """
    return Statistics(partial(_counts, labels=labels), partial(_of_sums, of=OF_COUNTS[headline], classes=len(labels)))


@lru_cache(maxsize=64)
def of_metric(kind: TaskKind, metric: MetricName, labels: tuple[str, ...]) -> TaskKind:
    """Returns the kind of a task with classes, with a headline metric: `of_metric(kind, "matthews", ("no", "yes"))`.

    Args:
        kind: of the task.
        metric: the headline.
        labels: the C classes.
    """
    return replace(
        kind,
        metrics=metrics_of(metric, labels),
        score=partial(score, headline=metric, labels=labels),
        statistics=statistics(metric, labels),
    )


def _counts(line: Mapping[str, Any], labels: Sequence[str]) -> tuple[int, ...]:
    """Returns the confusion matrix of a line of predictions.jsonl, row by row, and the number of its right class."""
    try:
        gold, predicted = labels.index(line["gold"]), labels.index(line["predicted"])
    except ValueError:
        raise ValueError(f"gold or predicted is none of {', '.join(labels)}") from None
    cells = [0] * len(labels) ** 2
    cells[gold * len(labels) + predicted] = 1
    return (*cells, gold)


def _of_sums(sums: npt.NDArray[np.float64], *, of: Any, classes: int) -> npt.NDArray[np.float64]:
    """Returns the metric `(...,)` of summed counts `(..., C * C + 1)`."""
    cells = sums[..., :-1]
    value: npt.NDArray[np.float64] = of(cells.reshape(*cells.shape[:-1], classes, classes))
    return value


def _right_and_wrong(line: Mapping[str, Any]) -> tuple[int, int]:
    """Returns 1 and 0 for a right answer in a line of predictions.jsonl, 0 and 1 for a wrong one."""
    right = int(line["gold"] == line["predicted"])
    return right, 1 - right


def texts_shown(line: Mapping[str, Any], reading: str, beside: str = "pair") -> tuple[Piece, ...]:
    """Returns the text of a line with its class, and the texts beside it.

    Args:
        line: of predictions.jsonl.
        reading: `gold` or `predicted`.
        beside: key of the texts beside it, or of one.

    Example: `texts_shown({"text": "Well", "gold": "good", "predicted": "bad"}, "gold")[0].type` is `"good"`.
    """
    kind = "gold" if reading == "gold" else "right" if line["gold"] == line["predicted"] else "wrong"
    others = line.get(beside, ())
    return Piece(line["text"], line[reading], kind), *map(Piece, [others] if isinstance(others, str) else others)


ERRORS = Errors(
    kinds=("right", "wrong"),
    of_example=_right_and_wrong,
    reference=("right", "wrong"),
    unit="texts",
    caption="Right and wrong add up to 100. Each text stands with its class.",
    show=texts_shown,
)
