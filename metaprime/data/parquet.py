"""Parquet corpora: `DIR/<language>/<split>.parquet` with `tokens: list<string>` and `ner_tags: list<string>`.

Integer `ner_tags` are read only where the file itself says what they mean: the `ClassLabel` names that Hugging Face
`datasets` writes into the schema. Numbers without names are refused, never guessed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

from metaprime.data import layout
from metaprime.types import MetaprimeError, Sentence

EXTENSIONS = ("parquet",)
TOKENS, TAGS = "tokens", "ner_tags"

log = logging.getLogger(__name__)


def languages(root: str) -> list[str]:
    """Languages for which `root` has a file."""
    return layout.languages(root, EXTENSIONS)


def read(root: str, language: str, split: str) -> list[Sentence]:
    """Sentences of one split with the tags as the file has them; `origin` counts rows from 0, as pandas does."""
    path = layout.locate(root, language, split, EXTENSIONS)
    table = _table(path)
    name = _namer(path, table.schema)
    sentences, empty = [], 0
    for row, (words, tags) in enumerate(zip(table[TOKENS].to_pylist(), table[TAGS].to_pylist(), strict=True)):
        origin = f"{path}:row {row}"
        _check(origin, words, tags)
        if words:
            sentences.append(Sentence(tuple(words), tuple(name(tag, origin) for tag in tags), origin))
        else:
            empty += 1
    if empty:
        log.warning("%s: %d of %d rows have no tokens and are left out", path, empty, table.num_rows)
    if not sentences:
        raise MetaprimeError(f"{path}: no sentence in it; give a file with at least one row of tokens")
    return sentences


def _table(path: Path) -> Any:
    """The two columns of a file, as a pyarrow Table whose schema keeps its metadata."""
    try:
        with pq.ParquetFile(path) as file:
            missing = [column for column in (TOKENS, TAGS) if column not in file.schema_arrow.names]
            if missing:
                raise MetaprimeError(
                    f"{path}: no column {' and '.join(missing)}, only {', '.join(file.schema_arrow.names)}; "
                    f"rename the columns to {TOKENS} and {TAGS}"
                )
            return file.read(columns=[TOKENS, TAGS])
    except (OSError, pa.ArrowException) as error:
        raise MetaprimeError(f"{path}: not a readable parquet file ({error}); write or download it again") from error


def _namer(path: Path, schema: Any) -> Callable[[Any, str], str]:
    """How one value of `ner_tags` becomes a tag: itself if it is text, its ClassLabel name if it is a number."""
    tokens, tags = schema.field(TOKENS).type, schema.field(TAGS).type
    if not _is_list_of_text(tokens):
        raise MetaprimeError(f"{path}: column {TOKENS} is {tokens}; store a list<string> per sentence")
    if _is_list_of_text(tags):
        return lambda tag, origin: str(tag)
    names = _class_names(schema.metadata)
    if names is None or not pa.types.is_integer(getattr(tags, "value_type", tags)):
        raise MetaprimeError(
            f"{path}: column {TAGS} is {tags} and the file does not name its values (no ClassLabel in its huggingface "
            "metadata); store a list<string> per sentence, e.g. ['O', 'B-PER']"
        )

    def named(tag: int, origin: str) -> str:
        if not 0 <= tag < len(names):
            raise MetaprimeError(f"{origin}: {TAGS} has {tag}, but the file names 0 to {len(names) - 1}; store names")
        return names[tag]

    return named


def _is_list_of_text(column: Any) -> bool:
    """Whether a column holds lists of strings, in whichever of Arrow's layouts."""
    if not (pa.types.is_list(column) or pa.types.is_large_list(column) or pa.types.is_list_view(column)):
        return False
    value = column.value_type
    value = value.value_type if pa.types.is_dictionary(value) else value
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value))


def _class_names(metadata: dict[bytes, bytes] | None) -> list[str] | None:
    """ClassLabel names of `ner_tags` in the schema metadata of `datasets`, under Sequence, List or a bare list."""
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][TAGS]
        feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
        return [str(name) for name in feature["names"]] if feature["_type"] == "ClassLabel" else None
    except (KeyError, ValueError, IndexError, TypeError, AttributeError):
        return None  # the caller says what is missing


def _check(origin: str, words: Sequence[str] | None, tags: Sequence[Any] | None) -> None:
    if words is None or tags is None or None in words or None in tags:
        raise MetaprimeError(f"{origin}: {TOKENS} or {TAGS} holds a null; remove the row or fill it")
    if len(words) != len(tags):
        raise MetaprimeError(f"{origin}: {len(words)} tokens but {len(tags)} tags; give each token one tag")
