"""Declares the settings of sequence tagging, which are checked before torch is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from metaprime.data.reading import Format
from metaprime.tasks.tagging.labels import LabelSet, Rules
from metaprime.tasks.tagging.schemes import SchemeName
from metaprime.tasks.task import TaskConfig
from metaprime.types import MetaprimeError, is_number


def _column(value: Any) -> Any:
    """Validates a column with one message; a union would give one for each of its members."""
    if value is None or is_number(value) or (isinstance(value, str) and value):
        return value
    raise ValueError(f"input should be the number of a column from 1, its name or null, but is {value!r}")


UPOS = (
    *("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM"),
    *("PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X"),
)
"""The 17 universal parts of speech (Universal Dependencies, version 2)."""


class TaggingConfig(TaskConfig):
    """Config of sequence tagging: named entities or other spans of words, or classes of words."""

    name: Literal["tagging"] = "tagging"

    labels: tuple[str, ...] = ("PER", "ORG", "LOC")
    """Entity types; under `scheme: none` the words' classes, which then by default are the universal parts of
    speech."""

    label_map: dict[str, str] = Field(default_factory=dict)
    """Mapping that renames a corpus's types, or drops them: `{MISC: O}`; classes are renamed only."""

    tag_names: tuple[str, ...] = ()
    """Names of integer tags; the first is that of 0."""

    words: Annotated[int | str | None, BeforeValidator(_column)] = None
    """Column of the words: its number from 1 (CoNLL) or its name (tables); null: found by its content."""

    tags: Annotated[int | str | None, BeforeValidator(_column)] = None
    """Column of the tags, likewise."""

    scheme: SchemeName = "auto"
    """Tagging scheme of the files: `IOB2`, `IOB1`, `IO`, `BIOES`, or `bare` for types without a prefix; `auto`
    finds that of each file. `none`: tags mark no spans, each word has a class, such as its part of speech."""

    shuffle_tags: bool = False
    """Control: permute the tags of each priming sentence among its words."""

    @model_validator(mode="before")
    @classmethod
    def _parts_of_speech(cls, values: Any) -> Any:
        """Gives classes of words the universal parts of speech by default, which no span has."""
        if isinstance(values, dict) and values.get("scheme") == "none" and "labels" not in values:
            return {**values, "labels": UPOS}
        return values

    @property
    def spans(self) -> bool:
        """True if tags mark spans of words, False if each word has a class."""
        return self.scheme != "none"

    def check(self) -> None:
        """Refuses labels that contradict each other: `TaggingConfig().check()`.

        Raises:
            MetaprimeError: `labels` or `label_map` is invalid.
        """
        _ = self.label_set

    @property
    def label_set(self) -> LabelSet:
        """The labels and their mapping.

        Raises:
            MetaprimeError: `labels` or `label_map` is invalid.
        """
        if not self.spans and len(self.labels) == 1:
            raise MetaprimeError(
                f"task.labels has the one class {self.labels[0]!r}, which every word has; list at least two"
            )
        return LabelSet(self.labels, self.label_map, self.spans)

    def rules(self, labels: LabelSet | None, form: Format) -> Rules:
        """Returns the rules by which a corpus is read, with labels or with every type.

        Args:
            labels: types of the run; None: every type is kept.
            form: facts about the files that the section `data` states.

        Example: `TaggingConfig(tags=3).rules(None, UNSTATED).form.tags` is 3.
        """
        stated = replace(form, words=self.words, tags=self.tags, spans=self.spans)
        return Rules(labels, self.invalid, self.tag_names, stated, self.scheme)

    @property
    def shuffles(self) -> bool:
        """True if priming uses shuffled tags."""
        return self.shuffle_tags
