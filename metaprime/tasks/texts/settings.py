"""Declares the settings that tasks over whole texts share, which are checked before torch is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from metaprime.tasks.presets import with_preset
from metaprime.tasks.task import TaskConfig
from metaprime.types import MetaprimeError


class PooledConfig(TaskConfig):
    """Base class of the config of a task whose head reads one state of each text."""

    pooling: Literal["auto", "first", "mean"] = "auto"
    """What the head reads: the mean of the encoder's output over all sub-words, or its output at the `first` one;
    `auto` takes what the encoder's own config names for classifiers, as ModernBERT's does, else the mean."""

    shuffle_labels: bool = False
    """Control: permute the answers of a language's priming texts among them."""

    @property
    def shuffles(self) -> bool:
        """True if priming uses shuffled answers."""
        return self.shuffle_labels

    def for_encoder(self, pooling: str | None) -> Self:
        """Returns the config with the pooling that it leaves to the encoder.

        Args:
            pooling: what the encoder's own config names, `cls` or `mean`; None: it names none.

        Example: `PooledConfig().for_encoder("cls").pooling` is `"first"`.
        """
        if self.pooling != "auto":
            return self
        return self.model_copy(update={"pooling": "first" if pooling == "cls" else "mean"})


class TextsConfig(PooledConfig):
    """Base class of the config of a task with one answer for each text or group of texts."""

    preset: str | None = None
    """Columns, answers and metric of a known corpus, such as `glue/mrpc`; keys beside it go before its own."""

    text: str = "text"
    """Column of the text, the first one of a pair."""

    label: str = "label"
    """Column of the answer."""

    @model_validator(mode="before")
    @classmethod
    def _of_preset(cls, values: Any) -> Any:
        """Puts the values that are given over those of a preset."""
        return with_preset(values, cls.model_fields["name"].default) if isinstance(values, Mapping) else values

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns of an example's texts: one, or two for a pair."""
        return tuple(name for key, name in self.columns.items() if key != "task.label")

    @property
    def columns(self) -> dict[str, str]:
        """The columns by the config key that names each."""
        return {"task.text": self.text, "task.label": self.label}

    @property
    def answers(self) -> tuple[str, ...]:
        """The answers that there are; empty: they cannot be listed."""
        return ()

    def check(self) -> None:
        """Refuses two keys that name one column.

        Raises:
            MetaprimeError: they do.

        Example: `TextsConfig().check()`.
        """
        names = list(self.columns.values())
        if len(set(names)) < len(names):
            keys = " and ".join(key for key, name in self.columns.items() if names.count(name) > 1)
            raise MetaprimeError(f"{keys} name one column; give each its own")


class ClassesConfig(TextsConfig):
    """Base class of the config of a task whose answer is one of several classes."""

    labels: tuple[str, ...] = ()
    """The classes, in the order of the head's outputs; there is no default."""

    label_map: dict[str, str] = Field(default_factory=dict)
    """Mapping that renames a corpus's classes, numbers too: `{0: negative, 1: positive}`."""

    @field_validator("label_map", mode="before")
    @classmethod
    def _by_name(cls, values: Any) -> Any:
        """Turns the numbers that YAML reads from keys into text."""
        return named(values)

    @property
    def answers(self) -> tuple[str, ...]:
        """The classes."""
        return self.labels

    @property
    def least_shots(self) -> int:
        """Smallest K but 0 for which the sample has an example of each class."""
        return len(self.labels)

    @property
    def classes(self) -> dict[str, str]:
        """The run's class of each of a corpus's."""
        return {**{name: name for name in self.labels}, **self.label_map}

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
        check_labels(self.labels, self.label_map)
        super().check()


def paired(columns: Mapping[str, str], pair: str | None) -> dict[str, str]:
    """Returns columns by the config key that names each, with that of a pair's second text.

    Args:
        columns: those without it.
        pair: name of the column; None: there is one text.

    Example: `paired({"task.text": "premise", "task.label": "label"}, "hypothesis")["task.pair"]`.
    """
    if pair is None:
        return dict(columns)
    return {"task.text": columns["task.text"], "task.pair": pair, **columns}


def named(values: Any) -> Any:
    """Returns a mapping whose whole-number keys are text, as users write them: `named({0: "bad"})` is `{"0": "bad"}`."""
    if not isinstance(values, Mapping):
        return values
    return {str(key) if type(key) is int else key: value for key, value in values.items()}


def check_labels(labels: Sequence[str], label_map: Mapping[str, str], key: str = "task.labels") -> None:
    """Refuses names that are duplicates or empty, and a mapping to a name that is not among them.

    Args:
        labels: names of the answers.
        label_map: a corpus's answers to these.
        key: config key of `labels`.

    Raises:
        MetaprimeError: there is such a name.

    Example: `check_labels(("good", "bad"), {"0": "bad"})`.
    """
    for name in labels:
        if labels.count(name) > 1:
            raise MetaprimeError(f"{key} names {name!r} twice; keep one of them")
        if not name or name != name.strip() or not name.isprintable():
            raise MetaprimeError(f"{key}: {name!r} is no name; list names such as positive")
    for source, target in label_map.items():
        if target not in labels:
            raise MetaprimeError(
                f"task.label_map maps {source!r} to {target!r}, which is not in {key} {list(labels)}; "
                "choose one of these"
            )
