"""Reads parquet: `DIR/<language>/<split>.parquet` with list columns `tokens` and `ner_tags`.

A split may be in shards, such as `train-00000-of-00002.parquet`; each file has its own tag names.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

from metaprime.data.readers import columns, folders
from metaprime.data.reading import UNSTATED, Corpus, Format, Reading, one_split
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


def _table(path: Path, form: Format) -> tuple[Any, str, Format, Any]:
    """Reads two columns of a file; returns the table, the file's name, the format and the whole schema."""
    # pyarrow's error would read as damage.
    check_readable(path)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            schema = file.schema_arrow
            names = columns.find_columns(str(path), schema.names, form)
            table = file.read(columns=list(names))
            # Detects damage that decodes: offsets out of range, text that is not UTF-8.
            table.validate(full=True)
            return table, str(path), form, schema
    except (OSError, pa.ArrowException, ValueError, OverflowError) as error:
        raise MetaprimeError(f"{path}: not a readable parquet file ({error}); write or download it again") from error


CORPUS = Corpus(read, languages, partial(folders.locate_all, extensions=EXTENSIONS))
