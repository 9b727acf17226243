"""Every beginning of the places that classes have is in the proportion of the whole, with all classes in it."""

from __future__ import annotations

from collections import Counter

import pytest

from metaprime.data.strata import grouped, places


def named(sizes: tuple[int, ...]) -> dict[str, int]:
    return {f"c{number}": size for number, size in enumerate(sizes)}


@pytest.mark.parametrize("sizes", [(50, 30, 20), (97, 2, 1), (10, 10, 10), (1, 1, 98), (7,)])
def test_beginnings_are_in_proportion(sizes: tuple[int, ...]) -> None:
    whole = places(named(sizes), sum(sizes) + 5)
    assert Counter(whole) == named(sizes)
    for count in range(1, sum(sizes) + 1):
        chosen = places(named(sizes), count)
        assert chosen == whole[:count]
        found = Counter(chosen)
        assert len(found) == min(count, len(sizes))
        if count >= len(sizes):
            for name, size in named(sizes).items():
                # One of each comes first; besides, none is more than one place from its share.
                assert abs(found[name] - count * size / sum(sizes)) < len(sizes)


def test_the_share_is_that_of_the_whole_where_it_divides() -> None:
    assert Counter(places({"a": 60, "b": 30, "c": 10}, 50)) == {"a": 30, "b": 15, "c": 5}


def test_a_class_without_members_and_no_place() -> None:
    assert places({"a": 0, "b": 1}, 3) == ["b"]
    assert places({}, 2) == places({"a": 1}, 0) == []


@pytest.mark.parametrize("sizes", [(101, 53, 29), (67, 61, 59), (199, 23, 11)])
def test_it_is_the_method_of_sainte_lague(sizes: tuple[int, ...]) -> None:
    # The places go to the largest of all quotients size / 1, size / 3, size / 5 ...; of primes no two are equal.
    quotients = sorted(
        ((size / (2 * k + 1), name) for name, size in named(sizes).items() for k in range(40)), reverse=True
    )
    assert Counter(places(named(sizes), 30)) == Counter(name for _, name in quotients[:30])


def test_members_keep_their_order() -> None:
    assert grouped([("a", 3), ("b", 1), ("a", 2)]) == {"a": [3, 2], "b": [1]}
    assert grouped([]) == {}
