"""Sorts mistakes about entities: boundary, type, missed or spurious; every entity is counted once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from seqeval.metrics.sequence_labeling import get_entities

from metaprime.tasks.task import Errors, Piece, Statistics

ErrorKind: TypeAlias = Literal["correct", "boundary", "type", "missed", "spurious"]
KINDS: tuple[ErrorKind, ...] = ("correct", "boundary", "type", "missed", "spurious")


class Entity(NamedTuple):
    """A stretch of words, first and last included, and its type."""

    type: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Match:
    """What became of a gold entity, a predicted one, or a pair of them."""

    kind: ErrorKind
    gold: Entity | None
    predicted: Entity | None


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Matches by kind. A pair is one match; `missed` are gold entities alone, `spurious` predicted ones alone."""

    correct: int = 0
    boundary: int = 0
    type: int = 0
    missed: int = 0
    spurious: int = 0

    @property
    def gold(self) -> int:
        return self.correct + self.boundary + self.type + self.missed

    @property
    def predicted(self) -> int:
        return self.correct + self.boundary + self.type + self.spurious

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(*(getattr(self, kind) + getattr(other, kind) for kind in KINDS))


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of one sentence in the lenient reading: an inside tag that continues nothing opens an entity."""
    return [Entity(*found) for found in get_entities(list(tags))]


def matches(gold: Sequence[str], predicted: Sequence[str]) -> list[Match]:
    """Pairs the gold entities of one sentence with the predicted ones; each takes part in exactly one match.

    correct   same words, same type;
    type      same words, other type;
    boundary  same type and at least one word in common, but not the same words. Of several candidates the pair with
              most words in common, then the leftmost;
    missed    a gold entity left over; spurious: a predicted one left over. A gold and a predicted entity that share
              words, but neither their limits nor their type, are one of each: the prediction is no version of the gold.

    Raises:
        ValueError: the two are not of equal length.
    """
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} gold tags, {len(predicted)} predicted")
    wanted, guessed = entities(gold), entities(predicted)
    pairs = [
        (rank, -shared, one.first, other.first, one, other)
        for one in wanted
        for other in guessed
        if (shared := min(one.last, other.last) - max(one.first, other.first) + 1) > 0
        and (rank := _rank(one, other)) is not None
    ]
    found: list[Match] = []
    left, free = set(wanted), set(guessed)
    for rank, *_, one, other in sorted(pairs):
        if one in left and other in free:
            found.append(Match(KINDS_BY_RANK[rank], one, other))
            left.remove(one)
            free.remove(other)
    found += [Match("missed", one, None) for one in sorted(left, key=_place)]
    return found + [Match("spurious", None, other) for other in sorted(free, key=_place)]


KINDS_BY_RANK: tuple[ErrorKind, ...] = ("correct", "type", "boundary")
"""Better matches are made first."""


def _rank(gold: Entity, predicted: Entity) -> int | None:
    same_words = gold[1:] == predicted[1:]
    if same_words:
        return 0 if gold.type == predicted.type else 1
    return 2 if gold.type == predicted.type else None


def _place(entity: Entity) -> tuple[int, int]:
    return entity.first, entity.last


def count(found: Iterable[Match]) -> ErrorCounts:
    """How many matches there are of each kind."""
    kinds = [match.kind for match in found]
    return ErrorCounts(*(kinds.count(kind) for kind in KINDS))


PredictionLine: TypeAlias = Mapping[str, Any]
"""One line of predictions.jsonl: `words`, and the tags `gold` and `predicted`."""


def _counts(line: PredictionLine) -> ErrorCounts:
    """Counts the matches of a line.

    Raises:
        ValueError: words, gold and predicted tags differ in number.
    """
    if len({len(line[key]) for key in ("words", "gold", "predicted")}) != 1:
        raise ValueError("words, gold and predicted differ in number")
    return count(matches(line["gold"], line["predicted"]))


def _statistics(line: PredictionLine) -> tuple[int, int, int]:
    """Returns entities predicted right, entities predicted, gold entities."""
    found = _counts(line)
    return found.correct, found.predicted, found.gold


def micro_f1(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns micro-F1 (per cent) of sums (..., 3) over sentences; 0 where nothing is predicted and nothing there."""
    return 200 * sums[..., 0] / np.maximum(sums[..., 1] + sums[..., 2], 1)


def pieces_of(line: PredictionLine, reading: str) -> tuple[Piece, ...]:
    """Returns a sentence in pieces: entities with their type, and what became of them.

    Args:
        line: of predictions.jsonl.
        reading: `gold` or `predicted`.
    """
    made = matches(line["gold"], line["predicted"]) if reading == "predicted" else []
    kinds: dict[Entity, str] = {match.predicted: match.kind for match in made if match.predicted}
    pieces, at, words = [], 0, line["words"]
    for entity in entities(line[reading]):
        if at < entity.first:
            pieces.append(Piece(" ".join(words[at : entity.first])))
        inside = " ".join(words[entity.first : entity.last + 1])
        pieces.append(Piece(inside, entity.type, kinds.get(entity, "gold")))
        at = entity.last + 1
    return (*pieces, Piece(" ".join(words[at:]))) if at < len(words) else tuple(pieces)


STATISTICS = Statistics(_statistics, micro_f1)

ERRORS = Errors(
    kinds=KINDS,
    of_example=lambda line: tuple(getattr(_counts(line), kind) for kind in KINDS),
    reference=("correct", "boundary", "type", "missed"),
    unit="gold entities",
    caption=(
        "Correct, boundary, type and missed add up to 100, spurious ones come on top. Type: same words, other type. "
        "Boundary: same type, at least one common word. Missed and spurious: the rest, gold and predicted; an overlap with "
        "neither the same limits nor the same type is one of each. Every entity counts once."
    ),
    show=pieces_of,
)
