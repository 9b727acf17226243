"""Reads sentences from a table with a column `tokens` and a column `ner_tags` (or `tags`) of lists.

Tags are text or integers. Integers are replaced by the `ClassLabel` names that Hugging Face
`datasets` writes into the schema. Without those they stay digits, which `task.tag_names` gives a
meaning.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from metaprime.data.reading import Problem, Reading, shown
from metaprime.data.rows import Example
from metaprime.types import MetaprimeError

TOKENS, TAGS = "tokens", ("ner_tags", "tags")
"""Name of the column of words, and names of the column of tags, the preferred one first."""


def find_columns(place: str, names: Sequence[str]) -> tuple[str, str]:
    """Returns the names of the columns of tokens and of tags.

    Args:
        place: the file or source, for the error.
        names: all columns of the table.

    Raises:
        MetaprimeError: one of the two columns is missing.

    Example: `find_columns("a.parquet", ["id", "tokens", "tags"])` is `("tokens", "tags")`.
    """
    tags = next((name for name in TAGS if name in names), None)
    if TOKENS in names and tags:
        return TOKENS, tags
    missing = [*([] if TOKENS in names else [TOKENS]), *([] if tags else [TAGS[0]])]
    raise MetaprimeError(
        f"{place}: no column {' and '.join(missing)}, only {', '.join(names)}; rename the columns to {TOKENS} and {TAGS[0]}"
    )


def reading(table: Any, place: str) -> Reading:
    """Reads the sentences of a table.

    Args:
        table: a pyarrow Table.
        place: the file or source, for messages; an `origin` is `place:row N`, counted from 0 as in
            pandas.

    Raises:
        MetaprimeError: a column is missing or has the wrong type.

    Example: `reading(pa.table({"tokens": [["Ada"]], "ner_tags": [["B-PER"]]}), "a.parquet")`.
    """
    tokens, tags = find_columns(place, table.schema.names)
    names = _names(place, table.schema, tokens, tags)
    rows = Reading(place=place)
    for row, pair in enumerate(zip(table[tokens].to_pylist(), table[tags].to_pylist(), strict=True)):
        rows.add(sentence_of(*pair, origin=f"{place}:row {row}", names=names))
    return rows


def sentence_of(words: Any, tags: Any, *, origin: str, names: Sequence[str] = ()) -> Example | Problem:
    """Validates the two values of a row.

    Args:
        words: a list of strings in a valid row.
        tags: a list of strings or integers, as long as `words`, in a valid row.
        origin: of the row, for messages.
        names: meaning of the integers 0, 1, 2 ...; empty: integers become digits.

    Returns:
        The sentence, or the problem because of which it is dropped.

    Example: `sentence_of(["Ada"], [1], origin="a:row 0", names=["O", "B-PER"]).gold` is
    `("B-PER",)`.
    """
    if not _holds(words, str) or not _holds(tags, str, int):
        wrong = "is not a list of strings" if not _holds(words, str) else "is not a list of tags"
        text = f"{TOKENS if not _holds(words, str) else TAGS[0]} {wrong}, or holds a null; remove the row or fill it"
        return Problem("missing value", origin, text, dropped=True)
    if len(words) != len(tags):
        text = f"{len(words)} tokens but {len(tags)} tags; give each token one tag"
        return Problem("lengths differ", origin, text, dropped=True)
    if not words:
        return Problem("row without tokens", origin, "a row without tokens is left out", dropped=True)
    try:
        "".join((*words, *map(str, tags))).encode()
    except UnicodeEncodeError as error:
        return Problem("not UTF-8", origin, f"half a surrogate pair in {shown(error.object)}; correct it", dropped=True)
    nameless = [tag for tag in tags if isinstance(tag, int) and not 0 <= tag < len(names)] if names else []
    if nameless:
        text = f"{TAGS[0]} has {nameless[0]}, but the file names 0 to {len(names) - 1}; store names"
        return Problem("unknown tag", origin, text, dropped=True)
    named = (names[tag] if names and isinstance(tag, int) else str(tag) for tag in tags)
    return Example(tuple(words), tuple(named), origin)


def _holds(values: Any, *kinds: type) -> bool:
    """Returns True if it is a list of values of exactly these types; a bool is not an int."""
    return isinstance(values, list) and set(map(type, values)) <= set(kinds)


def _names(place: str, schema: Any, tokens: str, tags: str) -> list[str]:
    """Checks the columns' types; returns the ClassLabel names of integer tags, if any."""
    token_type, tag_type = schema.field(tokens).type, schema.field(tags).type
    if not _is_list(token_type) or not _is_text(token_type.value_type):
        raise MetaprimeError(f"{place}: column {tokens} is {token_type}; store a list<string> per sentence")
    if not _is_list(tag_type) or not (_is_text(tag_type.value_type) or pa.types.is_integer(tag_type.value_type)):
        raise MetaprimeError(
            f"{place}: column {tags} is {tag_type}; store a list<string> per sentence, e.g. ['O', 'B-PER']"
        )
    return [] if _is_text(tag_type.value_type) else _class_names(schema.metadata, tags)


def _is_list(column: Any) -> bool:
    """Returns True if a column's type is one of Arrow's list types."""
    kinds = pa.types
    return bool(kinds.is_list(column) or kinds.is_large_list(column) or kinds.is_list_view(column))


def _is_text(value: Any) -> bool:
    """Returns True if a type is one of Arrow's string types, or a dictionary of strings."""
    value = value.value_type if pa.types.is_dictionary(value) else value
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value))


def _class_names(metadata: dict[bytes, bytes] | None, tags: str) -> list[str]:
    """Reads ClassLabel names, in a Sequence, List or bare list, from the metadata of `datasets`."""
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][tags]
        feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
        return [str(name) for name in feature["names"]] if feature["_type"] == "ClassLabel" else []
    except (KeyError, ValueError, IndexError, TypeError, AttributeError, RecursionError):
        # Metadata of another form: the tags stay digits, and a task that needs names reports them.
        return []
