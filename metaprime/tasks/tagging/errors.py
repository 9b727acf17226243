"""Classifies mistakes about entities: boundary, type, missed, spurious; each entity counts once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from metaprime.tasks.task import Errors, Piece, Statistics

ErrorKind: TypeAlias = Literal["correct", "boundary", "type", "missed", "spurious"]
KINDS: tuple[ErrorKind, ...] = ("correct", "boundary", "type", "missed", "spurious")
"""Every kind of match, correct ones first."""

REMEMBERED = 1 << 16
"""Sentences whose entities and matches are remembered."""


class Entity(NamedTuple):
    """A typed stretch of words: `Entity("PER", 0, 1)` is the first two words.

    Attributes:
        type: such as `PER`.
        first: number of its first word.
        last: number of its last word, which is part of it.
    """

    type: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Match:
    """A pair of a gold and a predicted entity, or one of them without a partner.

    Attributes:
        kind: one of KINDS.
        gold: None for a spurious entity.
        predicted: None for a missed one.
    """

    kind: ErrorKind
    gold: Entity | None
    predicted: Entity | None


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Number of matches of each kind: `ErrorCounts(correct=3, missed=1).gold` is 4."""

    correct: int = 0
    boundary: int = 0
    type: int = 0
    missed: int = 0
    spurious: int = 0

    @property
    def gold(self) -> int:
        """Number of gold entities."""
        return self.correct + self.boundary + self.type + self.missed

    @property
    def predicted(self) -> int:
        """Number of predicted entities."""
        return self.correct + self.boundary + self.type + self.spurious

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        """Adds the counts of each kind."""
        return ErrorCounts(*(getattr(self, kind) + getattr(other, kind) for kind in KINDS))


def entities(tags: Sequence[str]) -> list[Entity]:
    """Lists the entities of one sentence; leniently, an I- that continues nothing opens an entity.

    Example: `entities(["B-PER", "I-PER", "O"])` is `[Entity("PER", 0, 1)]`.
    """
    return list(_entities(tuple(tags)))


@lru_cache(maxsize=REMEMBERED)
def _entities(tags: tuple[str, ...]) -> tuple[Entity, ...]:
    """Returns the entities of one sentence; a suite has the same gold tags in every arm."""
    # Imported here: it loads scikit-learn, which takes a second, and no start of a run counts entities.
    from seqeval.metrics.sequence_labeling import get_entities

    return tuple(Entity(*span) for span in get_entities(list(tags)))


def matches(gold: Sequence[str], predicted: Sequence[str]) -> list[Match]:
    """Pairs the gold and predicted entities of one sentence; each is in exactly one match.

    correct   same words, same type;
    type      same words, another type;
    boundary  same type and at least one common word, but not the same words; pairs with most common
              words come first, then the leftmost;
    missed    a gold entity without a partner;
    spurious  a predicted entity without a partner.

    Entities that share words, but neither their limits nor their type, are not paired.

    Raises:
        ValueError: `gold` and `predicted` differ in length.

    Example: `matches(["B-PER", "O"], ["B-LOC", "O"])[0].kind` is `"type"`.
    """
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} gold tags, {len(predicted)} predicted")
    gold_entities, predicted_entities = entities(gold), entities(predicted)

    # All pairs that could match, the best first: by kind, common words and place.
    pairs = [
        (rank, -shared, true.first, guess.first, true, guess)
        for true in gold_entities
        for guess in predicted_entities
        if (shared := min(true.last, guess.last) - max(true.first, guess.first) + 1) > 0
        and (rank := _rank(true, guess)) is not None
    ]
    result: list[Match] = []
    missed, spurious = set(gold_entities), set(predicted_entities)
    for rank, *_, true, guess in sorted(pairs):
        if true in missed and guess in spurious:
            result.append(Match(KINDS_BY_RANK[rank], true, guess))
            missed.remove(true)
            spurious.remove(guess)
    result += [Match("missed", true, None) for true in sorted(missed, key=_place)]
    return result + [Match("spurious", None, guess) for guess in sorted(spurious, key=_place)]


KINDS_BY_RANK: tuple[ErrorKind, ...] = ("correct", "type", "boundary")
"""Kinds of pairs, the best first."""


def _rank(gold: Entity, predicted: Entity) -> int | None:
    """Returns the place of a pair's kind in KINDS_BY_RANK, or None if it is no match."""
    same_words = gold[1:] == predicted[1:]
    if same_words:
        return 0 if gold.type == predicted.type else 1
    return 2 if gold.type == predicted.type else None


def _place(entity: Entity) -> tuple[int, int]:
    """Returns the sort key of an entity."""
    return entity.first, entity.last


def count(found: Iterable[Match]) -> ErrorCounts:
    """Counts matches by kind: `count(matches(gold, predicted)).correct`."""
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
    return _pair_counts(tuple(line["gold"]), tuple(line["predicted"]))


@lru_cache(maxsize=REMEMBERED)
def _pair_counts(gold: tuple[str, ...], predicted: tuple[str, ...]) -> ErrorCounts:
    """Counts the matches of one sentence, which statistics and errors both ask for."""
    return count(matches(gold, predicted))


def _by_kind(line: PredictionLine) -> tuple[int, ...]:
    """Returns the number of matches of each of KINDS."""
    counts = _counts(line)
    return tuple(getattr(counts, kind) for kind in KINDS)


def _statistics(line: PredictionLine) -> tuple[int, int, int]:
    """Returns the numbers of correct, predicted and gold entities."""
    counts = _counts(line)
    return counts.correct, counts.predicted, counts.gold


def micro_f1(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the micro-F1 in per cent, `(...,)`; 0 without predicted and gold entities.

    Args:
        sums: numbers of correct, predicted and gold entities, summed over sentences, `(..., 3)`.

    Example: `micro_f1(np.array([8.0, 10.0, 10.0]))` is 80.
    """
    return 200 * sums[..., 0] / np.maximum(sums[..., 1] + sums[..., 2], 1)


def pieces_of(line: PredictionLine, reading: str) -> tuple[Piece, ...]:
    """Cuts a sentence into entities with their type and kind of match, and the words between.

    Args:
        line: of predictions.jsonl.
        reading: `gold` or `predicted`.

    Example: `pieces_of(line, "predicted")[0].kind`.
    """
    pairs = matches(line["gold"], line["predicted"]) if reading == "predicted" else []
    kinds: dict[Entity, str] = {match.predicted: match.kind for match in pairs if match.predicted}
    pieces, start, words = [], 0, line["words"]
    for entity in entities(line[reading]):
        if start < entity.first:
            pieces.append(Piece(" ".join(words[start : entity.first])))
        inside = " ".join(words[entity.first : entity.last + 1])
        pieces.append(Piece(inside, entity.type, kinds.get(entity, "gold")))
        start = entity.last + 1
    return (*pieces, Piece(" ".join(words[start:]))) if start < len(words) else tuple(pieces)


STATISTICS = Statistics(_statistics, micro_f1)

ERRORS = Errors(
    kinds=KINDS,
    of_example=_by_kind,
    reference=("correct", "boundary", "type", "missed"),
    unit="gold entities",
    caption=(
        "Correct, boundary, type and missed add up to 100, spurious ones come on top. Type: same words, other type. "
        "Boundary: same type, at least one common word. Missed and spurious: the rest, gold and predicted; an overlap with "
        "neither the same limits nor the same type is one of each. Every entity counts once."
    ),
    show=pieces_of,
    missed="missed",
)
