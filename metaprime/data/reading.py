"""Collects the sentences and problems of a split, and applies `task.invalid` to the problems.

`repair` corrects problems that have one clear reading and refuses the rest, `drop` leaves out every
sentence with a problem, `error` refuses every problem. A tagging scheme other than IOB2 is a
property of a file, not a problem.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from metaprime.data.rows import Example
from metaprime.types import MetaprimeError


class MissingSource(MetaprimeError):
    """The error of a source that does not exist."""


class MissingLanguage(MetaprimeError):
    """The error of a language that its source does not have."""


class MissingSplit(MetaprimeError):
    """The error of a split that its language does not have."""


Policy = Literal["repair", "drop", "error"]
ProblemKind = Literal[
    "other scheme",
    "row without tokens",
    "byte order mark",
    "chosen columns",
    "chosen sentences",
    "language prefix",
    "invalid tag sequence",
    "unknown tag",
    "unmapped type",
    "malformed line",
    "column count",
    "not UTF-8",
    "not in the encoding",
    "not text",
    "no blank line",
    "not JSON",
    "missing value",
    "lengths differ",
    "not a number",
    "out of range",
    "not a span",
]
NOTICES: frozenset[ProblemKind] = frozenset(
    {"other scheme", "row without tokens", "byte order mark", "chosen columns", "chosen sentences", "language prefix"}
)
"""Kinds that are logged and never refused."""

EXAMPLES_SHOWN = 5
"""Largest number of places in a message."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a corpus.

    Attributes:
        kind: category, by which problems are counted and a policy decides.
        origin: `FILE:LINE`, `FILE:row N`, or the file.
        text: the offending text and the remedy.
        dropped: True if a sentence was left out because of this problem; at most one problem of a
            sentence has it, so that the sum is the number of sentences.
    """

    kind: ProblemKind
    origin: str
    text: str
    dropped: bool = False


@dataclass(frozen=True)
class Reading:
    """Sentences and problems of one split.

    Attributes:
        sentences: valid sentences, in order.
        problems: in the order of the file.
        place: the file or source, for messages.
    """

    sentences: list[Example] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    place: str = ""

    def add(self, result: Example | Problem) -> None:
        """Appends a sentence, or the problem because of which it cannot be read."""
        if isinstance(result, Example):
            self.sentences.append(result)
        else:
            self.problems.append(result)


@dataclass(frozen=True)
class Format:
    """Facts about the files of a corpus that its owner states; what is not stated, a reader infers.

    Attributes:
        words: column of the words, by its number from 1 or its name; None: the reader finds it.
        tags: column of the tags, likewise.
        encoding: of text files without a byte order mark.
        sentences: ends of the sentences of a file with one word a line: `auto`, `blank_lines`, or
            the number of the column that numbers the sentences.
        spans: whether tags mark spans of words, such as entities; False: each word has a class.
    """

    words: int | str | None = None
    tags: int | str | None = None
    encoding: str = "utf-8"
    sentences: int | Literal["auto", "blank_lines"] = "auto"
    spans: bool = True


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table as it is.

    Attributes:
        origin: `FILE:line N` or `FILE:row N`.
        values: the row's values by column; what a file has no value for is None.
    """

    origin: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class TableRows:
    """Rows and problems of one split, for tasks over whole texts.

    Attributes:
        rows: in order.
        problems: of rows that could not be read.
        place: the file or source, for messages.
    """

    rows: list[TableRow] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    place: str = ""


def one_table(parts: Sequence[TableRows]) -> TableRows:
    """Returns the rows and problems of several files as those of one split: `one_table([one, other])`.

    Args:
        parts: of the files, in order; the place is that of the first.
    """
    rows = [row for part in parts for row in part.rows]
    return TableRows(rows, [problem for part in parts for problem in part.problems], parts[0].place)


def one_split(readings: Sequence[Reading]) -> Reading:
    """Returns the sentences and problems of several files as those of one split: `one_split([one, other])`.

    Args:
        readings: of the files, in order; the place is that of the first.
    """
    if len(readings) == 1:
        return readings[0]
    sentences = [sentence for reading in readings for sentence in reading.sentences]
    problems = [problem for reading in readings for problem in reading.problems]
    return Reading(sentences, problems, readings[0].place)


UNSTATED = Format()
"""The format of a corpus about which nothing is stated."""


@dataclass(frozen=True)
class Corpus:
    """Reader of one scheme.

    Attributes:
        read: root, language, split and format to a Reading with raw tags.
        languages: root to the languages of the source.
        find: root, language and split to the split's files, which are not read; without it, what a
            source lacks is found when it is read.
        records: root, language, split, columns by the key that names each, and format to rows; None:
            the corpus has no columns of whole texts.
    """

    read: Callable[[str, str, str, Format], Reading]
    languages: Callable[[str], list[str]]
    find: Callable[[str, str, str], Sequence[Path]] | None = None
    records: Callable[[str, str, str, Mapping[str, str], Format], TableRows] | None = None


