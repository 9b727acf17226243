"""Reads JSON lines: `DIR/<language>/<split>.jsonl`.

A line is `{"tokens": [...], "ner_tags": [...]}`; the key of the tags may also be `tags`, and
`task.words` and `task.tags` name other keys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from metaprime.data.readers import columns, folders
from metaprime.data.readers.text import read_lines
from metaprime.data.reading import (
    UNSTATED,
    Corpus,
    Format,
    Problem,
    Reading,
    TableRow,
    TableRows,
    one_split,
    one_table,
    shown,
)
from metaprime.data.rows import Example
from metaprime.types import MetaprimeError

EXTENSIONS = ("jsonl", "json")


def languages(root: str) -> list[str]:
    """Lists the languages for which a folder has a file: `languages("data")`."""
    return folders.languages(root, EXTENSIONS)


def read(root: str, language: str, split: str, form: Format = UNSTATED) -> Reading:
    """Reads one split with the file's own tags, integers as digits: `read("data", "de", "train")`.

    Raises:
        MetaprimeError: the folder, language or split does not exist.
    """
    paths = folders.locate_all(root, language, split, EXTENSIONS)
    return one_split([parse(path, form) for path in paths])


def parse(path: Path, form: Format = UNSTATED) -> Reading:
    """Reads one file; an `origin` names the line, counted from 1: `parse(Path("train.jsonl"))`.

    Args:
        path: the file.
        form: its encoding and columns, as far as they are stated.

    Raises:
        MetaprimeError: the file cannot be read.
    """
    lines = read_lines(path, form)
    reading = Reading(place=str(path), problems=list(lines.problems))
    for number, line in enumerate(lines.texts, start=1):
        if number in lines.bad:
            reading.add(replace(lines.bad[number], dropped=True))
        elif line.strip(" \t\r"):
            reading.add(_sentence(path, number, line, form))
    if not form.tags and (others := _others(lines.texts, form)):
        reading.problems.extend(columns.chosen(str(path), *others, form))
    return reading


def records(root: str, language: str, split: str, names: Mapping[str, str], form: Format = UNSTATED) -> TableRows:
    """Reads some keys of each line: `records("data", "en", "train", {"task.text": "text"})`.

    Args:
        root: folder of the corpus.
        language: name of a folder in it.
        split: name of a split, in one file or in shards.
        names: keys of the lines by the config key that names each.
        form: encoding of its files.

    Raises:
        MetaprimeError: the folder, language or split does not exist, or no line has a key.
    """
    return one_table([_records(path, names, form) for path in folders.locate_all(root, language, split, EXTENSIONS)])


def _records(path: Path, names: Mapping[str, str], form: Format) -> TableRows:
    """Reads some keys of the lines of one file; a key that a line lacks is None there."""
    lines = read_lines(path, form)
    found = TableRows(place=str(path), problems=list(lines.problems))
    present: dict[str, None] = {}
    for number, line in enumerate(lines.texts, start=1):
        if number in lines.bad:
            found.problems.append(replace(lines.bad[number], dropped=True))
        elif line.strip(" \t\r"):
            value = _value(line)
            if isinstance(value, str):
                wrong = f"{shown(line)} is not JSON ({value}); each line needs one object"
                found.problems.append(Problem("not JSON", f"{path}:{number}", wrong, dropped=True))
                continue
            # A key of a key is written with a dot, as in `target.span1_index`.
            nested = {name: held for name in names.values() if name not in value and (held := inside(value, name))}
            present |= dict.fromkeys([*value, *nested])
            values = {name: nested[name][0] if name in nested else value.get(name) for name in names.values()}
            found.rows.append(TableRow(f"{path}:line {number}", values))
    if found.rows:
        columns.required(str(path), list(present), names)
    return found


def _value(line: str) -> dict[str, Any] | str:
    """Parses the object of a line; returns the reason why there is none."""
    try:
        value = json.loads(line, object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        return str(error)
    return value if isinstance(value, dict) else f"it is a {type(value).__name__}"


def inside(value: Any, name: str) -> list[Any]:
    """Returns what a key of a key holds, in a list; an empty one if there is no such key.

    Args:
        value: an object of JSON.
        name: the keys, with dots between them.

    Example: `inside({"target": {"span1_index": 3}}, "target.span1_index")` is `[3]`.
    """
    for key in name.split("."):
        if not isinstance(value, dict) or key not in value:
            return []
        value = value[key]
    return [value]


def _others(lines: Sequence[str], form: Format) -> tuple[str, list[str]] | None:
    """Returns the key of the tags, and keys of other lists of text as long, of the first line; None: no such keys."""
    first = next((line for line in lines if line.strip(" \t\r")), "")
    try:
        values = json.loads(first)
        words, tags = columns.find_columns("", list(values), form)
    except (ValueError, TypeError, RecursionError, MetaprimeError):
        return None
    if not isinstance(values[tags], list):
        return None
    long = [key for key, value in values.items() if isinstance(value, list) and len(value) == len(values[tags])]
    return tags, [key for key in long if key not in (words, tags) and isinstance((values[key] or [None])[0], str | int)]


def _sentence(path: Path, number: int, line: str, form: Format) -> Example | Problem:
    """Reads the sentence of a line, or the problem because of which it is dropped."""
    place = f"{path}:{number}"
    try:
        value = json.loads(line, object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        wrong = f"{shown(line)} is not JSON ({error}); each line needs one object with tokens and ner_tags"
        return Problem("not JSON", place, wrong, dropped=True)
    keys = value if isinstance(value, dict) else {}
    if not keys:
        wrong = f"{shown(line)} has no tokens and ner_tags; each line needs one object with both"
        return Problem("missing value", place, wrong, dropped=True)
    try:
        words, tags = columns.find_columns(str(path), list(keys), form)
    except MetaprimeError as error:
        wrong = f"{shown(line)} has {str(error).removeprefix(f'{path}: ')}"
        return Problem("missing value", place, wrong, dropped=True)
    # The origin FILE:LINE would mean that each word has a line of its own.
    origin = f"{path}:line {number}"
    result = columns.sentence_of(keys[words], keys[tags], origin=origin, columns=(words, tags))
    return result if isinstance(result, Example) else Problem(result.kind, place, result.text, dropped=True)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Builds the dict of a JSON object and refuses duplicate keys."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"duplicate key {next(key for key in keys if keys.count(key) > 1)!r}")
    return values


def _no_number(name: str) -> NoReturn:
    """Refuses NaN and infinities, which Python's parser would accept."""
    raise ValueError(f"{name} is not a JSON value")


CORPUS = Corpus(read, languages, partial(folders.locate_all, extensions=EXTENSIONS), records)
