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
from typing import Any, Literal

from metaprime.data.encoding import Lengths, entities_lost
from metaprime.data.episodes import same_text
from metaprime.types import Row, Sentence

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


def facts(sentences: Sequence[Sentence]) -> dict[str, Any]:
    """Sizes, entities by type, the share of words inside entities, and scripts of one split."""
    tags = Counter(tag for sentence in sentences for tag in sentence.tags)
    words = sum(tags.values())
    entities = {tag[2:]: count for tag, count in sorted(tags.items()) if tag.startswith("B-")}
    return {
        "sentences": len(sentences),
        "words": words,
        "longest_words": max((len(sentence.words) for sentence in sentences), default=0),
        "entities": entities,
        "inside_entities": 1 - tags["O"] / words if words else 0.0,
        "without_entity": sum(set(sentence.tags) == {"O"} for sentence in sentences),
        "scripts": scripts(sentences),
    }


def scripts(sentences: Iterable[Sentence]) -> dict[str, float]:
    """Share of the letters by script (the first word of each letter's Unicode name), the commonest first."""
    letters = Counter(mark for sentence in sentences for word in sentence.words for mark in word if mark.isalpha())
    found: Counter[str] = Counter()
    for letter, count in letters.items():
        found[unicodedata.name(letter, "UNNAMED").split(" ")[0].split("-")[0].lower()] += count
    total = found.total()
    return {script: count / total for script, count in found.most_common()}


def duplicates(where: str, sentences: Sequence[Sentence]) -> list[Finding]:
    """Texts that stand in a split more than once; with different tags they contradict each other."""
    groups: dict[str, list[Sentence]] = defaultdict(list)
    for sentence in sentences:
        groups[same_text(sentence.words)].append(sentence)
    repeated = [group for group in groups.values() if len(group) > 1]
    torn = [group for group in repeated if len({sentence.tags for sentence in group}) > 1]
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


def overlaps(splits: Mapping[str, Sequence[Sentence]], apart: Iterable[tuple[str, str]] = ()) -> list[Finding]:
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


def too_small(where: str, sentences: Sequence[Sentence], needed: int, key: str) -> list[Finding]:
    """A split with fewer different sentences than are `needed` at once; `key` says by what."""
    different = len({same_text(sentence.words) for sentence in sentences})
    if different >= needed:
        return []
    return [Finding("fatal", "too small", where, different, f"{different} different sentences, {key} takes {needed}")]


def unlabelled(where: str, sentences: Sequence[Sentence], types: Sequence[str]) -> list[Finding]:
    """A split without any entity, or without one of the types."""
    there = {tag[2:] for sentence in sentences for tag in sentence.tags if tag != "O"}
    if not sentences:
        return []  # `too_small` says so
    if not there:
        return [Finding("fatal", "no entity", where, len(sentences), "not one entity: check data.labels and label_map")]
    missing = [name for name in types if name not in there]
    text = f"no entity of type {', '.join(missing)}"
    return [Finding("problem", "missing type", where, len(missing), text)] if missing else []


def lengths(where: str, rows: Sequence[Row], read: Lengths, pieces: int, unknown: int) -> list[Finding]:
    """What the encoder cannot see of a split: sentences in several windows or cut, entities lost, unknown sub-words."""
    long = sum(len(row.windows) > 1 for row in rows)
    lost = [row for row in rows if entities_lost(row)]
    findings = []
    if long:
        text = f"{long} of {len(rows)} sentences are longer than {read.longest} sub-words and are read in windows"
        findings.append(Finding("note", "long sentences", where, long, text))
    if lost:
        count = sum(entities_lost(row) for row in lost)
        text = f"{count} entities have a word that is cut away or has no sub-word: they cannot be found"
        origins = tuple(row.sentence.origin for row in lost[:EXAMPLES])
        findings.append(Finding("problem", "entities lost", where, count, text, origins))
    if unknown:
        text = f"{unknown} of {pieces} sub-words ({unknown / pieces:.1%}) are unknown to the tokenizer"
        findings.append(Finding("problem" if unknown > 0.01 * pieces else "note", "unknown", where, unknown, text))
    return findings


def _origins(groups: Sequence[Sequence[Sentence]]) -> tuple[str, ...]:
    return tuple(" = ".join(sentence.origin for sentence in group[:2]) for group in groups[:EXAMPLES])
