"""Reads parquet: `DIR/<language>/<split>.parquet` with list columns `tokens` and `ner_tags`.

A split may be in shards, such as `train-00000-of-00002.parquet`; each file has its own tag names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

from metaprime.data.readers import columns, folders
from metaprime.data.reading import UNSTATED, Corpus, Format, Reading, TableRows, one_split, one_table
from metaprime.files import check_readable
from metaprime.types import MetaprimeError

EXTENSIONS = ("parquet",)


def languages(root: str) -> list[str]:
    """Lists the languages for which a folder has a file: `languages("data")`."""
    return folders.languages(root, EXTENSIONS)


def read(root: str, language: str, split: str, form: Format = UNSTATED) -> Reading:
    """Reads one split with the file's own tags: `read("data", "de", "train").sentences`.

    Integer tags get the names that the file's schema gives them, if any.

    Args:
        root: folder of the corpus.
        language: name of a folder in it.
        split: name of a split, in one file or in shards.
        form: names of the columns, as far as they are stated.

    Raises:
        MetaprimeError: a file is missing or damaged, or a column is missing or has the wrong type.
    """
    paths = folders.locate_all(root, language, split, EXTENSIONS)
    return one_split([columns.reading(*_table(path, form)) for path in paths])


def records(root: str, language: str, split: str, names: Mapping[str, str], form: Format = UNSTATED) -> TableRows:
    """Reads some columns of one split: `records("data", "en", "train", {"task.text": "text"}).rows`.

    Args:
        root: folder of the corpus.
        language: name of a folder in it.
        split: name of a split, in one file or in shards.
        names: columns by the config key that names each.
        form: nothing of it applies to parquet.

    Raises:
        MetaprimeError: a file is missing or damaged, or lacks a column.
    """
    paths = folders.locate_all(root, language, split, EXTENSIONS)
    return one_table([_records(path, names) for path in paths])


def _records(path: Path, names: Mapping[str, str]) -> TableRows:
    """Reads some columns of one file."""

    def choose(have: Sequence[str]) -> list[str]:
        """Returns the columns, each once, if the file has them."""
        columns.required(str(path), have, names)
        return list(dict.fromkeys(names.values()))

    return columns.records_of(_read(path, choose)[0], str(path), names)


def _table(path: Path, form: Format) -> tuple[Any, str, Format, Any]:
    """Reads two columns of a file; returns the table, the file's name, the format and the whole schema."""
    table, schema = _read(path, lambda have: columns.find_columns(str(path), have, form))
    return table, str(path), form, schema


def _read(path: Path, choose: Callable[[Sequence[str]], Sequence[str]]) -> tuple[Any, Any]:
    """Reads the chosen ones of a file's columns; returns the table and the whole schema."""
    # pyarrow's error would read as damage.
    check_readable(path)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            schema = file.schema_arrow
            table = file.read(columns=list(choose(schema.names)))
            # Detects damage that decodes: offsets out of range, text that is not UTF-8.
            table.validate(full=True)
            return table, schema
    except (OSError, pa.ArrowException, ValueError, OverflowError) as error:
        raise MetaprimeError(f"{path}: not a readable parquet file ({error}); write or download it again") from error


CORPUS = Corpus(read, languages, partial(folders.locate_all, extensions=EXTENSIONS), records)
