"""Declares the settings of sequence tagging, which are checked before torch is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from metaprime.data.reading import Format
from metaprime.tasks.tagging.labels import LabelSet, Rules
from metaprime.tasks.tagging.schemes import SchemeName
from metaprime.tasks.task import TaskConfig
from metaprime.types import is_number


def _column(value: Any) -> Any:
    """Validates a column with one message; a union would give one for each of its members."""
    if value is None or is_number(value) or (isinstance(value, str) and value):
        return value
    raise ValueError(f"input should be the number of a column from 1, its name or null, but is {value!r}")


class TaggingConfig(TaskConfig):
    """Config of sequence tagging: named entities, or other spans of words."""

    name: Literal["tagging"] = "tagging"

    labels: tuple[str, ...] = ("PER", "ORG", "LOC")
    """Entity types."""

    label_map: dict[str, str] = Field(default_factory=dict)
    """Mapping that renames a corpus's types, or drops them: `{MISC: O}`."""

    tag_names: tuple[str, ...] = ()
    """Names of integer tags; the first is that of 0."""

    words: Annotated[int | str | None, BeforeValidator(_column)] = None
    """Column of the words: its number from 1 (CoNLL) or its name (tables); null: found by its content."""

    tags: Annotated[int | str | None, BeforeValidator(_column)] = None
    """Column of the tags, likewise."""

    scheme: SchemeName = "auto"
    """Tagging scheme of the files: `IOB2`, `IOB1`, `IO`, `BIOES`, or `bare` for types without a prefix; `auto`
    finds that of each file."""

    shuffle_tags: bool = False
    """Control: permute the tags of each priming sentence among its words."""

    def rules(self, labels: LabelSet | None, form: Format) -> Rules:
        """Returns the rules by which a corpus is read, with labels or with every type.

        Args:
            labels: types of the run; None: every type is kept.
            form: facts about the files that the section `data` states.

        Example: `TaggingConfig(tags=3).rules(None, UNSTATED).form.tags` is 3.
        """
        stated = replace(form, words=self.words, tags=self.tags)
        return Rules(labels, self.invalid, self.tag_names, stated, self.scheme)

    @property
    def shuffles(self) -> bool:
        """True if priming uses shuffled tags."""
        return self.shuffle_tags
