"""`metaprime data check`: everything a source, or a config, would read is read, counted and compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from metaprime.config.loading import load_config
from metaprime.config.sections import Config
from metaprime.data import audit
from metaprime.data.audit import SEVERITIES, Finding, Severity
from metaprime.data.reading import NOTICES, Reading
from metaprime.data.rows import Sentence
from metaprime.data.sources import languages
from metaprime.data.subwords import Subwords, cache_folder
from metaprime.models.encoder import load_tokenizer
from metaprime.tasks.tagging import audit as tagging_audit
from metaprime.tasks.tagging.labels import LabelSet
from metaprime.tasks.tagging.reading import examine
from metaprime.tasks.tagging.windows import Lengths, encode
from metaprime.types import MetaprimeError


@dataclass(frozen=True)
class Part:
    """One split to look at: what it is used for, where it is, and how many different sentences are drawn of it at once."""

    role: str
    source: str
    language: str
    split: str
    needed: int
    key: str

    @property
    def name(self) -> str:
        return f"{self.language}/{self.split}"


@dataclass(frozen=True)
class Report:
    """What was read and what was found, the gravest first."""

    splits: dict[str, dict[str, Any]]
    findings: list[Finding]

    @property
    def clean(self) -> bool:
        return all(finding.severity == "note" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        return {"clean": self.clean, "splits": self.splits, "findings": [asdict(finding) for finding in self.findings]}


def check_data(what: str, overrides: Sequence[str] = (), *, encoder: str | None = None) -> Report:
    """Checks a source (`conll:DIR`: each of its languages and splits) or a config file (each split that a run reads).

    Args:
        what: a source URI, or the path of a `.yaml`.
        overrides: `section.key=value`, as for every command.
        encoder: whose tokenizer cuts words; a config's own, if not given. Without one, nothing is said of sub-words.

    Raises:
        MetaprimeError: the source or the config itself is not there or makes no sense.
    """
    known: LabelSet | None
    if what.endswith((".yaml", ".yml")):
        config = load_config(what, overrides)
        parts, known = _parts_of_config(config), LabelSet(config.data.labels, config.data.label_map)
        name = encoder or config.encoder.name
    else:
        config = load_config(None, overrides)
        parts, known = _parts_of_source(what, config), _asked_labels(config, overrides)
        name = encoder or ""
    subwords = None
    if name and name.partition(":")[0] != "synthetic":
        subwords = Subwords(load_tokenizer(name), cache_folder() if config.run.cache else None)
    read: dict[str, list[Sentence]] = {}
    splits: dict[str, dict[str, Any]] = {}
    findings: list[Finding] = []
    for part in parts:
        try:
            reading = examine(part.source, part.language, part.split, known, config.data.invalid, config.data.tag_names)
        except MetaprimeError as error:
            findings.append(Finding("fatal", "unreadable", part.name, 0, str(error)))
            continue
        read[part.name] = reading.sentences
        splits[part.name] = {"role": part.role, **tagging_audit.facts(reading.sentences), "problems": _counted(reading)}
        findings += _of_one(part, reading, config, () if known is None else known.types)
        if subwords and reading.sentences:
            found, more = _of_subwords(part, reading.sentences, subwords, config)
            splits[part.name] |= found
            findings += more
    findings += audit.overlaps(read, _apart(parts))
    findings.sort(key=lambda finding: (SEVERITIES.index(finding.severity), finding.where, finding.kind))
    return Report(splits, findings)


def _parts_of_source(source: str, config: Config) -> list[Part]:
    data, shape = config.data, config.episodes
    needed = shape.support * config.inner.steps + shape.query
    drawn = {data.train_split: (needed, "one episode")}
    splits = dict.fromkeys((data.train_split, data.validation_split, data.test_split))
    return [
        Part("source", source, language, split, *drawn.get(split, (1, "anything")))
        for language in languages(source)
        for split in splits
    ]


def _parts_of_config(config: Config) -> list[Part]:
    data, shape = config.data, config.episodes
    needed, shots = shape.support * config.inner.steps + shape.query, max(config.transfer.shots)
    parts = [Part("priming", data.source, name, data.train_split, needed, "one episode") for name in data.languages]
    for role, names, source, scored in (
        ("held out", data.validation_languages, data.validation_source, data.validation_split),
        ("target", data.target_languages, data.target_source, data.test_split),
    ):
        for name in names:
            place = source or data.source
            parts.append(Part(role, place, name, data.train_split, shots, "transfer.shots"))
            parts.append(Part(role, place, name, scored, 1, "scoring"))
    return parts


def _asked_labels(config: Config, overrides: Sequence[str]) -> LabelSet | None:
    """Of a bare source every type is taken as it is, unless the command names labels."""
    if any(text.startswith("data.label") for text in overrides):
        return LabelSet(config.data.labels, config.data.label_map)
    return None


def _of_one(part: Part, reading: Reading, config: Config, types: Sequence[str]) -> list[Finding]:
    """Findings within one split."""
    findings = []
    for kind, problems in _by_kind(reading).items():
        text = f"{len(problems)} x {kind}, with data.invalid: {config.data.invalid}; e.g. {problems[0].text}"
        if lost := sum(problem.dropped for problem in problems):
            text = f"{lost} sentences are left out: {text}"
        origins = tuple(problem.origin for problem in problems[: audit.EXAMPLES])
        severity: Severity = "note" if kind in NOTICES else "problem"
        findings.append(Finding(severity, kind, part.name, len(problems), text, origins))
    sentences = reading.sentences
    return [
        *findings,
        *audit.duplicates(part.name, sentences),
        *audit.too_small(part.name, sentences, part.needed, part.key),
        *tagging_audit.unlabelled(part.name, sentences, types),
    ]


def _of_subwords(
    part: Part, sentences: Sequence[Sentence], subwords: Subwords, config: Config
) -> tuple[dict[str, Any], list[Finding]]:
    """What the tokenizer makes of one split: sub-words per word, and what it cannot see."""
    pieces = subwords.of(sentences)
    total, words = sum(len(one.ids) for one in pieces), sum(len(one.lengths) for one in pieces)
    special = len(subwords.before) + len(subwords.after)
    read = Lengths(config.data.max_length, config.data.overlap, cut=config.data.long == "truncate")
    types = sorted({tag[2:] for sentence in sentences for tag in sentence.tags if tag != "O"})
    rows = encode(sentences, subwords, LabelSet(tuple(types or ["PER"])), read)
    unknown = sum(int((one.ids == subwords.tokenizer.unk_token_id).sum()) for one in pieces)
    found = {
        "subwords_per_word": total / words,
        "longest_subwords": max(len(one.ids) for one in pieces) + special,
        "unknown_subwords": unknown / total if total else 0.0,
    }
    return found, tagging_audit.lengths(part.name, rows, read, total, unknown)


def _apart(parts: Sequence[Part]) -> list[tuple[str, str]]:
    """What is primed on must not be scored."""
    primed = [part.name for part in parts if part.role == "priming"]
    scored = [part.name for part in parts if part.role in ("held out", "target") and part.key == "scoring"]
    return [(one, other) for one in primed for other in scored]


def _by_kind(reading: Reading) -> dict[str, list[Any]]:
    kinds: dict[str, list[Any]] = {}
    for problem in reading.problems:
        kinds.setdefault(problem.kind, []).append(problem)
    return kinds


def _counted(reading: Reading) -> dict[str, int]:
    return dict(Counter(problem.kind for problem in reading.problems))


HEADER = ("split", "sentences", "words", "in entities", "entities", "scripts", "sub-words / word")


def table_rows(report: Report) -> list[list[str]]:
    """One row of a terminal table for each split."""
    rows = []
    for name, found in report.splits.items():
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in found["entities"].items())
        letters = ", ".join(f"{script} {share:.0%}" for script, share in list(found["scripts"].items())[:2])
        ratio = f"{found['subwords_per_word']:.2f}" if "subwords_per_word" in found else "-"
        sizes = (f"{found['sentences']:,}", f"{found['words']:,}", f"{found['inside_entities']:.1%}")
        rows.append([name, *sizes, kinds, letters, ratio])
    return rows


def finding_lines(report: Report) -> list[str]:
    """One line for each finding, the gravest first, and one with their numbers."""
    lines = []
    for found in report.findings:
        places = f" ({'; '.join(found.examples)})" if found.examples else ""
        lines.append(f"{found.severity}: {found.where}: {found.text}{places}")
    numbers = Counter(found.severity for found in report.findings)
    summary = ", ".join(f"{numbers[severity]} {severity}" for severity in SEVERITIES)
    return [*lines, f"{len(report.splits)} splits read: {summary}"]
