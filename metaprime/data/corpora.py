"""The sources of text: `scheme:root` -> sentences in the run's labels. A new corpus is one file and one line here."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from metaprime.data import conll, parquet, synthetic
from metaprime.data.labels import Applied, LabelSet, where
from metaprime.types import MetaprimeError, Sentence

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpus:
    """A kind of source: `read(root, language, split)` gives sentences with raw tags."""

    read: Callable[[str, str, str], list[Sentence]]
    languages: Callable[[str], list[str]]


CORPORA = {
    "synthetic": Corpus(synthetic.read, synthetic.languages),
    "parquet": Corpus(parquet.read, parquet.languages),
    "conll": Corpus(conll.read, conll.languages),
}


def read(source: str, language: str, split: str, labels: LabelSet) -> list[Sentence]:
    """Sentences of one split of `data.source`, types mapped by name, tags in IOB2; what was repaired is logged."""
    corpus, root = _open(source)
    applied = [labels.apply(sentence) for sentence in corpus.read(root, language, split)]
    _notice("%d tags of another scheme (S-, E-, ...) were converted to IOB2, the first at %s", applied, "converted")
    _notice("%d I- tags that open an entity were repaired to B-, the first at %s", applied, "repaired")
    return [one.sentence for one in applied]


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


def _notice(text: str, applied: list[Applied], change: str) -> None:
    places = [(one.sentence, word) for one in applied for word in getattr(one, change)]
    if places:
        log.warning(text, len(places), where(*places[0]))
