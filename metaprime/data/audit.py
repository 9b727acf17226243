"""Reports findings about sentences already read: duplicates, overlaps, splits that are too small.

A split is named `<language>/<split>`. Two texts are equal if `episodes.same_text` maps them to the
same string, which is also how support and query are kept apart.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from metaprime.data.episodes import same_text
from metaprime.data.rows import Example

Severity = Literal["fatal", "problem", "note"]
SEVERITIES: tuple[Severity, ...] = ("fatal", "problem", "note")
"""Every severity, the gravest first."""

EXAMPLES = 3
"""Largest number of examples of a finding."""


@dataclass(frozen=True)
class Finding:
    """One finding about one or two splits.

    Attributes:
        severity: `fatal`: priming or transfer would stop; `problem`: a score would mislead or data
            is lost; `note`.
        kind: name of the finding, in one or two words.
        where: the split, or two of them.
        count: number of sentences, words or entities concerned.
        text: a human-readable sentence.
        examples: origins, at most EXAMPLES.
    """

    severity: Severity
    kind: str
    where: str
    count: int
    text: str
    examples: tuple[str, ...] = ()


def scripts(sentences: Iterable[Example]) -> dict[str, float]:
    """Returns each script's share of the letters, the largest first.

    The script of a letter is the first word of its Unicode name. The shares add up to 1; the dict
    is empty if there is no letter.

    Example: `scripts([Example(("Ada",), ("O",))])` is `{"latin": 1.0}`.
    """
    marks: Counter[str] = Counter()
    for sentence in sentences:
        marks.update("".join(sentence.words))
    counts: Counter[str] = Counter()
    for letter, count in marks.items():
        if not letter.isalpha():
            continue
        counts[unicodedata.name(letter, "UNNAMED").split(" ")[0].split("-")[0].lower()] += count
    total = counts.total()
    return {script: count / total for script, count in counts.most_common()}


def duplicates(where: str, sentences: Sequence[Example]) -> list[Finding]:
    """Finds duplicate texts of a split, and those whose labels contradict each other.

    Args:
        where: `<language>/<split>`.
        sentences: of the split.

    Returns:
        A note about all duplicates and a problem about the contradictory ones, each only if there
        are any.

    Example: `duplicates("de/train", sentences)`.
    """
    groups: dict[str, list[Example]] = defaultdict(list)
    for sentence in sentences:
        groups[same_text(sentence.words)].append(sentence)
    repeated = [group for group in groups.values() if len(group) > 1]
    contradictory = [group for group in repeated if len({sentence.gold for sentence in group}) > 1]

    findings = []
    if repeated:
        surplus = sum(len(group) - 1 for group in repeated)
        text = f"{surplus} of {len(sentences)} sentences repeat another; an episode takes each text once"
        findings.append(Finding("note", "duplicates", where, surplus, text, _origins(repeated)))
    if contradictory:
        count = sum(len(group) for group in contradictory)
        text = f"{count} sentences with {len(contradictory)} texts are labelled in different ways"
        findings.append(Finding("problem", "contradictions", where, count, text, _origins(contradictory)))
    return findings


def overlaps(splits: Mapping[str, Sequence[Example]], apart: Iterable[tuple[str, str]] = ()) -> list[Finding]:
    """Finds texts that two splits share.

    Args:
        splits: sentences by `<language>/<split>`.
        apart: pairs of splits of different languages that must not share a text.

    Returns:
        A problem for each pair of one language or of `apart` that shares texts, and one note about
        all other pairs.

    Example: `overlaps({"de/train": train, "de/test": test})`.
    """
    places: dict[str, dict[str, str]] = defaultdict(dict)
    for name, sentences in splits.items():
        for sentence in sentences:
            places[same_text(sentence.words)].setdefault(name, sentence.origin)

    # A text counts once for each pair that must not share it, and at most once for all that may.
    forbidden = {frozenset(pair) for pair in apart}
    shared: dict[tuple[str, str], list[str]] = defaultdict(list)
    elsewhere: dict[str, str] = {}
    for text, origins in places.items():
        for first, second in combinations(origins, 2):
            pair = f"{origins[first]} = {origins[second]}"
            if first.split("/")[0] == second.split("/")[0] or frozenset((first, second)) in forbidden:
                shared[first, second].append(pair)
            else:
                elsewhere.setdefault(text, pair)

    findings = []
    for (first, second), pairs in shared.items():
        text = f"{len(pairs)} texts are in both; a score on one would count what was learned from the other"
        findings.append(Finding("problem", "overlap", f"{first} & {second}", len(pairs), text, tuple(pairs[:EXAMPLES])))
    if elsewhere:
        text = f"{len(elsewhere)} texts are in the splits of more than one language"
        examples = tuple(elsewhere.values())[:EXAMPLES]
        findings.append(Finding("note", "across languages", "all splits", len(elsewhere), text, examples))
    return findings


def too_small(where: str, sentences: Sequence[Example], needed: int, key: str) -> list[Finding]:
    """Reports a split with fewer different sentences than are needed at once.

    Args:
        where: `<language>/<split>`.
        sentences: of the split.
        needed: smallest sufficient number of different sentences.
        key: what needs them, for the message, such as `one episode`.

    Example: `too_small("de/train", sentences, 40, "one episode")`.
    """
    different = len({same_text(sentence.words) for sentence in sentences})
    if different >= needed:
        return []
    return [Finding("fatal", "too small", where, different, f"{different} different sentences, {key} takes {needed}")]


def _origins(groups: Sequence[Sequence[Example]]) -> tuple[str, ...]:
    """Returns the origins of the first two sentences of each of the first groups."""
    return tuple(" = ".join(sentence.origin for sentence in group[:2]) for group in groups[:EXAMPLES])
