"""Every beginning of a stratified order has all classes, in the proportion of the whole."""

from __future__ import annotations

from collections import Counter

import pytest

from metaprime.data.strata import by_stratum, in_proportion


@pytest.mark.parametrize("sizes", [(50, 30, 20), (97, 2, 1), (10, 10, 10), (1, 1, 98), (7,)])
def test_beginnings_are_in_proportion(sizes: tuple[int, ...]) -> None:
    strata = {f"c{number}": [(number, place) for place in range(size)] for number, size in enumerate(sizes)}
    whole = in_proportion(strata, sum(sizes) + 5)
    assert sorted(whole) == sorted(member for members in strata.values() for member in members)
    for count in range(1, sum(sizes) + 1):
        chosen = in_proportion(strata, count)
        assert chosen == whole[:count]
        found = Counter(number for number, _ in chosen)
        assert len(found) == min(count, len(sizes))
        # The members of a stratum come in their order.
        assert all([place for own, place in chosen if own == number] == list(range(found[number])) for number in found)
        if count >= len(sizes):
            for number, size in enumerate(sizes):
                # One of each comes first, and no stratum is more than one seat from its share besides.
                assert abs(found[number] - count * size / sum(sizes)) < len(sizes)


def test_the_share_is_that_of_the_whole_where_it_divides() -> None:
    strata = {"a": list(range(60)), "b": list(range(30)), "c": list(range(10))}
    own = by_stratum([(n, k) for n, v in strata.items() for k in v], [n for n, v in strata.items() for _ in v])
    assert Counter(name for name, _ in in_proportion(own, 50)) == {"a": 30, "b": 15, "c": 5}


def test_an_empty_stratum_and_no_member() -> None:
    assert in_proportion({"a": [], "b": [1]}, 3) == [1]
    assert in_proportion({}, 2) == in_proportion({"a": [1]}, 0) == []
    assert by_stratum([], []) == {}


@pytest.mark.parametrize("sizes", [(101, 53, 29), (67, 61, 59), (199, 23, 11)])
def test_it_is_the_method_of_sainte_lague(sizes: tuple[int, ...]) -> None:
    # The seats go to the largest of all quotients size / 1, size / 3, size / 5 ...; of primes no two are equal.
    quotients = sorted(((size / (2 * k + 1), n) for n, size in enumerate(sizes) for k in range(40)), reverse=True)
    strata = {n: [n] * size for n, size in enumerate(sizes)}
    assert Counter(in_proportion(strata, 30)) == Counter(n for _, n in quotients[:30])
