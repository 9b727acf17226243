"""Declares the settings of text classification, which are checked before torch is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from metaprime.tasks.texts.settings import ClassesConfig, paired
from metaprime.types import MetaprimeError

MetricName = Literal["accuracy", "macro_f1", "micro_f1", "matthews", "f1", "accuracy_f1", "accuracy_macro_f1"]
"""Values of `task.metric`."""

OF_TWO = ("f1", "accuracy_f1")
"""Metrics of two classes, of which the last is the positive one."""


class ClassificationConfig(ClassesConfig):
    """Config of text classification: one text, or a pair of texts, has one of several classes."""

    name: Literal["classification"] = "classification"

    pair: str | None = None
    """Column of the second text; null: there is one text."""

    metric: MetricName = "accuracy"
    """Number by which models are chosen and runs compared; the others are in the records. `f1` is that of the last
    of two `labels`, the positive one; `accuracy_f1` is the mean of the two, as in GLUE's MRPC and QQP."""

    @property
    def columns(self) -> dict[str, str]:
        """The columns by the config key that names each."""
        return paired(super().columns, self.pair)

    def check(self) -> None:
        """Refuses classes, columns and a metric that contradict each other.

        Raises:
            MetaprimeError: they do.

        Example: `ClassificationConfig(labels=("good", "bad")).check()`.
        """
        super().check()
        check_metric(self.metric, self.labels)


def check_metric(metric: MetricName, labels: Sequence[str]) -> None:
    """Refuses a metric of two classes for more of them: `check_metric("f1", ("no", "yes"))`.

    Args:
        metric: value of `task.metric`.
        labels: the classes.

    Raises:
        MetaprimeError: it is one, and there are more.
    """
    if metric in OF_TWO and len(labels) != 2:
        raise MetaprimeError(
            f"task.metric {metric} is the F1 of the last of two classes, but task.labels has {len(labels)}: use macro_f1 or "
            "accuracy_macro_f1"
        )
