"""Reads `data.source`, a URI `scheme:root`, with the reader of its scheme.

A new corpus format is one file in `readers/` and one line here: its import.
"""

# ruff: noqa: F401, I001

from __future__ import annotations

import difflib
from collections.abc import Mapping

from metaprime.data.readers.synthetic import CORPUS as synthetic
from metaprime.data.readers.parquet import CORPUS as parquet
from metaprime.data.readers.conll import CORPUS as conll
from metaprime.data.readers.jsonl import CORPUS as jsonl
from metaprime.data.readers.separated import CSV as csv
from metaprime.data.readers.separated import TSV as tsv
from metaprime.data.readers.hub import CORPUS as hub
from metaprime.data.reading import UNSTATED, Corpus, Format, MissingSource, Reading, TableRows, refuse_empty

CORPORA: dict[str, Corpus] = {name: value for name, value in list(vars().items()) if isinstance(value, Corpus)}
"""Every Corpus that is imported here, by its scheme."""


def read_raw(source: str, language: str, split: str, form: Format = UNSTATED) -> Reading:
    """Reads one split with the corpus's own labels, and the problems of sentences left out.

    Args:
        source: `scheme:root`, such as `conll:DIR`.
        language: name of a language of the source.
        split: `train`, `validation`, `test`, or the source's own name.
        form: columns, encoding and sentences of its files, as far as they are stated.

    Raises:
        MissingSource, MissingLanguage, MissingSplit: the source has no such part, or its scheme is unknown.
        MetaprimeError: the split as a whole cannot be read.

    Example: `read_raw("synthetic:", "qaa", "train").sentences`.
    """
    corpus, root = _open(source)
    return corpus.read(root, language, split, form)


def read_records(
    source: str, language: str, split: str, columns: Mapping[str, str], form: Format = UNSTATED
) -> TableRows:
    """Reads the named columns of one split, row by row.

    Args:
        source: `scheme:root`, such as `jsonl:DIR`.
        language: name of a language of the source.
        split: `train`, `validation`, `test`, or the source's own name.
        columns: names of columns by the config key that names each, such as `task.text`.
        form: encoding of its files.

    Raises:
        MissingSource, MissingLanguage, MissingSplit: the source has no such part, or its scheme is unknown.
        MetaprimeError: the source has no columns of whole texts, or not these.

    Example: `read_records("jsonl:data", "en", "train", {"task.text": "text"}).rows`.
    """
    corpus, root = _open(source)
    check_texts(source)
    assert corpus.records
    return corpus.records(root, language, split, columns, form)


def check_texts(source: str) -> None:
    """Refuses a source without whole texts: `check_texts("jsonl:data")`.

    Args:
        source: `scheme:root`, such as `jsonl:DIR`.

    Raises:
        MissingSource: the scheme is unknown, or its files hold sentences of words.
    """
    if not _open(source)[0].records:
        able = ", ".join(f"{name}:" for name, other in CORPORA.items() if other.records)
        raise MissingSource(f"{source}: this source has sentences of words, not whole texts; use one of {able}")


def check_split(source: str, language: str, split: str) -> None:
    """Refuses a split that is not there, without reading it: `check_split("conll:data", "de", "train")`.

    A corpus whose reader cannot tell passes, and is refused when it is read.

    Args:
        source: `scheme:root`, such as `conll:DIR`.
        language: name of a language of the source.
        split: `train`, `validation`, `test`, or the source's own name.

    Raises:
        MissingSource, MissingLanguage, MissingSplit: the source has no such part, or its scheme is unknown.
        MetaprimeError: there is nothing in the split's files.
    """
    corpus, root = _open(source)
    if corpus.find:
        refuse_empty(corpus.find(root, language, split))


def languages(source: str) -> list[str]:
    """Lists the languages of a source: `languages("synthetic:")`.

    Raises:
        MissingSource: the scheme is unknown, or there is no such folder.
        MetaprimeError: the folder cannot be listed.
    """
    corpus, root = _open(source)
    return corpus.languages(root)


def _open(source: str) -> tuple[Corpus, str]:
    """Splits a URI into its corpus and root."""
    scheme, colon, root = source.partition(":")
    if scheme not in CORPORA or not colon:
        near = "".join(f" (did you mean {known}:?)" for known in difflib.get_close_matches(scheme, CORPORA, n=1))
        raise MissingSource(
            f"the source {source!r} does not begin with a known scheme{near}; "
            f"write one of {', '.join(f'{known}:' for known in CORPORA)}, e.g. conll:DIR; name the file of a reader of your "
            "own in run.code"
        )
    return CORPORA[scheme], root
