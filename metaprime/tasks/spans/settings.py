"""Declares the settings of span pairs, which are checked before torch is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from metaprime.data.readers.jsonl import inside
from metaprime.tasks.classification.settings import MetricName, check_metric
from metaprime.tasks.spans.stretches import span_text, stretch
from metaprime.tasks.texts.settings import ClassesConfig
from metaprime.types import MetaprimeError


class SpansConfig(ClassesConfig):
    """Config of span pairs: two spans of a text have one of several classes, such as to mean the same person."""

    name: Literal["span_pairs"] = "span_pairs"

    labels: tuple[str, ...] = ("false", "true")
    """The classes, in the order of the head's outputs."""

    first: str = "span1_index"
    """Column of the first span's first word, counted from 0 between spaces; `target.span1_index` for a key of a key."""

    first_text: str = "span1_text"
    """Column of the first span's words, which must stand at that place."""

    second: str = "span2_index"
    """Column of the second span's first word."""

    second_text: str = "span2_text"
    """Column of the second span's words."""

    metric: MetricName = "accuracy"
    """Number by which models are chosen and runs compared; the others are in the records."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns of the text and of the words of its two spans."""
        return (self.text, self.first_text, self.second_text)

    def texts_in(self, values: Mapping[str, Any]) -> list[Any]:
        """Returns the text and its two spans in an object of JSON, where a number of a first word tells the place.

        Raises:
            LookupError: a text or the words of a span are missing.
            MetaprimeError: the words do not stand where the number says.

        Example: `SpansConfig().texts_in({"text": "He is he", "span1_text": "he", "span1_index": 2, "span2_text": "is"})`.
        """
        text, *spans = super().texts_in(values)
        for place, (column, words) in enumerate(zip((self.first, self.second), tuple(spans), strict=True)):
            (first,) = [values[column]] if column in values else inside(values, column) or [None]
            if first is None or not (isinstance(text, str) and isinstance(words, str)):
                continue
            found = stretch(text.split(), first, words.split())
            if isinstance(found, str):
                raise MetaprimeError(f"{column} and {self.texts[place + 1]}: {found}")
            spans[place] = span_text(found)
        return [text, *spans]

    @property
    def columns(self) -> dict[str, str]:
        """The columns by the config key that names each."""
        return {
            "task.text": self.text,
            "task.first": self.first,
            "task.first_text": self.first_text,
            "task.second": self.second,
            "task.second_text": self.second_text,
            "task.label": self.label,
        }

    def check(self) -> None:
        """Refuses classes, columns and a metric that contradict each other: `SpansConfig().check()`.

        Raises:
            MetaprimeError: they do.
        """
        super().check()
        check_metric(self.metric, self.labels)
