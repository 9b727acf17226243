"""Orders examples so that every beginning of the order has all classes, in the proportion of the whole."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def in_proportion(strata: Mapping[Hashable, Sequence[T]], count: int) -> list[T]:
    """Takes members of several strata in turn: one of each, the largest first, then in proportion to their sizes.

    The next one is of the stratum with the largest size / (2 taken + 1), the method of Sainte-Lague for seats
    of a parliament. Fewer members are a beginning of more.

    Args:
        strata: members by stratum, in the order in which they are taken.
        count: largest number of members.

    Example: `in_proportion({"a": [1, 2, 3, 4], "b": [8, 9]}, 3)` is `[1, 8, 2]`.
    """
    sizes = {name: len(members) for name, members in strata.items()}
    order = sorted((name for name, size in sizes.items() if size), key=lambda name: (-sizes[name], str(name)))
    taken = dict.fromkeys(order, 0)
    chosen: list[T] = []

    def take(name: Hashable) -> None:
        """Takes the next member of a stratum."""
        chosen.append(strata[name][taken[name]])
        taken[name] += 1

    for name in order[:count]:
        take(name)
    while len(chosen) < count:
        left = [name for name in order if taken[name] < sizes[name]]
        if not left:
            break
        # The first of equals, as `order` has them.
        take(max(left, key=lambda name: sizes[name] / (2 * taken[name] + 1)))
    return chosen


def by_stratum(members: Sequence[T], names: Sequence[Hashable]) -> dict[Hashable, list[T]]:
    """Groups members, in order, by the names of their strata: `by_stratum([1, 2, 3], ["a", "b", "a"])["a"]` is `[1, 3]`.

    Args:
        members: in any order.
        names: stratum of each.
    """
    strata: dict[Hashable, list[T]] = {}
    for member, name in zip(members, names, strict=True):
        strata.setdefault(name, []).append(member)
    return strata
