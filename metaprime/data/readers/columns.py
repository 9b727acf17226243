"""Reads sentences from a table with a column of words and a column of tags, each a list per sentence.

The columns are `task.words` and `task.tags`; if these are not stated, `tokens`, and `ner_tags` or
`tags`, or for classes of words `upos`, `pos_tags`, `pos` or `tags`. Tags are text or integers.
Integers are replaced by the `ClassLabel` names that Hugging Face `datasets` writes into the schema.
Without those they stay digits, which `task.tag_names` gives a meaning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from metaprime.data.reading import UNSTATED, Format, Problem, Reading, TableRow, TableRows, shown
from metaprime.data.rows import Example
from metaprime.types import MetaprimeError

TOKENS, TAGS = ("tokens",), ("ner_tags", "tags")
"""Names of the column of words and of that of tags, the preferred one first."""

CLASSES = ("upos", "pos_tags", "pos", "tags")
"""Names of the column of the words' classes, where tags mark no spans."""

USUAL = (TOKENS[0], TAGS[0])

TEXTS, OFFSETS = ("text", "data", "sentence"), ("label", "labels", "entities", "spans")
"""Names of a text and of its entities with character offsets, as annotation tools write them."""


def find_columns(place: str, names: Sequence[str], form: Format = UNSTATED) -> tuple[str, str]:
    """Returns the names of the columns of words and of tags.

    Args:
        place: the file or source, for the error.
        names: all columns of the table.
        form: columns, as far as they are stated.

    Raises:
        MetaprimeError: one of the two columns is missing.

    Example: `find_columns("a.parquet", ["id", "tokens", "tags"])` is `("tokens", "tags")`.
    """
    words, tags = _stated(place, "words", names, form.words), _stated(place, "tags", names, form.tags)
    words = words or next((name for name in TOKENS if name in names), None)
    known = TAGS if form.spans else CLASSES
    tags = tags or next((name for name in known if name in names), None)
    if words and tags:
        return words, tags
    missing = [*([] if words else TOKENS), *([] if tags else known[:1])]
    keys = [*([] if words else ["task.words"]), *([] if tags else ["task.tags"])]
    remedy = (form.spans and offsets_remedy(names)) or _named(keys)
    raise MetaprimeError(f"{place}: no column {' and '.join(missing)}, only {', '.join(names)}; {remedy}")


def offsets_remedy(names: Sequence[str]) -> str | None:
    """Returns the remedy for columns of a text and of character offsets; None for other columns.

    Example: `offsets_remedy(["id", "text", "label"])`.
    """
    text, spans = (next((name for name in known if name in names), None) for known in (TEXTS, OFFSETS))
    if not text or not spans:
        return None
    return (
        f"if {spans} has character offsets in {text}, convert them to words and tags with "
        "data_scripts/offsets_to_jsonl.py"
    )


def chosen(place: str, tags: str, others: Sequence[str], form: Format) -> list[Problem]:
    """Returns a notice of the column of tags if another one could hold them too.

    Args:
        place: the file or source.
        tags: the column that is read.
        others: names of other columns that could be meant.
        form: columns, as far as they are stated.

    Example: `chosen("a.parquet", "ner_tags", ["pos_tags"], UNSTATED)[0].kind` is `"chosen columns"`.
    """
    if form.tags is not None or not others:
        return []
    text = f"tags are read from the column {tags}, not from {', '.join(others)}; task.tags chooses another column"
    return [Problem("chosen columns", place, text)]


def reading(table: Any, place: str, form: Format = UNSTATED, schema: Any = None) -> Reading:
    """Reads the sentences of a table.

    Args:
        table: a pyarrow Table.
        place: the file or source, for messages; an `origin` is `place:row N`, counted from 0 as in
            pandas.
        form: columns, as far as they are stated.
        schema: of all columns, if the table has not all of them.

    Raises:
        MetaprimeError: a column is missing or has the wrong type.

    Example: `reading(pa.table({"tokens": [["Ada"]], "ner_tags": [["B-PER"]]}), "a.parquet")`.
    """
    schema = schema or table.schema
    columns = find_columns(place, schema.names, form)
    names = _names(place, table.schema, *columns)
    others = [field.name for field in schema if field.name not in columns and _holds_tags(field.type)]
    rows = Reading(place=place, problems=chosen(place, columns[1], others, form))
    lists = zip(*(_lists(table[column]) for column in columns), strict=True)
    for row, pair in enumerate(lists):
        rows.add(sentence_of(*pair, origin=f"{place}:row {row}", names=names, columns=columns))
    return rows


