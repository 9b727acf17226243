"""Shares out places among classes so that every beginning of them has all classes, in the proportion of the whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


def places(sizes: Mapping[str, int], count: int) -> list[str]:
    """Returns the class of each place: one of each, the largest first, then in proportion to their sizes.

    The next place is of the class with the largest size / (2 taken + 1), the method of Sainte-Lague for seats
    of a parliament. Fewer places are a beginning of more, and no class has more places than members.

    Args:
        sizes: number of members by class.
        count: number of places; there are fewer if there are fewer members.

    Example: `places({"a": 4, "b": 2}, 3)` is `["a", "b", "a"]`.
    """
    order = sorted((name for name, size in sizes.items() if size), key=lambda name: (-sizes[name], name))
    taken = dict.fromkeys(order, 0)
    given = order[:count]
    for name in given:
        taken[name] += 1
    while len(given) < count:
        left = [name for name in order if taken[name] < sizes[name]]
        if not left:
            break
        # The first of equals, as `order` has them.
        name = max(left, key=lambda name: sizes[name] / (2 * taken[name] + 1))
        given.append(name)
        taken[name] += 1
    return given


def grouped(members: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    """Groups members, in order, by the key that stands before each: `grouped([("a", 1), ("a", 2)])` is `{"a": [1, 2]}`.

    Args:
        members: pairs of a key and a member.
    """
    groups: dict[str, list[T]] = {}
    for key, member in members:
        groups.setdefault(key, []).append(member)
    return groups
