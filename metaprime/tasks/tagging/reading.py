"""Reads tagged sentences: labels mapped by name, schemes converted to IOB2."""

from __future__ import annotations

from collections.abc import Sequence

from metaprime.data.reading import Policy, Reading, settle
from metaprime.data.rows import Example
from metaprime.data.sources import read_raw
from metaprime.tasks.tagging.labels import LabelSet, labelled


def read(
    source: str,
    language: str,
    split: str,
    labels: LabelSet,
    invalid: Policy = "repair",
    tag_names: Sequence[str] = (),
) -> list[Example]:
    """Sentences of one split of `data.source`, types mapped by name, tags in IOB2; what was repaired or dropped is logged.

    Raises:
        MetaprimeError: the split cannot be read; or it has problems that `invalid` does not allow, all of them in one.
    """
    return settle(examine(source, language, split, labels, invalid, tag_names), invalid)


def examine(
    source: str,
    language: str,
    split: str,
    labels: LabelSet | None,
    invalid: Policy = "repair",
    tag_names: Sequence[str] = (),
) -> Reading:
    """What `read` would give and every problem in it, whatever `invalid` allows; `labels` None takes every type as it is.

    Raises:
        MetaprimeError: the split as a whole cannot be read: it is not there, or not in the format.
    """
    return labelled(read_raw(source, language, split), labels, invalid, tag_names)
