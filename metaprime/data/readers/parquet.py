"""Parquet corpora: `DIR/<language>/<split>.parquet` with `tokens: list<string>` and `ner_tags: list<string>`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

from metaprime.data.readers import columns, folders
from metaprime.data.reading import Reading
from metaprime.types import MetaprimeError

EXTENSIONS = ("parquet",)


def languages(root: str) -> list[str]:
    """Languages for which `root` has a file."""
    return folders.languages(root, EXTENSIONS)


def read(root: str, language: str, split: str) -> Reading:
    """One split with the tags as the file has them, integers named by the file where it can."""
    path = folders.locate(root, language, split, EXTENSIONS)
    return columns.reading(_table(path), str(path))


def _table(path: Path) -> Any:
    """The two columns of a file, as a pyarrow Table whose schema keeps its metadata."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = columns.find_columns(str(path), file.schema_arrow.names)
            found = file.read(columns=list(names))
            found.validate(full=True)  # damage that decodes to nonsense: offsets out of range, text that is not UTF-8
            return found
    except (OSError, pa.ArrowException, ValueError, OverflowError) as error:
        raise MetaprimeError(f"{path}: not a readable parquet file ({error}); write or download it again") from error
