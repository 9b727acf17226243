"""JSON lines: `DIR/<language>/<split>.jsonl`, one `{"tokens": [...], "ner_tags": [...]}` a line; the tags may be `tags`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from metaprime.data.readers import columns, folders
from metaprime.data.reading import Problem, Reading, shown
from metaprime.data.rows import Example

EXTENSIONS = ("jsonl", "json")


def languages(root: str) -> list[str]:
    """Languages for which `root` has a file."""
    return folders.languages(root, EXTENSIONS)


def read(root: str, language: str, split: str) -> Reading:
    """One split with the tags as the file has them, integers as digits."""
    return parse(folders.locate(root, language, split, EXTENSIONS))


def parse(path: Path) -> Reading:
    """One file; a sentence's `origin` names its line, counted from 1."""
    reading = Reading(place=str(path))
    for number, line in enumerate(folders.contents(path).split(b"\n"), start=1):  # no splitlines(): U+2028 is data
        if line.strip(b" \t\r"):
            reading.add(_sentence(path, number, line))
    return reading


def _sentence(path: Path, number: int, line: bytes) -> Example | Problem:
    place = f"{path}:{number}"
    try:
        value = json.loads(line.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        wrong = f"byte 0x{line[error.start]:02x} is not UTF-8; convert the file, e.g. with iconv"
        return Problem("not UTF-8", place, wrong, dropped=True)
    except (ValueError, RecursionError) as error:
        wrong = f"{shown(line.decode())} is not JSON ({error}); each line needs one object with tokens and ner_tags"
        return Problem("not JSON", place, wrong, dropped=True)
    keys = value if isinstance(value, dict) else {}
    tags = next((keys[name] for name in columns.TAGS if name in keys), None)
    if columns.TOKENS not in keys or tags is None:
        wrong = f"{shown(line.decode())} has no tokens and ner_tags; each line needs one object with both"
        return Problem("missing value", place, wrong, dropped=True)
    # Not FILE:LINE, which would mean a word on each of the lines that follow.
    found = columns.sentence_of(keys[columns.TOKENS], tags, origin=f"{path}:line {number}")
    return found if isinstance(found, Example) else Problem(found.kind, place, found.text, dropped=True)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no value of JSON")
