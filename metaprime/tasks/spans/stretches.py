"""Finds spans in texts: stretches of the words between spaces, written `first:end`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from metaprime.data.reading import shown

APOSTROPHE = re.compile(r"(?<=\w)['’]\w*$")
"""The end of a word from its apostrophe, such as the 's of a possessive."""

Span = tuple[int, int]
"""Number of the first word, and of the last one plus 1."""


def stretch(words: Sequence[str], first: object, wanted: Sequence[str]) -> Span | str:
    """Returns the span that begins at a word, or what is wrong with it.

    Args:
        words: those of the text.
        first: number of the span's first word, from 0, as a corpus has it.
        wanted: words of the span, which must stand there, but for case, marks and a possessive's ending.

    Example: `stretch(["Ada's", "cat"], 0, ["Ada"])` is `(0, 1)`.
    """
    # The cells of a CSV file are text.
    if isinstance(first, str) and first.strip().isdecimal():
        first = int(first)
    if isinstance(first, bool) or not isinstance(first, int):
        return f"{shown(str(first))} is no number of a word; count words from 0"
    end = first + len(wanted)
    found = words[first:end] if first >= 0 else []
    if bare_words(found) != bare_words(wanted):
        there = shown(" ".join(found)) if found else "nothing"
        return (
            f"{shown(' '.join(wanted))} does not stand at word {first} of {len(words)}, but {there}; correct the number"
        )
    return first, end


def bare_words(words: Sequence[str]) -> list[str]:
    """Returns words without case, and without marks and what follows an apostrophe: `bare_words(["Ada's", "cat."])`."""
    bare = []
    for word in words:
        name = APOSTROPHE.sub("", word)
        letters = "".join(letter for letter in name if unicodedata.category(letter)[0] != "P")
        bare.append((letters or word).casefold())
    return bare


def span_text(span: Span) -> str:
    """Returns a span as an example holds it: `span_text((3, 5))` is `"3:5"`."""
    return f"{span[0]}:{span[1]}"


def span_of(text: str) -> Span:
    """Returns a span that an example holds: `span_of("3:5")` is `(3, 5)`."""
    first, _, end = text.partition(":")
    return int(first), int(end)
