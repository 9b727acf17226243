"""Declares the settings of text classification, which are checked before torch is loaded."""

from __future__ import annotations

from typing import Literal

from metaprime.tasks.texts.settings import ClassesConfig, paired

MetricName = Literal["accuracy", "macro_f1", "micro_f1", "matthews"]
"""Values of `task.metric`."""


class ClassificationConfig(ClassesConfig):
    """Config of text classification: one text, or a pair of texts, has one of several classes."""

    name: Literal["classification"] = "classification"

    pair: str | None = None
    """Column of the second text; null: there is one text."""

    metric: MetricName = "accuracy"
    """Number by which models are chosen and runs compared; the others are in the records."""

    @property
    def columns(self) -> dict[str, str]:
        """The columns by the config key that names each."""
        return paired(super().columns, self.pair)