def sentence_of(
    words: Any, tags: Any, *, origin: str, names: Sequence[str] = (), columns: tuple[str, str] = USUAL
) -> Example | Problem:
    """Validates the two values of a row.

    Args:
        words: a list of strings in a valid row.
        tags: a list of strings or integers, as long as `words`, in a valid row.
        origin: of the row, for messages.
        names: meaning of the integers 0, 1, 2 ...; empty: integers become digits.
        columns: names of the columns of words and of tags, for messages.

    Returns:
        The sentence, or the problem because of which it is dropped.

    Example: `sentence_of(["Ada"], [1], origin="a:row 0", names=["O", "B-PER"]).gold` is
    `("B-PER",)`.
    """
    if not _holds(words, str) or not _holds(tags, str, int):
        wrong = (
            f"{columns[0]} is not a list of strings"
            if not _holds(words, str)
            else f"{columns[1]} is not a list of tags"
        )
        return Problem("missing value", origin, f"{wrong}, or holds a null; remove the row or fill it", dropped=True)
    if len(words) != len(tags):
        text = f"{len(words)} tokens but {len(tags)} tags; give each token one tag"
        return Problem("lengths differ", origin, text, dropped=True)
    if not words:
        return Problem("row without tokens", origin, "a row without tokens is left out", dropped=True)
    kinds = set(map(type, tags))
    if kinds == {str}:
        return _sentence(words, tags, origin)
    # Tags in numbers are those of a file with names, or digits.
    if names and kinds == {int} and min(tags) >= 0 and max(tags) < len(names):
        return _sentence(words, [names[tag] for tag in tags], origin)
    numbers = {tag for tag in set(tags) if isinstance(tag, int)}
    nameless = [tag for tag in tags if tag in numbers and not 0 <= tag < len(names)] if names and numbers else []
    if nameless:
        text = f"{columns[1]} has {nameless[0]}, but the file names 0 to {len(names) - 1}; store names"
        return Problem("unknown tag", origin, text, dropped=True)
    meaning = {tag: names[tag] if names else str(tag) for tag in numbers}
    return _sentence(words, [meaning.get(tag, tag) for tag in tags], origin)


def _sentence(words: list[str], tags: list[str], origin: str) -> Example | Problem:
    """Returns the sentence, unless its text cannot be written in UTF-8."""
    try:
        "".join((*words, *tags)).encode()
    except UnicodeEncodeError as error:
        return Problem("not UTF-8", origin, f"half a surrogate pair in {shown(error.object)}; correct it", dropped=True)
    return Example(tuple(words), tuple(tags), origin)


def class_names(metadata: dict[bytes, bytes] | None, tags: str) -> list[str]:
    """Reads ClassLabel names, in a Sequence, List or bare list, from the metadata of `datasets`.

    Args:
        metadata: of an Arrow schema.
        tags: name of the column of tags.

    Example: `class_names(table.schema.metadata, "ner_tags")` is such as `["O", "B-PER", "I-PER"]`.
    """
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][tags]
        feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
        return [str(name) for name in feature["names"]] if feature["_type"] == "ClassLabel" else []
    except (KeyError, ValueError, IndexError, TypeError, AttributeError, RecursionError):
        # Metadata of another form: the tags stay digits, and a task that needs names reports them.
        return []


def required(place: str, names: Sequence[str], columns: Mapping[str, str]) -> None:
    """Refuses a table that lacks one of the columns: `required("a.csv", ["text"], {"task.text": "text"})`.

    Args:
        place: the file or source, for the error.
        names: all columns of the table.
        columns: names of columns by the config key that names each.

    Raises:
        MetaprimeError: a column is missing; the error names the key that chooses another.
    """
    for key, name in columns.items():
        if name not in names:
            has = ", ".join(names) or "none"
            raise MetaprimeError(f"{place}: no column {name!r} ({key}); it has {has}: set {key} to one of these")


