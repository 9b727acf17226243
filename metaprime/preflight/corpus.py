"""Checks corpora before a run (`metaprime data check`): reads, counts and compares their splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from metaprime.config.loading import load_config
from metaprime.config.sections import Config, DataConfig, EncoderConfig
from metaprime.data import audit
from metaprime.data.audit import SEVERITIES, Finding
from metaprime.data.readers.folders import listing
from metaprime.data.reading import NOTICES, Problem, Reading
from metaprime.data.rows import Example, Lengths
from metaprime.data.sources import languages
from metaprime.data.subwords import Subwords, cache_folder
from metaprime.models.folder import refuse_missing
from metaprime.tasks import audit_of
from metaprime.tasks.task import Audit, Text
from metaprime.types import MetaprimeError

if TYPE_CHECKING:
    from metaprime.models.spacing import Spaced

Progress = Callable[[str], None]
"""Shows a line of progress."""


@dataclass(frozen=True)
class Part:
    """One split to check.

    Attributes:
        role: use of the split: `source`, `priming`, `held out` or `target`.
        source: URI of its corpus.
        language: name of its language.
        split: name of the split.
        needed: number of different sentences that a run draws from it at once.
        key: config key or event that draws them, for messages.
    """

    role: str
    source: str
    language: str
    split: str
    needed: int
    key: str

    @property
    def name(self) -> str:
        """The name `<language>/<split>` in findings."""
        return f"{self.language}/{self.split}"


@dataclass(frozen=True)
class CorpusReport:
    """The facts about all splits, and the problems in them.

    Attributes:
        splits: facts about each split, by `<language>/<split>`.
        cells: table cells that depend on the task, by split and header.
        findings: findings, the most severe first.
    """

    splits: dict[str, dict[str, Any]]
    cells: dict[str, dict[str, str]]
    findings: list[Finding]

    @property
    def clean(self) -> bool:
        """True if all findings are notes."""
        return all(finding.severity == "note" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Returns the report as `--json` prints it."""
        return {"clean": self.clean, "splits": self.splits, "findings": [asdict(finding) for finding in self.findings]}

    @property
    def header(self) -> tuple[str, ...]:
        """The columns of a terminal table."""
        cells = next(iter(self.cells.values()), {})
        return ("split", "sentences", *cells, "scripts", "sub-words / word")

    def rows(self) -> list[list[str]]:
        """Returns one row of a terminal table for each split."""
        rows = []
        for name, facts in self.splits.items():
            scripts = ", ".join(f"{script} {share:.0%}" for script, share in list(facts["scripts"].items())[:2])
            ratio = f"{facts['subwords_per_word']:.2f}" if "subwords_per_word" in facts else "-"
            rows.append([name, f"{facts['sentences']:,}", *self.cells[name].values(), scripts, ratio])
        return rows

    def lines(self) -> list[str]:
        """Returns a line for each finding, the most severe first, and a summary of their numbers."""
        lines = []
        for finding in self.findings:
            places = f" ({'; '.join(finding.examples)})" if finding.examples else ""
            lines.append(f"{finding.severity}: {finding.where}: {finding.text}{places}")
        numbers = Counter(finding.severity for finding in self.findings)
        summary = ", ".join(f"{numbers[severity]} {severity}" for severity in SEVERITIES)
        return [*lines, f"{len(self.splits)} splits read: {summary}"]


def check_data(
    what: str, overrides: Sequence[str] = (), *, encoder: str | None = None, progress: Progress = lambda line: None
) -> CorpusReport:
    """Checks all languages and splits of a source, or the splits that a config's run reads.

    Args:
        what: a source URI such as `conll:DIR`, or the path of a config that ends in `.yaml`.
        overrides: changes such as `task.labels=[PER]`; values are YAML.
        encoder: folder or hub id of an encoder whose sub-words are counted; None: the config's, and for a
            source none.
        progress: called with a line before each split is read.

    Returns:
        Facts about the splits, and findings, errors of single splits among them.

    Raises:
        MetaprimeError: the source or the config is missing or invalid.

    Example:
        >>> report = metaprime.check_data(f"conll:{corpus}")
        >>> report.splits["qaa/train"]["sentences"], report.clean
        (3, False)
    """
    if what.endswith((".yaml", ".yml")):
        config, known = load_config(what, overrides), True
        read = _tokenizer(encoder or config.encoder.name, config.encoder)
        check = _Check(config, known, _text(read, config.data, config.run.cache), _findings(read))
        return check.report(check.parts_of_config(), progress)
    config = load_config(None, overrides)
    # All answers of a source are accepted, unless the command names some.
    known = bool(config.task.model_fields_set & {"labels", "label_map", "range", "preset"})
    if known or getattr(config.task, "labels", True):
        config.task.check()
    read = _tokenizer(encoder or "", config.encoder)
    check = _Check(config, known, _text(read, config.data, config.run.cache), _findings(read))
    return check.report(check.parts_of_source(what), progress)


