"""Tables of sentences, whatever they are stored in: a column `tokens` and a column `ner_tags`, or `tags`, of lists.

Tags are text, or integers. Integers are named by the table itself where it can: the `ClassLabel` names that Hugging
Face `datasets` writes into the schema. Else they stay digits, and `task.tag_names` says what they mean.
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


def find_columns(place: str, names: Sequence[str]) -> tuple[str, str]:
    """The columns of tokens and of tags among the columns of a table."""
    tags = next((name for name in TAGS if name in names), None)
    if TOKENS in names and tags:
        return TOKENS, tags
    missing = [*([] if TOKENS in names else [TOKENS]), *([] if tags else [TAGS[0]])]
    raise MetaprimeError(
        f"{place}: no column {' and '.join(missing)}, only {', '.join(names)}; rename the columns to {TOKENS} and {TAGS[0]}"
    )


def reading(table: Any, place: str) -> Reading:
    """The sentences of a pyarrow Table; `origin` counts rows from 0, as pandas does.

    Raises:
        MetaprimeError: a column is not there or of the wrong type.
    """
    tokens, tags = find_columns(place, table.schema.names)
    names = _names(place, table.schema, tokens, tags)
    found = Reading(place=place)
    for row, pair in enumerate(zip(table[tokens].to_pylist(), table[tags].to_pylist(), strict=True)):
        found.add(sentence_of(*pair, origin=f"{place}:row {row}", names=names))
    return found


def sentence_of(words: Any, tags: Any, *, origin: str, names: Sequence[str] = ()) -> Example | Problem:
    """A sentence out of two values that should be a list of text and a list of tags, or what is wrong with them."""
    if not _holds(words, str) or not _holds(tags, str, int):
        wrong = "is no list of text" if not _holds(words, str) else "is no list of tags"
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
        return Problem("not UTF-8", origin, f"half a surrogate pair in {shown(error.object)}; mend it", dropped=True)
    nameless = [tag for tag in tags if isinstance(tag, int) and not 0 <= tag < len(names)] if names else []
    if nameless:
        text = f"{TAGS[0]} has {nameless[0]}, but the file names 0 to {len(names) - 1}; store names"
        return Problem("unknown tag", origin, text, dropped=True)
    named = (names[tag] if names and isinstance(tag, int) else str(tag) for tag in tags)
    return Example(tuple(words), tuple(named), origin)


def _holds(values: Any, *kinds: type) -> bool:
    """Whether it is a list of such values; a bool is no int here."""
    return isinstance(values, list) and set(map(type, values)) <= set(kinds)


def _names(place: str, schema: Any, tokens: str, tags: str) -> list[str]:
    """ClassLabel names of the tags, none where they are text or the table does not say."""
    of_words, of_tags = schema.field(tokens).type, schema.field(tags).type
    if not _is_list(of_words) or not _is_text(of_words.value_type):
        raise MetaprimeError(f"{place}: column {tokens} is {of_words}; store a list<string> per sentence")
    if not _is_list(of_tags) or not (_is_text(of_tags.value_type) or pa.types.is_integer(of_tags.value_type)):
        raise MetaprimeError(
            f"{place}: column {tags} is {of_tags}; store a list<string> per sentence, e.g. ['O', 'B-PER']"
        )
    return [] if _is_text(of_tags.value_type) else _class_names(schema.metadata, tags)


def _is_list(column: Any) -> bool:
    """Whether a column holds lists, in whichever of Arrow's layouts."""
    kinds = pa.types
    return bool(kinds.is_list(column) or kinds.is_large_list(column) or kinds.is_list_view(column))


def _is_text(value: Any) -> bool:
    value = value.value_type if pa.types.is_dictionary(value) else value
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value))


def _class_names(metadata: dict[bytes, bytes] | None, tags: str) -> list[str]:
    """ClassLabel names in the schema metadata of `datasets`, under Sequence, List or a bare list."""
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][tags]
        feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
        return [str(name) for name in feature["names"]] if feature["_type"] == "ClassLabel" else []
    except (KeyError, ValueError, IndexError, TypeError, AttributeError, RecursionError):
        return []  # whoever needs the names says that they are missing
