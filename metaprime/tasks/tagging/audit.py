"""Facts and findings about tagged sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from metaprime.data.audit import EXAMPLES, Finding, scripts
from metaprime.data.rows import Row, Sentence
from metaprime.tasks.tagging.windows import Lengths, entities_lost


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
