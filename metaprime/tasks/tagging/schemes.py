"""Detects the tagging scheme of a file and converts tags of any scheme to IOB2.

    IOB2   B-X opens every entity, I-X continues it
    IOB1   I-X opens an entity; B-X only directly after an entity of the same type
    IO     I-X throughout: adjacent entities of one type are one entity
    BIOES  and its relatives BILOU, BMES, IOE: S and U are single words; E and L end an entity; M is
           inside

One rule reads all of them: B, S and U open an entity; I, M, E and L continue an entity of their
type that has not ended, and open one if there is none. The schemes differ in whether the latter is
valid. In a file where each B-, S- or U- directly follows its own type, it is part of the scheme
(IOB1, IO, IOE). In any other file it is an invalid sequence: `I-PER` after `O`, or after `B-LOC`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple

OPENING, CONTINUING, ENDING = "BSU", "IMEL", "SUEL"
"""Prefixes that open an entity, continue one, or end one."""

SchemeName = Literal["auto", "IOB2", "IOB1", "IO", "BIOES", "bare", "none"]
"""Values of `task.scheme`: found by a file's content, or what its owner states; `bare` tags have no prefix, and under
`none` they mark no spans, but each word has a class."""

TAG = re.compile(rf"([{OPENING}{CONTINUING}])-(.+)", re.DOTALL)


class Scheme(NamedTuple):
    """Tagging scheme of a file.

    Attributes:
        name: such as `IOB2`.
        opens_inside: True if a continuing prefix that opens an entity is valid.
    """

    name: str
    opens_inside: bool


def scheme(tagged: Iterable[Sequence[str]], stated: SchemeName = "auto") -> Scheme:
    """Detects the scheme of a file from the tags of all its sentences, unless it is stated.

    Args:
        tagged: the tags of each sentence.
        stated: `task.scheme`.

    Example: `scheme([["I-PER", "O"]])` is `Scheme("IO", True)`.
    """
    if stated != "auto":
        return Scheme(stated, stated in ("IOB1", "IO", "bare"))
    # All of it follows from which tags follow which.
    pairs: set[tuple[str, str]] = set()
    for tags in tagged:
        pairs.update(pairwise(("O", *tags)))
    prefixes = {(parts(tag) or ("O", ""))[0] for _, tag in pairs} - {"O"}
    # `apart`: some opening prefix does not directly follow a tag of its type.
    apart = any(_opens(tag) and _name(tag) != _name(before) for before, tag in pairs)
    opened = any(_continues(tag) and _name(tag) != _running(before) for before, tag in pairs)
    inside = opened and not apart
    if prefixes <= {"B", "I"}:
        return Scheme(("IOB1" if "B" in prefixes else "IO") if inside else "IOB2", inside)
    return Scheme(f"a scheme with the prefixes {' '.join(sorted(prefixes))}", inside)


def repair(tags: Sequence[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Converts the tags of a sentence to IOB2.

    Args:
        tags: of any scheme; text that is not a tag is kept and ends an entity.

    Returns:
        The IOB2 tags, and the numbers of words with a continuing prefix and no entity to continue.

    Example: `repair(["O", "I-PER"])` is `(("O", "B-PER"), (1,))`.
    """
    # Most sentences are in IOB2.
    if all(_stays(before, tag) for before, tag in set(pairwise(("O", *tags)))):
        return tuple(tags), ()
    converted, opened = [], []
    # Type of the entity that the next word may continue.
    running = ""
    for word, tag in enumerate(tags):
        prefix, name = parts(tag) or ("", "")
        if not name:
            converted.append(tag)
            running = ""
            continue
        continues = prefix in CONTINUING and name == running
        if prefix in CONTINUING and not continues:
            opened.append(word)
        converted.append(f"{'I' if continues else 'B'}-{name}")
        running = "" if prefix in ENDING else name
    return tuple(converted), tuple(opened)


@lru_cache(maxsize=4096)
def _stays(before: str, tag: str) -> bool:
    """Returns True for a tag that is right in IOB2 behind another one."""
    prefix, name = parts(tag) or ("", "")
    return prefix in ("O", "B") or (prefix == "I" and name == _running(before))


def _opens(tag: str) -> bool:
    """Returns True for a tag with an opening prefix."""
    return (parts(tag) or ("O", ""))[0] in OPENING


def _continues(tag: str) -> bool:
    """Returns True for a tag with a continuing prefix."""
    return (parts(tag) or ("O", ""))[0] in CONTINUING


def _name(tag: str) -> str:
    """Returns the type of a tag; of O and of what is no tag the empty string."""
    return (parts(tag) or ("O", ""))[1]


def _running(before: str) -> str:
    """Returns the type of the entity that the word behind a tag may continue."""
    prefix, name = parts(before) or ("O", "")
    return "" if prefix in ENDING else name


@lru_cache(maxsize=4096)
def parts(tag: str) -> tuple[str, str] | None:
    """Splits a tag: `parts("B-PER")` is `("B", "PER")`, `parts("O")` is `("O", "")`.

    Returns None for text that is not a tag in any scheme.
    """
    if tag == "O":
        return "O", ""
    match = TAG.fullmatch(tag)
    return (match[1], match[2]) if match else None