def records_of(table: Any, place: str, columns: Mapping[str, str]) -> TableRows:
    """Reads some columns of a table, row by row; a ClassLabel's number becomes its name.

    Args:
        table: a pyarrow Table.
        place: the file or source, for messages; an `origin` is `place:row N`, counted from 0.
        columns: names of columns by the config key that names each.

    Raises:
        MetaprimeError: a column is missing.

    Example: `records_of(pa.table({"text": ["Well"]}), "a.parquet", {"task.text": "text"}).rows`.
    """
    required(place, table.schema.names, columns)
    values = {}
    for name in dict.fromkeys(columns.values()):
        names = class_names(table.schema.metadata, name)
        values[name] = [
            names[value] if names and isinstance(value, int) and 0 <= value < len(names) else value
            for value in table[name].to_pylist()
        ]
    lines = zip(*values.values(), strict=True)
    rows = [TableRow(f"{place}:row {row}", dict(zip(values, line, strict=True))) for row, line in enumerate(lines)]
    return TableRows(rows, place=place)


def _stated(place: str, key: str, names: Sequence[str], column: int | str | None) -> str | None:
    """Returns the column that a key states, by name or number; None if it states none."""
    if column is None or column in names:
        return None if column is None else str(column)
    if isinstance(column, int) and column <= len(names):
        return names[column - 1]
    raise MetaprimeError(
        f"{place}: task.{key} is {column!r}, but the columns are {', '.join(names)}; correct task.{key}"
    )


def _named(keys: Sequence[str]) -> str:
    """Returns the remedy for columns with other names."""
    return f"name the column{'s' if len(keys) > 1 else ''} with {' and '.join(keys)}"


def _lists(column: Any) -> list[Any]:
    """Returns the lists of a column; whole arrays are converted faster than one row after another."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not isinstance(whole, pa.ListArray | pa.LargeListArray) or whole.null_count:
        return list(column.to_pylist())
    flat = whole.flatten()
    if flat.null_count or not (pa.types.is_string(flat.type) or pa.types.is_integer(flat.type)):
        return list(column.to_pylist())
    values = flat.to_numpy(zero_copy_only=False).tolist()
    ends = accumulate(whole.value_lengths().to_pylist(), initial=0)
    return [values[first:end] for first, end in pairwise(ends)]


def _holds_tags(column: Any) -> bool:
    """Returns True if a column could hold tags: lists of text or integers."""
    return _is_list(column) and (_is_text(column.value_type) or bool(pa.types.is_integer(column.value_type)))


def _holds(values: Any, *kinds: type) -> bool:
    """Returns True if it is a list of values of exactly these types; a bool is not an int."""
    return isinstance(values, list) and set(map(type, values)) <= set(kinds)


def _names(place: str, schema: Any, tokens: str, tags: str) -> list[str]:
    """Checks the columns' types; returns the ClassLabel names of integer tags, if any."""
    token_type, tag_type = schema.field(tokens).type, schema.field(tags).type
    if not _is_list(token_type) or not _is_text(token_type.value_type):
        raise MetaprimeError(f"{place}: column {tokens} is {token_type}; store a list<string> per sentence")
    if not _holds_tags(tag_type):
        raise MetaprimeError(
            f"{place}: column {tags} is {tag_type}; store a list<string> per sentence, e.g. ['O', 'B-PER']"
        )
    return [] if _is_text(tag_type.value_type) else class_names(schema.metadata, tags)


def _is_list(column: Any) -> bool:
    """Returns True if a column's type is one of Arrow's list types."""
    kinds = pa.types
    return bool(kinds.is_list(column) or kinds.is_large_list(column) or kinds.is_list_view(column))


def _is_text(value: Any) -> bool:
    """Returns True if a type is one of Arrow's string types, or a dictionary of strings."""
    value = value.value_type if pa.types.is_dictionary(value) else value
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value))
