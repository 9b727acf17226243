"""Reads tagged sentences with types mapped by name and tags converted to IOB2, or with classes mapped by name."""

from __future__ import annotations

from metaprime.data.reading import Reading, settle
from metaprime.data.rows import Example
from metaprime.data.sources import read_raw
from metaprime.tasks.tagging.labels import Rules, classified, labelled


def read(
    source: str,
    language: str,
    split: str,
    rules: Rules,
    logged: set[str] | None = None,
) -> list[Example]:
    """Reads the sentences of one split and logs what was repaired or dropped.

    Args:
        source: `scheme:root`, such as `conll:DIR`.
        language: name of a language of the source.
        split: name of the split.
        rules: how its files and tags are read.
        logged: notices that are not repeated, to which those of this split are added; None: all are
            logged.

    Raises:
        MetaprimeError: the split cannot be read, or has problems that the policy does not allow;
            the message lists all of them.

    Example: `read("synthetic:", "qaa", "train", Rules(LabelSet(("PER", "ORG", "LOC"))))`.
    """
    return settle(examine(source, language, split, rules), rules.invalid, logged)


def examine(
    source: str,
    language: str,
    split: str,
    rules: Rules,
) -> Reading:
    """Reads one split with all its problems, even those that the policy does not allow.

    Arguments as in `read`.

    Raises:
        MetaprimeError: the split does not exist, or is not in the format of the source.

    Example: `examine("conll:data", "de", "train", Rules(None)).problems`.
    """
    raw = read_raw(source, language, split, rules.form)
    return labelled(raw, rules) if rules.form.spans else classified(raw, rules)