def _tokenizer(name: str, settings: EncoderConfig) -> Spaced | None:
    """Reads the tokenizer of an encoder; None without an encoder or for the embedded one."""
    if not name or name.partition(":")[0] == "synthetic":
        return None
    refuse_missing(name)
    # Imported here: it loads torch and transformers.
    from metaprime.models.encoder import read_tokenizer

    return read_tokenizer(name, settings.trust_remote_code, settings.spacing)


def _findings(read: Spaced | None) -> list[Finding]:
    """Returns what is said of a tokenizer's spaces."""
    if read is None or read.notice is None:
        return []
    return [Finding("note" if read.right else "problem", "spacing", read.tokenizer.name_or_path, 1, read.notice)]


def _text(read: Spaced | None, data: DataConfig, cache: bool) -> Text | None:
    """Returns tokenizer and lengths of inputs; None without a tokenizer."""
    if read is None:
        return None
    subwords = Subwords(read.tokenizer, cache_folder() if cache else None)
    return Text(subwords, Lengths(data.max_length, data.overlap, cut=data.long == "truncate"))


@dataclass(frozen=True)
class _Check:
    """A check under one config.

    Attributes:
        config: config of the run.
        known: True restricts labels to those of the section `task`.
        text: tokenizer and lengths of inputs; None: sub-words are not counted.
        tokenizer: findings about the tokenizer.
    """

    config: Config
    known: bool
    text: Text | None
    tokenizer: list[Finding]

    @property
    def audit(self) -> Audit:
        """The task's own checks of corpora."""
        task = self.config.task
        checks = audit_of(task)
        if checks is None:
            raise MetaprimeError(f"metaprime data check: task.name {task.name!r} has no checks of its corpora")
        return checks

    @property
    def of_an_episode(self) -> int:
        """The number of different sentences in one episode."""
        return self.config.episodes.support * self.config.inner.steps + self.config.episodes.query

    def parts_of_source(self, source: str) -> list[Part]:
        """Returns the splits of all languages of a source."""
        data = self.config.data
        drawn = {data.train_split: (self.of_an_episode, "one episode")}
        splits = dict.fromkeys((data.train_split, data.validation_split, data.test_split))
        return [
            Part("source", source, language, split, *drawn.get(split, (1, "anything")))
            for language in languages(source)
            for split in splits
        ]

    def parts_of_config(self) -> list[Part]:
        """Returns the splits that a run reads."""
        data, needed, shots = self.config.data, self.of_an_episode, max(self.config.transfer.shots)
        parts = [Part("priming", data.source, name, data.train_split, needed, "one episode") for name in data.languages]
        # Held-out and target languages have K sentences to train on, and a split to score.
        for role, names, source, scored in (
            ("held out", data.validation_languages, data.validation_source, data.validation_split),
            ("target", data.target_languages, data.target_source, data.test_split),
        ):
            for name in names:
                corpus = source or data.source
                if shots:
                    parts.append(Part(role, corpus, name, data.train_split, shots, "transfer.shots"))
                parts.append(Part(role, corpus, name, scored, 1, "scoring"))
        return parts

    def report(self, parts: Sequence[Part], progress: Progress) -> CorpusReport:
        """Reads all parts, then compares their sentences."""
        read: dict[str, list[Example]] = {}
        splits: dict[str, dict[str, Any]] = {}
        findings = [*self.tokenizer]
        # A task without checks is an error of the config, not of each split.
        examine = self.audit.examine
        for number, part in enumerate(parts, start=1):
            progress(f"{number} of {len(parts)}: {part.name}")
            try:
                reading = examine(
                    part.source, part.language, part.split, self.config.task, self.known, self.config.data.form
                )
            except MetaprimeError as error:
                findings.append(Finding("fatal", "unreadable", part.name, 0, str(error)))
                continue
            read[part.name] = reading.sentences
            problems = dict(Counter(problem.kind for problem in reading.problems))
            splits[part.name] = {"role": part.role, **self.audit.facts(reading.sentences), "problems": problems}
            findings += self._within(part, reading)
            if self.text and reading.sentences:
                splits[part.name] |= _subword_facts(reading.sentences, self.text.subwords)
                findings += self.audit.lengths(part.name, reading.sentences, self.text)

        # Splits against each other.
        findings += audit.overlaps(read, _apart(parts))
        findings = _once(findings)
        findings.sort(key=lambda finding: (SEVERITIES.index(finding.severity), finding.where, finding.kind))
        return CorpusReport(splits, {name: self.audit.columns(facts) for name, facts in splits.items()}, findings)

    def _within(self, part: Part, reading: Reading) -> list[Finding]:
        """Returns the findings within one split."""
        findings = []
        for kind, problems in _by_kind(reading).items():
            origins = tuple(problem.origin for problem in problems[: audit.EXAMPLES])
            if kind in NOTICES:
                texts = dict.fromkeys(problem.text for problem in problems)
                findings += [Finding("note", kind, part.name, len(problems), text, origins) for text in texts]
                continue
            text = f"{len(problems)} x {kind}, with task.invalid: {self.config.task.invalid}; e.g. {problems[0].text}"
            if lost := sum(problem.dropped for problem in problems):
                verb = "are left out" if self.config.task.invalid == "drop" else "would be refused"
                text = f"{lost} sentences {verb}: {text}"
            findings.append(Finding("problem", kind, part.name, len(problems), text, origins))
        sentences = reading.sentences
        return [
            *findings,
            *audit.duplicates(part.name, sentences),
            *audit.too_small(part.name, sentences, part.needed, part.key),
            *self.audit.labels(part.name, sentences, self.config.task if self.known else None),
        ]