def drops(kind: ProblemKind, invalid: Policy) -> bool:
    """Returns True if a policy drops sentences with a problem: `drops("unknown tag", "drop")`."""
    return kind not in NOTICES and (invalid != "repair" or kind != "invalid tag sequence")


def dropping(problems: Sequence[Problem], invalid: Policy) -> list[Problem]:
    """Returns the problems of one sentence; the first that drops it is marked as `dropped`.

    Example: `dropping([Problem("unknown tag", "x:1", "?")], "drop")[0].dropped` is True.
    """
    first = next((number for number, problem in enumerate(problems) if drops(problem.kind, invalid)), None)
    return [replace(problem, dropped=number == first) for number, problem in enumerate(problems)]


def settle(reading: Reading, invalid: Policy, logged: set[str] | None = None) -> list[Example]:
    """Returns the sentences of a split and logs what was repaired or dropped.

    Args:
        reading: sentences and problems.
        invalid: the policy.
        logged: notices that are not repeated, to which those of this split are added; None: all are
            logged.

    Raises:
        MetaprimeError: there are problems that the policy does not allow, or no sentence is left.

    Example: `settle(read_raw("conll:data", "de", "train"), "repair")`.
    """
    grave = [problem for problem in reading.problems if problem.kind not in NOTICES]
    # One error lists every refused problem.
    refused = [] if invalid == "drop" else [problem for problem in grave if drops(problem.kind, invalid)]
    if refused:
        lost = sum(problem.dropped for problem in refused)
        raise MetaprimeError(
            f"{reading.place}: {_counted(refused)}, refused by task.invalid: {invalid}\n"
            + "\n".join(_places(refused))
            + f"\ncorrect them, or set task.invalid: drop to leave {lost} of {_total(reading)} sentences out"
        )

    # One line for each notice, and one for all that was repaired or dropped.
    logged = set() if logged is None else logged
    notices = Counter(problem.text for problem in reading.problems if problem.kind in NOTICES)
    for problem in reading.problems:
        if problem.text in notices and problem.text not in logged:
            total = f" ({notices[problem.text]} in all)" if notices[problem.text] > 1 else ""
            log.warning("%s: %s", problem.origin, problem.text + total)
            logged.add(problem.text)
    if grave:
        lost = sum(problem.dropped for problem in grave)
        outcome = f"{lost} of {_total(reading)} sentences dropped" if invalid == "drop" else "repaired"
        log.warning("%s: %s: %s; %s", reading.place, _counted(grave), outcome, "; ".join(_places(grave)))
    if not reading.sentences:
        raise MetaprimeError(f"{reading.place}: no sentence left; correct the file") if grave else _empty(reading.place)
    return reading.sentences


def refuse_empty(files: Sequence[Path]) -> None:
    """Refuses a split whose files have no content, as `settle` would: `refuse_empty([Path("train.conll")])`.

    Raises:
        MetaprimeError: there are files, and none has a byte in it.
    """
    if files and not any(file.stat().st_size for file in files):
        raise _empty(str(files[0]))


def _empty(place: str) -> MetaprimeError:
    """Returns the error of a split without a sentence."""
    return MetaprimeError(f"{place}: no sentence in it; give a file with at least one sentence")


def shown(text: str, longest: int = 80) -> str:
    """Quotes a piece of a file and cuts it to a length that fits a message: `shown("a" * 100)`."""
    return repr(text) if len(text) <= longest else f"{text[:longest]!r}..."


def _total(reading: Reading) -> int:
    """Returns the number of sentences, dropped ones included."""
    return len(reading.sentences) + sum(problem.dropped for problem in reading.problems)


def _counted(problems: Sequence[Problem]) -> str:
    """Lists the kinds with their counts, the most frequent first."""
    counts = Counter(problem.kind for problem in problems)
    return ", ".join(f"{count} x {kind}" for kind, count in counts.most_common())


def _places(problems: Sequence[Problem]) -> list[str]:
    """Lists the first place of each different problem: a frequent one must not hide the others."""
    counts = Counter(problem.text for problem in problems)
    first = {problem.text: problem.origin for problem in reversed(problems)}
    lines = []
    for text in list(counts)[:EXAMPLES_SHOWN]:
        again = f" (and {counts[text] - 1} more like it)" if counts[text] > 1 else ""
        lines.append(f"{first[text]}: {text}{again}")
    if len(counts) > EXAMPLES_SHOWN:
        lines.append(f"and {sum(counts.values()) - sum(list(counts.values())[:EXAMPLES_SHOWN])} more")
    return lines
