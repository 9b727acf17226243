"""Shows test examples side by side: the gold answer and the predictions of two arms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metaprime.reports.read import Suite, Transfer
from metaprime.rng import stream
from metaprime.runs.records import read_predictions
from metaprime.types import MetaprimeError

if TYPE_CHECKING:
    from metaprime.tasks.task import Errors, Piece

MOST_SHOWN = 12
"""Largest number of examples shown."""


@dataclass(frozen=True)
class Version:
    """One reading of an example, gold or an arm's.

    Attributes:
        label: `gold` or the arm's title.
        pieces: the text in stretches, with labels.
        note: number of matches of each kind.
    """

    label: str
    pieces: tuple[Piece, ...]
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """One example in several versions, gold first: `Comparison("qai, sentence 3", versions)`."""

    title: str
    versions: tuple[Version, ...]


def arms_compared(suite: Suite) -> tuple[str, str] | None:
    """Returns the two arms to compare, the baseline first; None if there are no two.

    These are the arms of the first contrast with the control; without one, the control and the
    first primed arm; without a control, the arms of the first contrast.

    Example:
        arms_compared(suite)  # ("none", "meta")
    """
    results = suite.results
    known = [(baseline, arm) for arm, baseline in results.contrasts if {arm, baseline} <= results.arms.keys()]
    against_control = [pair for pair in known if pair[0] == suite.control]
    primed = [(suite.control, name) for name, arm in results.arms.items() if suite.control and arm.priming]
    return next(iter([*against_control, *primed, *known]), None)


def examples(suite: Suite, arms: tuple[str, str], shots: int) -> tuple[str, tuple[Comparison, ...]]:
    """Draws examples that two arms answer differently, by a fixed key.

    The examples come from one method and one seed, the first that both arms have.

    Args:
        suite: the suite.
        arms: two arms, the baseline first.
        shots: K.

    Returns:
        A line that describes the sample, and the examples.

    Example:
        note, shown = examples(suite, ("none", "meta"), 50)
    """
    if suite.kind.errors is None:
        return f"The task {suite.kind.name} does not say how its examples are shown.", ()

    # The first method and seed of which both arms have predictions.
    cells = [{_cell(t): t for t in suite.select(arm=arm, shots=shots) if t.errors is not None} for arm in arms]
    order = [(method, seed) for method in suite.results.methods for seed in suite.results.seeds]
    both = {(method, seed) for method, seed, _ in cells[0].keys() & cells[1].keys()}
    chosen = next((place for place in order if place in both), None)
    if chosen is None:
        return f"No predictions that {' and '.join(map(suite.title, arms))} both have.", ()

    # All examples that they answer differently, and a sample of them.
    differing: list[tuple[str, int, Comparison]] = []
    for language in suite.results.languages:
        pair = [cell.get((*chosen, language)) for cell in cells]
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
    """Returns method, seed and language of a transfer."""
    return transfer.entry.method, transfer.entry.seed, transfer.entry.language


def _differing(
    errors: Errors, language: str, titles: Mapping[str, str], transfers: tuple[Transfer, Transfer]
) -> list[tuple[str, int, Comparison]]:
    """Lists (language, number, comparison) of examples that two transfers answer differently."""
    try:
        pairs = list(zip(*(read_predictions(transfer.folder) for transfer in transfers), strict=True))
    except (MetaprimeError, ValueError):
        # Damaged predictions were reported when the suite was read; or the test sets differ.
        return []
    differing = []
    for number, lines in enumerate(pairs, 1):
        first, second = lines
        if first["predicted"] != second["predicted"] and _question(first) == _question(second):
            versions = [Version("gold", errors.show(first, "gold"))]
            for title, line in zip(titles.values(), lines, strict=True):
                versions.append(_version(errors, title, line))
            differing.append((language, number, Comparison(f"{language}, sentence {number}", tuple(versions))))
    return differing


def _question(line: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a line of predictions without the prediction."""
    return {key: value for key, value in line.items() if key != "predicted"}


def _version(errors: Errors, title: str, line: Mapping[str, Any]) -> Version:
    """Returns an arm's prediction of an example, with its matches counted by kind."""
    counts = zip(errors.kinds, errors.of_example(line), strict=True)
    note = ", ".join(f"{number} {kind}" for kind, number in counts if number)
    return Version(title, errors.show(line, "predicted"), note)