def _subword_facts(examples: Sequence[Example], subwords: Subwords) -> dict[str, Any]:
    """Returns the sub-words per word, longest sentence and share of unknown sub-words of one split."""
    pieces = subwords.of(examples)
    ids = np.concatenate([sentence.ids for sentence in pieces])
    # A whole text is one piece with spaces in it.
    total, words = len(ids), sum(len(word.split()) for example in examples for word in example.words)
    unknown = int((ids == subwords.tokenizer.unk_token_id).sum())
    longest = max(len(sentence.ids) for sentence in pieces)
    return {
        "subwords_per_word": total / words,
        "longest_subwords": longest + len(subwords.before) + len(subwords.after),
        "unknown_subwords": unknown / total if total else 0.0,
    }


def _once(findings: Sequence[Finding]) -> list[Finding]:
    """Joins notices about several splits in the same words into one finding."""
    merged: dict[tuple[str, str], list[Finding]] = {}
    for number, finding in enumerate(findings):
        key = (finding.kind, finding.text) if finding.kind in NOTICES else (finding.kind, str(number))
        merged.setdefault(key, []).append(finding)
    return [
        replace(
            same[0],
            where=listing([finding.where for finding in same], audit.EXAMPLES),
            count=sum(finding.count for finding in same),
            examples=tuple(origin for finding in same for origin in finding.examples)[: audit.EXAMPLES],
        )
        for same in merged.values()
    ]


def _apart(parts: Sequence[Part]) -> list[tuple[str, str]]:
    """Returns pairs of splits that must share no text: one of priming, and one that is scored."""
    primed = [part.name for part in parts if part.role == "priming"]
    scored = [part.name for part in parts if part.role in ("held out", "target") and part.key == "scoring"]
    return [(training, test) for training in primed for test in scored]


def _by_kind(reading: Reading) -> Mapping[str, list[Problem]]:
    """Returns kind -> problems of a split, in the order of its sentences."""
    kinds: dict[str, list[Problem]] = {}
    for problem in reading.problems:
        kinds.setdefault(problem.kind, []).append(problem)
    return kinds
