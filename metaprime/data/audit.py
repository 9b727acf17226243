"""What is wrong with a corpus, and what is merely worth knowing: facts and findings about sentences already read.

A split is named `<language>/<split>`. Two texts are the same where `episodes.same_text` says so, as support and query
are kept apart by it.
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
EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        severity: `fatal`: priming or transfer would stop; `problem`: a score would mislead or something is lost; `note`.
        kind: what it is, in one word or two.
        where: the split, or two of them.
        count: how many sentences, words or entities it touches.
        text: a sentence for people.
        examples: origins, at most a few.
    """

    severity: Severity
    kind: str
    where: str
    count: int
    text: str
    examples: tuple[str, ...] = ()


def scripts(sentences: Iterable[Example]) -> dict[str, float]:
    """Share of the letters by script (the first word of each letter's Unicode name), the commonest first."""
    letters = Counter(mark for sentence in sentences for word in sentence.words for mark in word if mark.isalpha())
    found: Counter[str] = Counter()
    for letter, count in letters.items():
        found[unicodedata.name(letter, "UNNAMED").split(" ")[0].split("-")[0].lower()] += count
    total = found.total()
    return {script: count / total for script, count in found.most_common()}


def duplicates(where: str, sentences: Sequence[Example]) -> list[Finding]:
    """Texts that stand in a split more than once; with different tags they contradict each other."""
    groups: dict[str, list[Example]] = defaultdict(list)
    for sentence in sentences:
        groups[same_text(sentence.words)].append(sentence)
    repeated = [group for group in groups.values() if len(group) > 1]
    torn = [group for group in repeated if len({sentence.gold for sentence in group}) > 1]
    findings = []
    if repeated:
        more = sum(len(group) - 1 for group in repeated)
        text = f"{more} of {len(sentences)} sentences repeat another; an episode takes each text once"
        findings.append(Finding("note", "duplicates", where, more, text, _origins(repeated)))
    if torn:
        count = sum(len(group) for group in torn)
        text = f"{count} sentences with {len(torn)} texts are tagged in different ways"
        findings.append(Finding("problem", "contradictions", where, count, text, _origins(torn)))
    return findings


def overlaps(splits: Mapping[str, Sequence[Example]], apart: Iterable[tuple[str, str]] = ()) -> list[Finding]:
    """Texts that stand in two splits: a problem within a language and in the pairs that must be `apart`, else one note."""
    places: dict[str, dict[str, str]] = defaultdict(dict)
    for name, sentences in splits.items():
        for sentence in sentences:
            places[same_text(sentence.words)].setdefault(name, sentence.origin)
    forbidden = {frozenset(pair) for pair in apart}
    shared: dict[tuple[str, str], list[str]] = defaultdict(list)
    elsewhere: dict[str, str] = {}
    for text, found in places.items():
        for one, other in combinations(found, 2):
            pair = f"{found[one]} = {found[other]}"
            if one.split("/")[0] == other.split("/")[0] or frozenset((one, other)) in forbidden:
                shared[one, other].append(pair)
            else:
                elsewhere.setdefault(text, pair)
    findings = []
    for (one, other), pairs in shared.items():
        text = f"{len(pairs)} texts stand in both; a score on one would count what was learned from the other"
        findings.append(Finding("problem", "overlap", f"{one} & {other}", len(pairs), text, tuple(pairs[:EXAMPLES])))
    if elsewhere:
        text = f"{len(elsewhere)} texts stand in the splits of more than one language"
        examples = tuple(elsewhere.values())[:EXAMPLES]
        findings.append(Finding("note", "across languages", "all splits", len(elsewhere), text, examples))
    return findings


def too_small(where: str, sentences: Sequence[Example], needed: int, key: str) -> list[Finding]:
    """A split with fewer different sentences than are `needed` at once; `key` says by what."""
    different = len({same_text(sentence.words) for sentence in sentences})
    if different >= needed:
        return []
    return [Finding("fatal", "too small", where, different, f"{different} different sentences, {key} takes {needed}")]


def _origins(groups: Sequence[Sequence[Example]]) -> tuple[str, ...]:
    return tuple(" = ".join(sentence.origin for sentence in group[:2]) for group in groups[:EXAMPLES])
