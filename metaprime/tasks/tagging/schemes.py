"""Tagging schemes: which one a file is in, and IOB2 for all of them.

    IOB2   B-X opens every entity, I-X continues it                    what everything here is turned into
    IOB1   I-X opens an entity; B-X only where the one before has the same type and ends just there
    IO     I-X throughout: entities of one type that touch are one entity
    BIOES  and its relatives BILOU, BMES, IOE: S and U are single words; E and L end an entity; M is inside

The rule is the same for all: B, S and U open an entity; I, M, E and L continue one of their own type that has not
ended, and open one where there is none. Only what that is called differs. In a file where no B-, S- or U- stands
except directly behind its own type, a continuing prefix that opens is the scheme itself (IOB1, IO, IOE). In any other
it is an invalid sequence: `I-PER` after `O`, or after `B-LOC`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

OPENING, CONTINUING, ENDING = "BSU", "IMEL", "SUEL"
TAG = re.compile(rf"([{OPENING}{CONTINUING}])-(.+)", re.DOTALL)


class Scheme(NamedTuple):
    """What a file's tags are in, and whether continuing prefixes that open an entity belong to it."""

    name: str
    opens_inside: bool


def scheme(tagged: Iterable[Sequence[str]]) -> Scheme:
    """The scheme of a file, by the tags of all its sentences."""
    prefixes: set[str] = set()
    opened, apart = 0, False
    for tags in tagged:
        before = ""
        for tag in tags:
            prefix, name = parts(tag) or ("O", "")
            prefixes.add(prefix)
            apart = apart or (prefix in OPENING and name != before)
            before = name
        opened += len(repair(tags)[1])
    prefixes -= {"O"}
    inside = opened > 0 and not apart
    if prefixes <= {"B", "I"}:
        return Scheme(("IOB1" if "B" in prefixes else "IO") if inside else "IOB2", inside)
    return Scheme(f"a scheme with the prefixes {' '.join(sorted(prefixes))}", inside)


def repair(tags: Sequence[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """IOB2 of the tags of any scheme, and the words whose prefix continues an entity that is not there.

    What is no tag stays as it is and ends an entity.
    """
    if set(tags) <= {"O"}:  # as most are
        return tuple(tags), ()
    mended, opened = [], []
    running = ""  # type of the entity that the next word may continue
    for word, tag in enumerate(tags):
        prefix, name = parts(tag) or ("", "")
        if not name:
            mended.append(tag)
            running = ""
            continue
        continues = prefix in CONTINUING and name == running
        if prefix in CONTINUING and not continues:
            opened.append(word)
        mended.append(f"{'I' if continues else 'B'}-{name}")
        running = "" if prefix in ENDING else name
    return tuple(mended), tuple(opened)


@lru_cache(maxsize=4096)
def parts(tag: str) -> tuple[str, str] | None:
    """(prefix, type) of a tag, ("O", "") of O, None of what is no tag in any scheme."""
    if tag == "O":
        return "O", ""
    match = TAG.fullmatch(tag)
    return (match[1], match[2]) if match else None
