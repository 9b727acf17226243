"""Audits tagged sentences: facts about a split, and findings about its labels and lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from metaprime.data.audit import EXAMPLES, Finding, scripts
from metaprime.data.reading import Format, Reading
from metaprime.data.rows import Example, Lengths, Row
from metaprime.tasks.class_audit import balance, class_columns, class_findings, unknown_subwords
from metaprime.tasks.tagging.labels import LabelSet
from metaprime.tasks.tagging.reading import examine
from metaprime.tasks.tagging.windows import encode, entities_lost, words_lost
from metaprime.tasks.task import Audit, Text


def examine_split(source: str, language: str, split: str, config: Any, known: bool, form: Format) -> Reading:
    """Reads a split with all its problems.

    Args:
        source: `scheme:root`.
        language: name of a language of the source.
        split: name of the split.
        config: a TaggingConfig.
        known: True: types that the config does not name are problems; False: every type is valid.
        form: facts about the files that the section `data` states.

    Raises:
        MetaprimeError: the split as a whole cannot be read.

    Example: `examine_split("synthetic:", "qaa", "train", TaggingConfig(), True, UNSTATED).problems`.
    """
    labels = config.label_set if known else None
    return examine(source, language, split, config.rules(labels, form))


def facts(sentences: Sequence[Example]) -> dict[str, Any]:
    """Counts sentences, words and entities by type of one split; adds its shares of scripts.

    Example: `facts(sentences)["entities"]` is such as `{"LOC": 120, "PER": 99}`.
    """
    tags = Counter(chain.from_iterable(sentence.gold for sentence in sentences))
    words = sum(tags.values())
    entities = {tag[2:]: count for tag, count in sorted(tags.items()) if tag.startswith("B-")}
    return {
        "sentences": len(sentences),
        "words": words,
        "longest_words": max((len(sentence.words) for sentence in sentences), default=0),
        "entities": entities,
        "inside_entities": 1 - tags["O"] / words if words else 0.0,
        "without_entity": sum(set(sentence.gold) == {"O"} for sentence in sentences),
        "scripts": scripts(sentences),
    }


def class_facts(sentences: Sequence[Example]) -> dict[str, Any]:
    """Counts sentences and words by class of one split; adds its shares of scripts.

    Example: `class_facts(sentences)["classes"]` is such as `{"NOUN": 120, "VERB": 99}`.
    """
    classes = Counter(chain.from_iterable(sentence.gold for sentence in sentences))
    return {
        "sentences": len(sentences),
        "words": classes.total(),
        "longest_words": max((len(sentence.words) for sentence in sentences), default=0),
        **balance(classes),
        "scripts": scripts(sentences),
    }


def audit_columns(facts: Mapping[str, Any]) -> dict[str, str]:
    """Returns cells of a terminal table by header: `audit_columns(facts(sentences))["words"]`."""
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in facts["entities"].items())
    return {"words": f"{facts['words']:,}", "in entities": f"{facts['inside_entities']:.1%}", "entities": kinds}


def labels(where: str, sentences: Sequence[Example], config: Any = None) -> list[Finding]:
    """Finds a split without any entity, or without an entity of one of the types of a config.

    Args:
        where: `<language>/<split>`.
        sentences: of the split.
        config: a TaggingConfig; None: no type is required.

    Example: `labels("de/train", sentences, TaggingConfig())`.
    """
    present = {tag[2:] for tag in set(chain.from_iterable(sentence.gold for sentence in sentences)) if tag != "O"}
    # A split without sentences is reported by its size.
    if not sentences:
        return []
    if not present:
        return [Finding("fatal", "no entity", where, len(sentences), "not one entity: check task.labels and label_map")]
    missing = [name for name in (config.labels if config else ()) if name not in present]
    text = f"no entity of type {', '.join(missing)}"
    return [Finding("problem", "missing type", where, len(missing), text)] if missing else []


def class_labels(where: str, sentences: Sequence[Example], config: Any = None) -> list[Finding]:
    """Finds a split that lacks classes of a config, or has one class alone.

    Args:
        where: `<language>/<split>`.
        sentences: of the split.
        config: a TaggingConfig; None: no class is required.

    Example: `class_labels("de/train", sentences, TaggingConfig(scheme="none"))`.
    """
    present = set(chain.from_iterable(sentence.gold for sentence in sentences))
    return class_findings(where, len(sentences), present, config.labels if config else (), "word", "note")


def class_lengths(where: str, examples: Sequence[Example], text: Text) -> list[Finding]:
    """Finds long sentences, words without a window, and unknown sub-words, as `lengths` does for spans.

    Args:
        where: `<language>/<split>`.
        examples: of the split.
        text: the encoder's tokenizer, and limits on windows.

    Example: `class_lengths("de/train", examples, Text(subwords, Lengths(128)))`.
    """
    classes = sorted(set(chain.from_iterable(example.gold for example in examples)))
    return _lengths(where, examples, text, LabelSet(tuple(classes), spans=False))


def lengths(where: str, examples: Sequence[Example], text: Text) -> list[Finding]:
    """Finds long sentences, lost entities and unknown sub-words.

    Args:
        where: `<language>/<split>`.
        examples: of the split.
        text: the encoder's tokenizer, and limits on windows.

    Example: `lengths("de/train", examples, Text(subwords, Lengths(128)))`.
    """
    # Any label set with the types of the split will do: labels do not change the windows.
    types = sorted({tag[2:] for tag in set(chain.from_iterable(example.gold for example in examples)) if tag != "O"})
    return _lengths(where, examples, text, LabelSet(tuple(types or ["PER"])))


def _lengths(where: str, examples: Sequence[Example], text: Text, labels: LabelSet) -> list[Finding]:
    """Encodes a split with labels that include its own, and finds what the encoder cannot see."""
    pieces = text.subwords.of(examples)
    rows = encode(examples, text.subwords, labels, text.lengths, pieces)
    ids = np.concatenate([piece.ids for piece in pieces])
    unknown = int((ids == text.subwords.tokenizer.unk_token_id).sum())
    return unseen(where, rows, text.lengths, len(ids), unknown, labels.spans)


def unseen(
    where: str, rows: Sequence[Row], read: Lengths, pieces: int, unknown: int, spans: bool = True
) -> list[Finding]:
    """Finds sentences in several windows, entities or words that cannot be found, and unknown sub-words.

    Args:
        where: `<language>/<split>`.
        rows: of the split.
        read: limits with which the rows were encoded.
        pieces: number of sub-words of the split.
        unknown: number of them that are unknown to the tokenizer.
        spans: whether tags mark spans; False: each word has a class.

    Example: `unseen("de/train", rows, Lengths(128), pieces=20_000, unknown=12)`.
    """
    long = sum(len(row.windows) > 1 for row in rows)
    counted = entities_lost if spans else words_lost
    lost = {number: count for number, row in enumerate(rows) if (count := counted(row))}
    findings = []
    if long:
        text = f"{long} of {len(rows)} sentences are longer than {read.longest} sub-words and are read in windows"
        findings.append(Finding("note", "long sentences", where, long, text))
    if lost:
        count = sum(lost.values())
        what, lack = ("entities", "have a word that is") if spans else ("words", "are")
        text = f"{count} {what} {lack} cut away or without a sub-word: they cannot be found"
        origins = tuple(rows[number].example.origin for number in list(lost)[:EXAMPLES])
        findings.append(Finding("problem", f"{what} lost", where, count, text, origins))
    return findings + unknown_subwords(where, unknown, pieces)


AUDIT = Audit(examine=examine_split, facts=facts, columns=audit_columns, labels=labels, lengths=lengths)

CLASS_AUDIT = Audit(
    examine=examine_split, facts=class_facts, columns=class_columns, labels=class_labels, lengths=class_lengths
)


def audit_for(config: Any) -> Audit:
    """Returns the checks for spans, or for classes of words: `audit_for(TaggingConfig())`.

    Args:
        config: a TaggingConfig.
    """
    return AUDIT if config.spans else CLASS_AUDIT
