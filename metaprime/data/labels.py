"""Tags by name: which entity types a run knows, how a corpus's own types map onto them, and IOB2 for all of them.

Nothing here ever compares label ids between corpora: `B-LOC` is 3 in one data set and 5 in the next.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from metaprime.types import MetaprimeError, Sentence

IOB = {"B": "B", "I": "I", "S": "B", "U": "B", "E": "I", "L": "I", "M": "I"}
"""Prefix of any common scheme (IOB, BIOES, BILOU, BMES) -> prefix in IOB2."""


class Applied(NamedTuple):
    """A sentence in the run's labels, and the positions of the words whose tag had to change for IOB2's sake."""

    sentence: Sentence
    repaired: tuple[int, ...]  # I-X that opened an entity, now B-X
    converted: tuple[int, ...]  # prefixes of another scheme (S-, E-, ...)


@dataclass(frozen=True)
class LabelSet:
    """The entity types of a run (`data.labels`) and how other types map onto them (`data.label_map`).

    `LabelSet(("PER", "ORG", "LOC"), {"MISC": "O"}).tags` is O, B-PER, I-PER, B-ORG, ...: a tag's place is its label id.
    """

    types: tuple[str, ...]
    mapping: dict[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.types:
            raise MetaprimeError("data.labels is empty; list the entity types, e.g. data.labels: [PER, ORG, LOC]")
        for name in self.types:
            if self.types.count(name) > 1:
                raise MetaprimeError(f"data.labels names {name!r} twice; keep one of them")
            if name == "O" or not name or name != "".join(name.split()):
                raise MetaprimeError(
                    f"data.labels: {name!r} is no entity type; list types such as PER, without O, B- or I-"
                )
        for source, target in self.mapping.items():
            if source == "O":
                raise MetaprimeError("data.label_map maps 'O', which is no entity type; remove that key")
            if target not in (*self.types, "O"):
                raise MetaprimeError(
                    f"data.label_map maps {source!r} to {target!r}, which is neither in data.labels "
                    f"{list(self.types)} nor O; choose one of these"
                )

    @property
    def tags(self) -> tuple[str, ...]:
        """Every IOB2 tag in the order of its label id: O first, then B- and I- of each type."""
        return ("O", *(f"{prefix}-{name}" for name in self.types for prefix in "BI"))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {tag: index for index, tag in enumerate(self.tags)}

    def index(self, tag: str) -> int:
        """Label id of an IOB2 tag."""
        if tag not in self._ids:
            raise MetaprimeError(f"tag {tag!r} is none of {list(self.tags)}; add its type to data.labels")
        return self._ids[tag]

    def apply(self, sentence: Sentence) -> Applied:
        """The sentence with its types mapped by name and its tags in IOB2; refuses a type that nobody named."""
        named = [self._renamed(tag, sentence, word) for word, tag in enumerate(sentence.tags)]
        tags, repaired = repair([tag for tag, _ in named])
        converted = tuple(word for word, (_, foreign) in enumerate(named) if foreign)
        return Applied(replace(sentence, tags=tags), repaired, converted)

    def _renamed(self, tag: str, sentence: Sentence, word: int) -> tuple[str, bool]:
        """(mapped tag with prefix B or I, whether its prefix came from another scheme)."""
        if tag == "O":
            return tag, False
        prefix, _, name = tag.partition("-")
        if prefix not in IOB or not name:
            raise MetaprimeError(
                f"{where(sentence, word)}: tag {tag!r} is neither O nor PREFIX-TYPE such as B-PER; "
                "the tag must be the last column, in IOB2"
            )
        target = self.mapping.get(name, name)
        if target == "O":
            return target, False
        if target not in self.types:
            raise MetaprimeError(
                f"{where(sentence, word)}: tag {tag!r} (type {name}) is neither in data.labels {list(self.types)} "
                f"nor in data.label_map; add e.g. data.label_map: {{{name}: O}}"
            )
        return f"{IOB[prefix]}-{target}", prefix != IOB[prefix]


def repair(tags: Sequence[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """IOB2 of `tags`, and where it changed: an I-X that does not continue an entity of type X becomes B-X."""
    repaired = tuple(
        word
        for word, (before, tag) in enumerate(pairwise(("O", *tags)))
        if tag.startswith("I-") and before not in (tag, f"B-{tag[2:]}")
    )
    return tuple(f"B-{tag[2:]}" if word in repaired else tag for word, tag in enumerate(tags)), repaired


def where(sentence: Sentence, word: int) -> str:
    """`FILE:LINE` of a word whose sentence came from lines, else the sentence's origin and the word's number from 1."""
    line = re.fullmatch(r"(.*):(\d+)", sentence.origin, flags=re.DOTALL)
    if line:
        return f"{line[1]}:{int(line[2]) + word}"
    return f"{sentence.origin or 'sentence'}, word {word + 1}"
