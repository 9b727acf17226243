"""Reads parquet: `DIR/<language>/<split>.parquet` with list columns `tokens` and `ner_tags`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

from metaprime.data.readers import columns, folders
from metaprime.data.reading import UNSTATED, Corpus, Format, Reading
from metaprime.types import MetaprimeError

EXTENSIONS = ("parquet",)


def languages(root: str) -> list[str]:
    """Lists the languages for which a folder has a file: `languages("data")`."""
    return folders.languages(root, EXTENSIONS)


def read(root: str, language: str, split: str, form: Format = UNSTATED) -> Reading:
    """Reads one split with the file's own tags: `read("data", "de", "train").sentences`.

    Integer tags get the names that the file's schema gives them, if any.

    Raises:
        MetaprimeError: the file is missing or damaged, or a column is missing or has the wrong
            type.
    """
    path = folders.locate(root, language, split, EXTENSIONS)
    return columns.reading(_table(path), str(path))


def _table(path: Path) -> Any:
    """Reads the two columns of a file into a pyarrow Table whose schema keeps its metadata."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = columns.find_columns(str(path), file.schema_arrow.names)
            table = file.read(columns=list(names))
            # Detects damage that decodes: offsets out of range, text that is not UTF-8.
            table.validate(full=True)
            return table
    except (OSError, pa.ArrowException, ValueError, OverflowError) as error:
        raise MetaprimeError(f"{path}: not a readable parquet file ({error}); write or download it again") from error


CORPUS = Corpus(read, languages)
