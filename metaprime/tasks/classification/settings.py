"""Declares the settings of text classification, which are checked before torch is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from metaprime.tasks.task import TaskConfig
from metaprime.types import MetaprimeError

MetricName = Literal["accuracy", "macro_f1", "micro_f1", "matthews"]
"""Values of `task.metric`."""


class ClassificationConfig(TaskConfig):
    """Config of text classification: one text, or a pair of texts, has one of several classes."""

    name: Literal["classification"] = "classification"

    labels: tuple[str, ...] = ()
    """The classes, in the order of the head's outputs; there is no default."""

    label_map: dict[str, str] = Field(default_factory=dict)
    """Mapping that renames a corpus's classes, numbers too: `{0: negative, 1: positive}`."""

    text: str = "text"
    """Column of the text, the first one of a pair."""

    pair: str | None = None
    """Column of the second text; null: there is one text."""

    label: str = "label"
    """Column of the class."""

    pooling: Literal["first", "mean"] = "mean"
    """What the head reads: the mean of the encoder's output over all sub-words, or its output at the first one."""

    metric: MetricName = "accuracy"
    """Number by which models are chosen and runs compared; the others are in the records."""

    shuffle_labels: bool = False
    """Control: permute the classes of a language's priming texts among them."""

    @field_validator("label_map", mode="before")
    @classmethod
    def _by_name(cls, values: Any) -> Any:
        """Turns the numbers that YAML reads from keys into text."""
        if not isinstance(values, Mapping):
            return values
        return {str(key) if type(key) is int else key: value for key, value in values.items()}

    @property
    def shuffles(self) -> bool:
        """True if priming uses shuffled classes."""
        return self.shuffle_labels

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns of an example's texts: one, or two for a pair."""
        return (self.text,) if self.pair is None else (self.text, self.pair)

    @property
    def columns(self) -> dict[str, str]:
        """The columns by the config key that names each."""
        pair = {"task.pair": self.pair} if self.pair is not None else {}
        return {"task.text": self.text, **pair, "task.label": self.label}

    def check(self) -> None:
        """Refuses classes and columns that contradict each other.

        Raises:
            MetaprimeError: there are fewer than two classes, one is a duplicate or has no name, `label_map`
                leads to an unknown one, or two keys name one column.

        Example: `ClassificationConfig(labels=("good", "bad")).check()`.
        """
        if len(self.labels) < 2:
            raise MetaprimeError(
                f"task.labels is {list(self.labels)}: list at least two classes, e.g. task.labels: [negative, positive]; "
                "`metaprime data check` shows those of a corpus"
            )
        for name in self.labels:
            if self.labels.count(name) > 1:
                raise MetaprimeError(f"task.labels names {name!r} twice; keep one of them")
            if not name or name != name.strip() or not name.isprintable():
                raise MetaprimeError(f"task.labels: {name!r} is not the name of a class; list names such as positive")
        for source, target in self.label_map.items():
            if target not in self.labels:
                raise MetaprimeError(
                    f"task.label_map maps {source!r} to {target!r}, which is not in task.labels {list(self.labels)}; "
                    "choose one of these"
                )
        names = list(self.columns.values())
        if len(set(names)) < len(names):
            keys = " and ".join(key for key, name in self.columns.items() if names.count(name) > 1)
            raise MetaprimeError(f"{keys} name one column; give each its own")
