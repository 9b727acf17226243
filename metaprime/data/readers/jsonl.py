"""Reads JSON lines: `DIR/<language>/<split>.jsonl`.

A line is `{"tokens": [...], "ner_tags": [...]}`; the key of the tags may also be `tags`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from metaprime.data.readers import columns, folders
from metaprime.data.readers.text import read_lines
from metaprime.data.reading import UNSTATED, Corpus, Format, Problem, Reading, shown
from metaprime.data.rows import Example

EXTENSIONS = ("jsonl", "json")


def languages(root: str) -> list[str]:
    """Lists the languages for which a folder has a file: `languages("data")`."""
    return folders.languages(root, EXTENSIONS)


def read(root: str, language: str, split: str, form: Format = UNSTATED) -> Reading:
    """Reads one split with the file's own tags, integers as digits: `read("data", "de", "train")`.

    Raises:
        MetaprimeError: the folder, language or split does not exist.
    """
    return parse(folders.locate(root, language, split, EXTENSIONS), form)


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
            reading.add(_sentence(path, number, line))
    return reading


def _sentence(path: Path, number: int, line: str) -> Example | Problem:
    """Reads the sentence of a line, or the problem because of which it is dropped."""
    place = f"{path}:{number}"
    try:
        value = json.loads(line, object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        wrong = f"{shown(line)} is not JSON ({error}); each line needs one object with tokens and ner_tags"
        return Problem("not JSON", place, wrong, dropped=True)
    keys = value if isinstance(value, dict) else {}
    tags = next((keys[name] for name in columns.TAGS if name in keys), None)
    if columns.TOKENS not in keys or tags is None:
        wrong = f"{shown(line)} has no tokens and ner_tags; each line needs one object with both"
        return Problem("missing value", place, wrong, dropped=True)
    # The origin FILE:LINE would mean that each word has a line of its own.
    result = columns.sentence_of(keys[columns.TOKENS], tags, origin=f"{path}:line {number}")
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


CORPUS = Corpus(read, languages)
