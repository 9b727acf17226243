"""Puts sentences side by side: gold, and what two arms make of them, entity by entity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metaprime.reports.read import Suite, Transfer, read_predictions
from metaprime.rng import stream
from metaprime.tasks.tagging.errors import KINDS, Entity, count, entities, matches
from metaprime.types import MetaprimeError

SHOWN = 12
"""Sentences at most."""


@dataclass(frozen=True)
class Piece:
    """Words in a row: an entity with its type, and the kind of match it is part of, or neither."""

    text: str
    type: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Reading:
    """One sentence as gold or an arm has it; `note` counts its matches."""

    label: str
    pieces: tuple[Piece, ...]
    note: str = ""


@dataclass(frozen=True)
class Example:
    """One sentence in several readings."""

    title: str
    readings: tuple[Reading, ...]


def arms_compared(suite: Suite) -> tuple[str, str] | None:
    """Returns (other, one) of the first contrast with the control; else the control and the first primed arm; else any contrast.

    Example:
        arms_compared(suite)  # ("none", "meta")
    """
    results = suite.results
    known = [(other, one) for one, other in results.contrasts if {one, other} <= results.arms.keys()]
    against_control = [pair for pair in known if pair[0] == suite.control]
    primed = [(suite.control, name) for name, arm in results.arms.items() if suite.control and arm.priming]
    return next(iter([*against_control, *primed, *known]), None)


def examples(suite: Suite, arms: tuple[str, str], shots: int) -> tuple[str, tuple[Example, ...]]:
    """Returns a sample, drawn by a fixed key, of the sentences the two arms tag differently, after a line on where it is from.

    They come from one method and one seed, the first that both arms have.

    Example:
        note, shown = examples(suite, ("none", "meta"), 50)
    """
    cells = [{_cell(t): t for t in suite.select(arm=arm, shots=shots) if t.errors is not None} for arm in arms]
    order = [(method, seed) for method in suite.results.methods for seed in suite.results.seeds]
    both = {(method, seed) for method, seed, _ in cells[0].keys() & cells[1].keys()}
    chosen = next((place for place in order if place in both), None)
    if chosen is None:
        return f"No predictions that {' and '.join(map(suite.title, arms))} both have.", ()
    differing: list[tuple[str, int, Example]] = []
    for language in suite.results.languages:
        pair = [found.get((*chosen, language)) for found in cells]
        if pair[0] and pair[1]:
            titles = {arm: suite.title(arm) for arm in arms}
            differing += _differing(language, titles, pair[0], pair[1])
    draw = stream(0, "sentences shown", *arms, *chosen)
    picks = sorted(draw.permutation(len(differing))[:SHOWN].tolist())
    method, seed = chosen
    note = (
        f"{len(picks)} of the {len(differing)} test sentences that {' and '.join(map(suite.title, arms))} tag differently, "
        f"drawn at random by a fixed key (method {method}, K = {shots}, seed {seed})."
    )
    return note, tuple(differing[pick][2] for pick in picks)


def _cell(transfer: Transfer) -> tuple[str, int, str]:
    return transfer.entry.method, transfer.entry.seed, transfer.entry.language


def _differing(
    language: str, titles: Mapping[str, str], one: Transfer, other: Transfer
) -> list[tuple[str, int, Example]]:
    try:
        pairs = list(zip(read_predictions(one.folder), read_predictions(other.folder), strict=True))
    except (MetaprimeError, ValueError):  # named where the suite was read, or not of the same test set
        return []
    found = []
    for number, (mine, theirs) in enumerate(pairs, 1):
        if mine["predicted"] != theirs["predicted"] and (mine["words"], mine["gold"]) == (
            theirs["words"],
            theirs["gold"],
        ):
            readings = [Reading("gold", _pieces(mine["words"], mine["gold"], {}))]
            for title, line in zip(titles.values(), (mine, theirs), strict=True):
                readings.append(_reading(title, line["words"], line["gold"], line["predicted"]))
            found.append((language, number, Example(f"{language}, sentence {number}", tuple(readings))))
    return found


def _reading(title: str, words: Sequence[str], gold: Sequence[str], predicted: Sequence[str]) -> Reading:
    made = matches(gold, predicted)
    kinds = {match.predicted: match.kind for match in made if match.predicted}
    counts = count(made)
    note = ", ".join(f"{number} {kind}" for kind in KINDS if (number := getattr(counts, kind)))
    return Reading(title, _pieces(words, predicted, kinds), note)


def _pieces(words: Sequence[str], tags: Sequence[str], kinds: Mapping[Entity, str]) -> tuple[Piece, ...]:
    pieces, at = [], 0
    for entity in entities(tags):
        if at < entity.first:
            pieces.append(Piece(" ".join(words[at : entity.first])))
        inside = " ".join(words[entity.first : entity.last + 1])
        pieces.append(Piece(inside, entity.type, kinds.get(entity, "gold")))
        at = entity.last + 1
    return (*pieces, Piece(" ".join(words[at:]))) if at < len(words) else tuple(pieces)
