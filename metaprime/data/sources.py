"""Reads `data.source`, a URI `scheme:root`, with the reader of its scheme.

A new corpus format is one file in `readers/` and one line in CORPORA.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from metaprime.data.readers import conll, hub, jsonl, parquet, synthetic
from metaprime.data.reading import Reading
from metaprime.types import MetaprimeError


@dataclass(frozen=True)
class Corpus:
    """Reader of one scheme.

    Attributes:
        read: root, language and split to a Reading with raw tags.
        languages: root to the languages of the source.
    """

    read: Callable[[str, str, str], Reading]
    languages: Callable[[str], list[str]]


def _synthetic(root: str, language: str, split: str) -> Reading:
    """Wraps synthetic sentences, which have no problems, in a Reading."""
    return Reading(synthetic.read(root, language, split), place=f"synthetic:{root} {language}/{split}")


CORPORA = {
    "synthetic": Corpus(_synthetic, synthetic.languages),
    "parquet": Corpus(parquet.read, parquet.languages),
    "conll": Corpus(conll.read, conll.languages),
    "jsonl": Corpus(jsonl.read, jsonl.languages),
    "hub": Corpus(hub.read, hub.languages),
}


def read_raw(source: str, language: str, split: str) -> Reading:
    """Reads one split with the corpus's own labels, and the problems of sentences left out.

    Args:
        source: `scheme:root`, such as `conll:DIR`.
        language: name of a language of the source.
        split: `train`, `validation`, `test`, or the source's own name.

    Raises:
        MetaprimeError: the scheme is unknown, or the split as a whole cannot be read.

    Example: `read_raw("synthetic:", "qaa", "train").sentences`.
    """
    corpus, root = _open(source)
    return corpus.read(root, language, split)


def languages(source: str) -> list[str]:
    """Lists the languages of a source: `languages("synthetic:")`.

    Raises:
        MetaprimeError: the scheme is unknown, or the source's folder cannot be listed.
    """
    corpus, root = _open(source)
    return corpus.languages(root)


def _open(source: str) -> tuple[Corpus, str]:
    """Splits a URI into its corpus and root."""
    scheme, colon, root = source.partition(":")
    if scheme not in CORPORA or not colon:
        near = "".join(f" (did you mean {known}:?)" for known in difflib.get_close_matches(scheme, CORPORA, n=1))
        raise MetaprimeError(
            f"data.source {source!r} does not begin with a known scheme{near}; "
            f"write one of {', '.join(f'{known}:' for known in CORPORA)}, e.g. conll:DIR"
        )
    return CORPORA[scheme], root
