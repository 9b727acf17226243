"""What was found in a corpus: the sentences, what is wrong with the others, and which of it a run may go on with.

`task.invalid`: `repair` mends what has one clear reading and refuses the rest, `drop` leaves out every sentence that
has anything invalid, `error` refuses all of it. A scheme other than IOB2 is a fact about a file, no mistake in it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from metaprime.data.rows import Example
from metaprime.types import MetaprimeError

Policy = Literal["repair", "drop", "error"]
ProblemKind = Literal[
    "other scheme",
    "row without tokens",
    "invalid tag sequence",
    "unknown tag",
    "unmapped type",
    "malformed line",
    "column count",
    "not UTF-8",
    "not JSON",
    "missing value",
    "lengths differ",
]
NOTICES: frozenset[ProblemKind] = frozenset({"other scheme", "row without tokens"})
"""Kinds that are told and never refused."""

EXAMPLES_SHOWN = 5
"""Places a message names."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing found in a corpus.

    Attributes:
        kind: what it is.
        origin: `FILE:LINE`, `FILE:row N`, or the file.
        text: what stands there and what to do about it.
        dropped: whether a sentence was left out for it. Of several in one sentence only the first says so.
    """

    kind: ProblemKind
    origin: str
    text: str
    dropped: bool = False


@dataclass(frozen=True)
class Reading:
    """What one split gave: its sentences, the problems in the order they were found, and what to call the split."""

    sentences: list[Example] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    place: str = ""

    def add(self, found: Example | Problem) -> None:
        """Takes what came of one sentence."""
        if isinstance(found, Example):
            self.sentences.append(found)
        else:
            self.problems.append(found)


def drops(kind: ProblemKind, invalid: Policy) -> bool:
    """Whether a sentence with such a problem is left out."""
    return kind not in NOTICES and (invalid != "repair" or kind != "invalid tag sequence")


def dropping(problems: Sequence[Problem], invalid: Policy) -> list[Problem]:
    """The problems of one sentence, the first that costs it marked as such."""
    first = next((number for number, problem in enumerate(problems) if drops(problem.kind, invalid)), None)
    return [replace(problem, dropped=number == first) for number, problem in enumerate(problems)]


def settle(reading: Reading, invalid: Policy) -> list[Example]:
    """The sentences, with a notice of what was repaired or dropped.

    Raises:
        MetaprimeError: there are problems that the policy does not allow, or no sentence is left.
    """
    grave = [problem for problem in reading.problems if problem.kind not in NOTICES]
    refused = [] if invalid == "drop" else [problem for problem in grave if drops(problem.kind, invalid)]
    if refused:
        lost = sum(problem.dropped for problem in refused)
        raise MetaprimeError(
            f"{reading.place}: {_counted(refused)}, refused by task.invalid: {invalid}\n"
            + "\n".join(_places(refused))
            + f"\ncorrect them, or set task.invalid: drop to leave {lost} of {_total(reading)} sentences out"
        )
    for kind in sorted(NOTICES):
        told = [problem for problem in reading.problems if problem.kind == kind]
        if told:
            log.warning("%s: %s", told[0].origin, told[0].text + (f" ({len(told)} in all)" if len(told) > 1 else ""))
    if grave:
        lost = sum(problem.dropped for problem in grave)
        done = f"{lost} of {_total(reading)} sentences dropped" if invalid == "drop" else "repaired"
        log.warning("%s: %s: %s; %s", reading.place, _counted(grave), done, "; ".join(_places(grave)))
    if not reading.sentences:
        remedy = "correct the file" if grave else "give a file with at least one sentence"
        raise MetaprimeError(f"{reading.place}: no sentence {'left' if grave else 'in it'}; {remedy}")
    return reading.sentences


def shown(text: str, longest: int = 80) -> str:
    """A piece of a file in quotes, cut to what fits a message."""
    return repr(text) if len(text) <= longest else f"{text[:longest]!r}..."


def _total(reading: Reading) -> int:
    return len(reading.sentences) + sum(problem.dropped for problem in reading.problems)


def _counted(problems: Sequence[Problem]) -> str:
    counts = Counter(problem.kind for problem in problems)
    return ", ".join(f"{count} x {kind}" for kind, count in counts.most_common())


def _places(problems: Sequence[Problem]) -> list[str]:
    """The first place of each different problem, so that one that fills the file does not hide the others."""
    counts = Counter(problem.text for problem in problems)
    first = {problem.text: problem.origin for problem in reversed(problems)}
    lines = []
    for text in list(counts)[:EXAMPLES_SHOWN]:
        again = f" (and {counts[text] - 1} more like it)" if counts[text] > 1 else ""
        lines.append(f"{first[text]}: {text}{again}")
    if len(counts) > EXAMPLES_SHOWN:
        lines.append(f"and {sum(counts.values()) - sum(list(counts.values())[:EXAMPLES_SHOWN])} more")
    return lines
