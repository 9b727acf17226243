"""Puts examples side by side: the gold answer, and what two arms predict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metaprime.reports.read import Suite, Transfer, read_predictions
from metaprime.rng import stream
from metaprime.types import MetaprimeError

if TYPE_CHECKING:
    from metaprime.tasks.task import Errors, Piece

MOST_SHOWN = 12
"""Examples at most."""


@dataclass(frozen=True)
class Version:
    """One example as gold or an arm has it; `note` counts its matches."""

    label: str
    pieces: tuple[Piece, ...]
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """One example in several versions."""

    title: str
    versions: tuple[Version, ...]


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


def examples(suite: Suite, arms: tuple[str, str], shots: int) -> tuple[str, tuple[Comparison, ...]]:
    """Returns a line on where the sample is from, and a sample of the examples that two arms answer differently.

    They come from one method and one seed, the first that both arms have, and are drawn by a fixed key.

    Example:
        note, shown = examples(suite, ("none", "meta"), 50)
    """
    if suite.kind.errors is None:
        return f"The task {suite.kind.name} does not say how its examples are shown.", ()
    cells = [{_cell(t): t for t in suite.select(arm=arm, shots=shots) if t.errors is not None} for arm in arms]
    order = [(method, seed) for method in suite.results.methods for seed in suite.results.seeds]
    both = {(method, seed) for method, seed, _ in cells[0].keys() & cells[1].keys()}
    chosen = next((place for place in order if place in both), None)
    if chosen is None:
        return f"No predictions that {' and '.join(map(suite.title, arms))} both have.", ()
    differing: list[tuple[str, int, Comparison]] = []
    for language in suite.results.languages:
        pair = [found.get((*chosen, language)) for found in cells]
        if pair[0] and pair[1]:
            titles = {arm: suite.title(arm) for arm in arms}
            differing += _differing(suite.kind.errors, language, titles, (pair[0], pair[1]))
    draw = stream(0, "sentences shown", *arms, *chosen)
    picks = sorted(draw.permutation(len(differing))[:MOST_SHOWN].tolist())
    method, seed = chosen
    note = (
        f"{len(picks)} of the {len(differing)} test examples that {' and '.join(map(suite.title, arms))} answer differently, "
        f"drawn at random by a fixed key (method {method}, K = {shots}, seed {seed})."
    )
    return note, tuple(differing[pick][2] for pick in picks)


def _cell(transfer: Transfer) -> tuple[str, int, str]:
    return transfer.entry.method, transfer.entry.seed, transfer.entry.language


def _differing(
    errors: Errors, language: str, titles: Mapping[str, str], transfers: tuple[Transfer, Transfer]
) -> list[tuple[str, int, Comparison]]:
    """Lists the examples that two transfers answer differently, with their language and number."""
    try:
        pairs = list(zip(*(read_predictions(one.folder) for one in transfers), strict=True))
    except (MetaprimeError, ValueError):
        # Reported where the suite was read; or the two are not of the same test set.
        return []
    found = []
    for number, lines in enumerate(pairs, 1):
        mine, theirs = lines
        if mine["predicted"] != theirs["predicted"] and _question(mine) == _question(theirs):
            versions = [Version("gold", errors.show(mine, "gold"))]
            for title, line in zip(titles.values(), lines, strict=True):
                versions.append(_version(errors, title, line))
            found.append((language, number, Comparison(f"{language}, sentence {number}", tuple(versions))))
    return found


def _question(line: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a line without what was predicted."""
    return {key: value for key, value in line.items() if key != "predicted"}


def _version(errors: Errors, title: str, line: Mapping[str, Any]) -> Version:
    counts = zip(errors.kinds, errors.of_example(line), strict=True)
    note = ", ".join(f"{number} {kind}" for kind, number in counts if number)
    return Version(title, errors.show(line, "predicted"), note)
