"""Recognises how the tags of a file are written, and rewrites them as PREFIX-TYPE.

    b-per i-per o    lower case
    B_PER B/PER      another separator
    PER-B PER_I      the prefix behind the type
    B I O            no type: they stand for the one type of `task.labels`
    PER O            no prefix: `bare`, a run of words with one type is one entity

A file with a tag such as `B-PER` is written as it should be, whatever else is in it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from metaprime.tasks.tagging.schemes import SchemeName, parts

OUTSIDES = frozenset("Oo")
LETTER = "[BISMELUbismelu]"
SEPARATED = re.compile(rf"(?P<prefix>{LETTER})(?P<mark>[-_/:.|])(?P<type>.+)", re.DOTALL)
BEHIND = re.compile(r"(?P<type>.+)(?P<mark>[-_/:.|])(?P<prefix>[BISMELU])", re.DOTALL)
TYPELESS = re.compile(rf"(?P<prefix>{LETTER})(?P<mark>[-_]?)(?P<type>)")

NO_TYPE = "ENTITY"
"""Name of the one type where nothing names it."""


class Spelling(NamedTuple):
    """A way to write tags.

    Attributes:
        text: sentence about it, for a notice; empty: nothing was inferred.
        rewrite: maps a tag of the file to a tag such as `B-PER`.
        bare: True if tags have no prefix.
    """

    text: str
    rewrite: Callable[[str], str]
    bare: bool = False


def spelling(
    tagged: Iterable[Sequence[str]], scheme: SchemeName, types: Sequence[str] | None, known: Sequence[str] = ()
) -> Spelling | None:
    """Recognises how the tags of a file are written; None: as they should be, or in no known way.

    Args:
        tagged: the tags of each sentence.
        scheme: `task.scheme`; tags without a prefix are recognised under `auto` and `bare`.
        types: types of the run; None: every type is kept.
        known: other names of types, those that the run maps.

    Example: `spelling([["B_PER", "I_PER"]], "auto", None).rewrite("I_PER")` is `I-PER`.
    """
    counts = Counter(chain.from_iterable(tagged))
    inside = sorted(set(counts) - OUTSIDES)
    if scheme == "bare":
        return Spelling("", _bare, bare=True)
    if any(parts(tag) for tag in inside) or (not inside and "O" in counts) or not counts:
        return None
    # One odd tag among others is a mistake.
    if sum(counts[tag] for tag in inside) == 1:
        return None
    names = _alike([*(types or ()), *known])
    if not inside:
        return Spelling("tags are written o, read as O", lambda tag: "O")

    for pattern in (TYPELESS, SEPARATED, BEHIND):
        found = [match for tag in inside if (match := pattern.fullmatch(tag))]
        prefixes = {match["prefix"].upper() for match in found}
        marks = {match["mark"] for match in found}
        if len(found) < len(inside) or len(marks) > 1 or not prefixes & {"B", "I"}:
            continue
        if pattern is TYPELESS:
            return _without_type(inside[0], types)
        text = f"tags are written {inside[0]}, read as {_rewritten(inside[0], pattern, names)}"
        return Spelling(text, lambda tag, pattern=pattern: _rewritten(tag, pattern, names))  # type: ignore[misc]

    named = all(any(map(str.isalpha, tag)) for tag in inside)
    if scheme != "auto" or not named or not OUTSIDES & set(counts):
        return None
    text = f"tags such as {inside[0]} have no prefix: words in a row with one type are read as one entity"
    return Spelling(f"{text}; task.scheme names another scheme", _bare, bare=True)


def _bare(tag: str) -> str:
    """Returns a tag without a prefix with one."""
    return "O" if tag in OUTSIDES else f"I-{tag}"


def _without_type(example: str, types: Sequence[str] | None) -> Spelling | None:
    """Returns the spelling without types, for the one type of the run; None if it has several."""
    if types is not None and len(types) != 1:
        return None
    name = types[0] if types else NO_TYPE

    def rewrite(tag: str) -> str:
        return "O" if tag in OUTSIDES else f"{tag[0].upper()}-{name}"

    return Spelling(f"tags such as {example} have no type, and are read as those of {name}", rewrite)


def _rewritten(tag: str, pattern: re.Pattern[str], names: dict[str, str]) -> str:
    """Returns a tag with its prefix in front, a hyphen, and its type as the run writes it."""
    match = pattern.fullmatch(tag)
    if match is None:
        return "O" if tag in OUTSIDES else tag
    # Lower-case prefixes come with types in lower case.
    name = match["type"] if match["prefix"].isupper() else names.get(match["type"].casefold(), match["type"])
    return f"{match['prefix'].upper()}-{name}"


def _alike(names: Sequence[str]) -> dict[str, str]:
    """Maps the lower case of each name to it, if no other name has the same."""
    counts = Counter(name.casefold() for name in dict.fromkeys(names))
    return {name.casefold(): name for name in names if counts[name.casefold()] == 1}
