"""Which episodes go together: the cheapest of all ways to cut them, within the limits, and no sub-word lost."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from inner_loops import changed

from metaprime.meta import InnerLoop, Way
from metaprime.meta.chunks import PASS, chunks
from metaprime.rng import stream
from metaprime.types import IGNORE, NOISE, Batch, Episodes

SENTENCES, SETTINGS = (3, 3, 5), InnerLoop(lr=0.1)
"""Of both support batches and of the query."""


def made(lengths: list[tuple[int, ...]]) -> Episodes:
    """Episodes of two support batches and a query, whose longest sentences are of these lengths."""
    columns = tuple(zip(*lengths, strict=True))

    def batch(own: tuple[int, ...], sentences: int) -> Batch:
        reach = torch.tensor([[[length], *(([length - 1],) * (sentences - 1))] for length in own])
        mask = (torch.arange(max(own)) < reach).long()
        keys = torch.arange(len(own) * sentences).view(len(own), sentences)
        labels = torch.where(mask.bool(), 1, IGNORE)
        return {"input_ids": 7 * mask, "attention_mask": mask, "labels": labels, NOISE: keys}

    count = len(lengths)
    *support, query = (batch(*each) for each in zip(columns, SENTENCES, strict=True))
    return Episodes(("qaa",) * count, tuple(range(count)), count, tuple(support), query, columns)


def passes(lengths: list[tuple[int, ...]], part: list[int]) -> list[int]:
    return [
        len(part) * sentences * max(lengths[place][column] for place in part)
        for column, sentences in enumerate(SENTENCES)
    ]


def cost(lengths: list[tuple[int, ...]], cuts: list[list[int]]) -> int:
    return sum(PASS + size for part in cuts for size in passes(lengths, part))


def every_cut(order: list[int]) -> Iterator[list[list[int]]]:
    """All ways to cut a sequence into neighbours."""
    for count in range(len(order)):
        for ends in itertools.combinations(range(1, len(order)), count):
            yield [order[first:last] for first, last in itertools.pairwise((0, *ends, len(order)))]


def drawn(seed: int) -> tuple[list[tuple[int, ...]], int, int | None, np.random.Generator]:
    """One to six episodes' lengths, a limit of sub-words, and one of episodes or none."""
    draw = stream(seed, "parts")
    longest = int(draw.integers(2, 91))
    lengths = [tuple(map(int, draw.integers(1, longest, 3))) for _ in range(int(draw.integers(1, 7)))]
    return lengths, int(draw.integers(1, 2000)), [None, 1, 2, 3, 4][int(draw.integers(5))], draw


@pytest.mark.parametrize("seed", range(60))
def test_no_cut_of_the_episodes_by_length_is_cheaper(seed: int) -> None:
    lengths, subwords, chunk, _ = drawn(seed)
    found = [places for places, _ in chunks(made(lengths), changed(SETTINGS, subwords=subwords, chunk=chunk))]
    assert sorted(place for part in found for place in part) == list(range(len(lengths)))
    for part in found:
        assert len(part) <= (chunk or len(lengths))
        assert len(part) == 1 or max(passes(lengths, part)) <= subwords
    order = sorted(range(len(lengths)), key=lambda place: sum(passes(lengths, [place])))
    allowed = (
        cost(lengths, cuts)
        for cuts in every_cut(order)
        if all(
            len(part) == 1 or (len(part) <= (chunk or 99) and max(passes(lengths, part)) <= subwords) for part in cuts
        )
    )
    assert cost(lengths, found) == min(allowed)


@pytest.mark.parametrize("seed", range(60))
def test_a_part_holds_its_episodes_and_no_padding_that_none_of_them_has(seed: int) -> None:
    lengths, subwords, chunk, draw = drawn(seed)
    limit = [None, subwords][int(draw.integers(2))]
    way = Way.VMAP if draw.integers(4) else Way.LOOP
    whole = made(lengths)
    seen = []
    for places, part in chunks(whole, changed(SETTINGS, subwords=limit, chunk=chunk, way=way)):
        seen += places
        assert part.indices == tuple(places)
        assert part.total == len(lengths)
        batches = (*whole.support, whole.query), (*part.support, part.query)
        for before, after, longest, sentences in zip(*batches, part.lengths, SENTENCES, strict=True):
            assert after["input_ids"].shape == (len(places), sentences, max(longest))
            assert torch.equal(after[NOISE], before[NOISE][places])
            for name in ("input_ids", "attention_mask", "labels"):
                assert torch.equal(after[name], before[name][places, :, : max(longest)])
            assert after["attention_mask"].sum() == before["attention_mask"][places].sum()
    assert sorted(seen) == list(range(len(lengths)))


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        pytest.param([(20, 20, 20)] * 4, [[0, 1, 2, 3]], id="alike: together"),
        pytest.param([(90, 90, 90), (20, 20, 20), (90, 90, 90), (20, 20, 20)], [[1, 3], [0, 2]], id="by length"),
        pytest.param([(20, 20, 20), (22, 22, 22), (24, 24, 24)], [[0, 1, 2]], id="padding for less than a pass"),
    ],
)
def test_which_go_together(lengths: list[tuple[int, ...]], expected: list[list[int]]) -> None:
    assert [places for places, _ in chunks(made(lengths), changed(SETTINGS, subwords=1024))] == expected


def test_without_a_limit_they_stay_in_order() -> None:
    """Nothing is sorted on a device that works at all of them at once, nor where memory says how many."""
    batch = made([(90, 90, 90), (20, 20, 20), (90, 90, 90)])
    assert [places for places, _ in chunks(batch, SETTINGS)] == [[0, 1, 2]]
    assert [places for places, _ in chunks(batch, changed(SETTINGS, chunk=2))] == [[0, 1], [2]]
    assert [places for places, _ in chunks(batch, changed(SETTINGS, way=Way.LOOP))] == [[0], [1], [2]]


def test_tensors_of_unknown_lengths_stay_as_they_are() -> None:
    batch = replace(made([(30, 20, 10), (10, 20, 30)]), lengths=())
    ((_, part),) = chunks(batch, SETTINGS)
    for before, after in zip((*batch.support, batch.query), (*part.support, part.query), strict=True):
        assert all(torch.equal(before[name], after[name]) for name in before)
