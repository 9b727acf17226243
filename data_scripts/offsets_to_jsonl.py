"""Converts texts with character offsets to OUT_DIR/<language>/<split>.jsonl, words with IOB2 tags.

    python data_scripts/offsets_to_jsonl.py IN_DIR OUT_DIR

IN_DIR/<language>/<split>.jsonl has an object on each line, or a `.json` file one list of objects:

    {"text": "Ada naps.", "label": [[0, 3, "PER"]]}                                   doccano
    {"text": "Ada naps.", "spans": [{"start": 0, "end": 3, "label": "PER"}]}          Prodigy

The text may be called text, data or sentence, the entities label, labels, entities or spans. Words
end at white space, and punctuation around a word is a word of its own. An offset inside a word cuts
it there; of two entities that overlap the longer one is kept. Both are counted and printed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from metaprime.data.readers.columns import OFFSETS, TEXTS
from metaprime.types import MetaprimeError

EXTENSIONS = (".jsonl", ".json")


class Entity(NamedTuple):
    """Characters of a text from `start` to before `end`, and their type."""

    start: int
    end: int
    type: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Converts as the command line says: `main(["raw", "out"])`.

    Returns:
        The exit code: 0, or 2 after a message on stderr.
    """
    parser = argparse.ArgumentParser(description="Convert character offsets to words with tags.")
    parser.add_argument("source", type=Path, metavar="IN_DIR")
    parser.add_argument("target", type=Path, metavar="OUT_DIR")
    options = parser.parse_args(arguments)
    try:
        files = [path for path in sorted(options.source.glob("*/*")) if path.suffix in EXTENSIONS]
        if not files:
            raise MetaprimeError(f"{options.source}: no file <language>/<split>.jsonl in it")
        # All files are converted before the first is written.
        converted = {path: convert(path) for path in files}
        for path, (lines, counts) in converted.items():
            out = options.target / path.parent.name / f"{path.stem}.jsonl"
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
            notes = "".join(f", {count} {what}" for what, count in counts.items())
            print(f"{out}: {len(lines)} sentences{notes}")
    except (MetaprimeError, OSError) as error:
        print(f"offsets_to_jsonl: {error}", file=sys.stderr)
        return 2
    return 0


def convert(path: Path) -> tuple[list[dict[str, list[str]]], Counter[str]]:
    """Returns the sentences of a file, and how often words were cut and entities left out.

    Raises:
        MetaprimeError: the file is not JSON, or a text or an entity in it is not one.

    Example: `convert(Path("raw/de/train.jsonl"))[0][0]["tokens"]`.
    """
    lines, counts = [], Counter[str]()
    for place, item in _items(path):
        text, entities = _annotated(place, item)
        kept = _apart(entities)
        spans = _words(text)
        edges = {edge for entity in kept for edge in (entity.start, entity.end)}
        whole = len(spans)
        spans = [part for span in spans for part in _cut(*span, edges)]
        counts.update({"words cut": len(spans) - whole, "overlapping entities left out": len(entities) - len(kept)})
        if spans:
            lines.append({"tokens": [text[first:end] for first, end in spans], "ner_tags": _tags(spans, kept)})
    return lines, +counts


def _items(path: Path) -> Iterator[tuple[str, Any]]:
    """Yields the place and value of each object of a file of lines or of one list."""
    text = path.read_text(encoding="utf-8-sig")
    try:
        if text.lstrip().startswith("["):
            yield from ((f"{path}: item {number}", item) for number, item in enumerate(json.loads(text), start=1))
            return
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield f"{path}:{number}", json.loads(line)
    except ValueError as error:
        raise MetaprimeError(f"{path}: not JSON lines and not a JSON list: {error}") from None


def _annotated(place: str, item: Any) -> tuple[str, list[Entity]]:
    """Returns the text and the entities of an object."""
    keys = list(item) if isinstance(item, dict) else []
    text = next((item[name] for name in TEXTS if name in keys), None)
    marked = next((item[name] for name in OFFSETS if name in keys), None)
    if not isinstance(text, str) or not isinstance(marked, list):
        raise MetaprimeError(
            f"{place}: no text ({', '.join(TEXTS)}) with a list of entities ({', '.join(OFFSETS)}), only {', '.join(keys)}"
        )
    return text, [_entity(place, text, value) for value in marked]


def _entity(place: str, text: str, value: Any) -> Entity:
    """Reads an entity: [start, end, type], or a mapping; white space around it is no part of it."""
    if isinstance(value, dict):
        names = (("start", "start_offset"), ("end", "end_offset"), ("label", "type"))
        value = [next((value[name] for name in known if name in value), None) for known in names]
    if not isinstance(value, list) or len(value) != 3 or list(map(type, value)) != [int, int, str]:
        raise MetaprimeError(f"{place}: {value!r} is not an entity: write [start, end, type]")
    start, end, kind = value
    if not 0 <= start < end <= len(text) or not text[start:end].strip():
        raise MetaprimeError(f"{place}: the entity {value!r} is not in the text, which has {len(text)} characters")
    inside = text[start:end]
    return Entity(start + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip()), kind)


def _apart(entities: Sequence[Entity]) -> list[Entity]:
    """Returns entities that do not overlap, the longer ones first in doubt, in the order of the text."""
    kept: list[Entity] = []
    for entity in sorted(entities, key=lambda entity: (entity.start - entity.end, entity.start)):
        if all(entity.end <= other.start or other.end <= entity.start for other in kept):
            kept.append(entity)
    return sorted(kept)


def _words(text: str) -> list[tuple[int, int]]:
    """Returns where words begin and end: at white space, and with punctuation around a word apart."""
    words = []
    for match in re.finditer(r"\S+", text):
        first, end = match.span()
        while first < end and _is_mark(text[first]):
            words.append((first, first + 1))
            first += 1
        behind = end
        while behind > first and _is_mark(text[behind - 1]):
            behind -= 1
        words += [(first, behind)] * (first < behind) + [(mark, mark + 1) for mark in range(behind, end)]
    return words


def _is_mark(character: str) -> bool:
    """Returns True for punctuation and symbols."""
    return unicodedata.category(character)[0] in "PS"


def _cut(first: int, end: int, edges: set[int]) -> list[tuple[int, int]]:
    """Cuts a word where an entity begins or ends inside it."""
    places = [first, *sorted(edge for edge in edges if first < edge < end), end]
    return list(pairwise(places))


def _tags(spans: Sequence[tuple[int, int]], entities: Sequence[Entity]) -> list[str]:
    """Returns the IOB2 tag of each word."""
    tags = []
    for first, _ in spans:
        inside = next((entity for entity in entities if entity.start <= first < entity.end), None)
        tags.append("O" if inside is None else f"{'B' if first == inside.start else 'I'}-{inside.type}")
    return tags


if __name__ == "__main__":
    sys.exit(main())
