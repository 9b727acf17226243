"""The sources of text: `scheme:root` -> sentences in the run's labels. A new corpus is one file and one line here."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from metaprime.data.readers import conll, hub, jsonl, parquet, synthetic
from metaprime.data.reading import Reading
from metaprime.types import MetaprimeError


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


def read_raw(source: str, language: str, split: str) -> Reading:
    """Reads one split with its labels as the corpus has them, and what is wrong with the examples left out.

    Raises:
        MetaprimeError: the source is unknown, or the split as a whole cannot be read.
    """
    corpus, root = _open(source)
    return corpus.read(root, language, split)


def languages(source: str) -> list[str]:
    """Lists the languages that a source has.

    Raises:
        MetaprimeError: the source is unknown, or its folder cannot be listed.
    """
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
