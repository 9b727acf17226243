"""Reads tagged sentences with types mapped by name and tags converted to IOB2."""

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
    """Reads the sentences of one split and logs what was repaired or dropped.

    Args:
        source: `scheme:root`, such as `conll:DIR`.
        language: name of a language of the source.
        split: name of the split.
        labels: types of the run and the mapping of other types.
        invalid: policy for sentences with problems.
        tag_names: meaning of the tags 0, 1, 2 ... of a corpus with integer tags.

    Raises:
        MetaprimeError: the split cannot be read, or has problems that the policy does not allow;
            the message lists all of them.

    Example: `read("synthetic:", "qaa", "train", LabelSet(("PER", "ORG", "LOC")))`.
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
    """Reads one split with all its problems, even those that the policy does not allow.

    Arguments as in `read`; `labels` None keeps every type.

    Raises:
        MetaprimeError: the split does not exist, or is not in the format of the source.

    Example: `examine("conll:data", "de", "train", None).problems`.
    """
    return labelled(read_raw(source, language, split), labels, invalid, tag_names)
