"""The sources of text: `scheme:root` -> sentences in the run's labels. A new corpus is one file and one line here."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from metaprime.data import conll, hub, jsonl, parquet, synthetic
from metaprime.data.labels import LabelSet, labelled
from metaprime.data.problems import Policy, Reading, settle
from metaprime.types import MetaprimeError, Sentence


@dataclass(frozen=True)
class Corpus:
    """A kind of source: `read(root, language, split)` gives sentences with raw tags, and what is wrong with the others."""

    read: Callable[[str, str, str], Reading]
    languages: Callable[[str], list[str]]


def _synthetic(root: str, language: str, split: str) -> Reading:
    return Reading(synthetic.read(root, language, split), place=f"synthetic:{root} {language}/{split}")


CORPORA = {
    "synthetic": Corpus(_synthetic, synthetic.languages),
    "parquet": Corpus(parquet.read, parquet.languages),
    "conll": Corpus(conll.read, conll.languages),
    "jsonl": Corpus(jsonl.read, jsonl.languages),
    "hub": Corpus(hub.read, hub.languages),
}


def read(
    source: str,
    language: str,
    split: str,
    labels: LabelSet,
    invalid: Policy = "repair",
    tag_names: Sequence[str] = (),
) -> list[Sentence]:
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
    corpus, root = _open(source)
    return labelled(corpus.read(root, language, split), labels, invalid, tag_names)


def languages(source: str) -> list[str]:
    """Languages that `data.source` has."""
    corpus, root = _open(source)
    return corpus.languages(root)


def _open(source: str) -> tuple[Corpus, str]:
    scheme, colon, root = source.partition(":")
    if scheme not in CORPORA or not colon:
        near = "".join(f" (did you mean {known}:?)" for known in difflib.get_close_matches(scheme, CORPORA, n=1))
        raise MetaprimeError(
            f"data.source {source!r} does not begin with a known scheme{near}; "
            f"write one of {', '.join(f'{known}:' for known in CORPORA)}, e.g. conll:DIR"
        )
    return CORPORA[scheme], root
