"""Episodes as a pure function of their address, and what support and query may never share."""

from __future__ import annotations

import itertools
import unicodedata
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from metaprime.data.episodes import EpisodeSampler, EpisodeShape, sample
from metaprime.data.rows import Example, Row, Window, collate
from metaprime.types import IGNORE, Batch, Episodes, MetaprimeError

SHAPE = EpisodeShape(episodes=4, support=2, steps=3, query=4, tau=0.0)
PARTS = [*(slice(first, first + 2) for first in (0, 2, 4)), slice(6, 10)]


def row(text: str, number: int) -> Row:
    """A row of 2 to 6 sub-words whose first one is its number."""
    words = tuple(text.split())
    length = 2 + number % 5
    ids = (number, *range(1, length))
    window = Window(ids, tuple(range(len(words))), tuple(range(len(words))), (0,) * length)
    return Row((window,), Example(words, ("O",) * len(words), text))


def first_id(row: Row) -> int:
    return row.windows[0].input_ids[0]


def pool(language: str, size: int, first: int = 0) -> list[Row]:
    return [row(f"{language} sentence {number}", 1000 + first + number) for number in range(size)]


def pools(**sizes: int) -> dict[str, list[Row]]:
    return {name: pool(name, size, 100 * place) for place, (name, size) in enumerate(sizes.items())}


def padded(rows: list[Row] | tuple[Row, ...]) -> Batch:
    return collate(list(rows), 0)


def whole(episodes: EpisodeSampler, step: int) -> Episodes:
    return episodes.meta_batch(step, range(episodes.shape.episodes), padded)


def numbers(batch: Batch) -> list[list[int]]:
    """The numbers of the rows in a (T, B, L) batch."""
    return [[int(ids[0]) for ids in episode] for episode in batch["input_ids"]]


def same(one: Episodes, other: Episodes) -> bool:
    batches = zip((*one.support, one.query), (*other.support, other.query), strict=True)
    return one.languages == other.languages and all(torch.equal(a[k], b[k]) for a, b in batches for k in a)


def test_the_same_address_gives_the_same_episode_whatever_was_drawn_before() -> None:
    made = pools(aa=20, bb=30, cc=15)
    forward, backward = EpisodeSampler(made, SHAPE, 7), EpisodeSampler(made, SHAPE, 7)
    ahead = [whole(forward, step) for step in range(6)]
    for step in reversed(range(6)):
        assert same(whole(backward, step), ahead[step])
        assert same(whole(backward, step), ahead[step])


def test_step_index_and_seed_each_make_another_episode() -> None:
    made = pools(aa=40)
    episodes = EpisodeSampler(made, SHAPE, 7)
    drawn = {
        address: tuple(first_id(r) for r in episodes.draw(*address)[1])
        for address in [(step, index) for step in range(5) for index in range(5)]
    }
    assert len(set(drawn.values())) == len(drawn)
    assert EpisodeSampler(made, SHAPE, 8).draw(0, 0) != episodes.draw(0, 0)


def test_the_order_of_languages_in_the_config_does_not_matter() -> None:
    made = pools(aa=20, bb=30, cc=15)
    turned = dict(reversed(made.items()))
    for step in range(8):
        assert same(whole(EpisodeSampler(made, SHAPE, 0), step), whole(EpisodeSampler(turned, SHAPE, 0), step))


@pytest.mark.parametrize("indices", [(0,), (3,), (0, 2), (1, 3), (2, 0)])
def test_a_process_that_holds_a_slice_sees_the_same_episodes(indices: tuple[int, ...]) -> None:
    episodes = EpisodeSampler(pools(aa=20, bb=30), SHAPE, 3)
    for step in range(5):
        everything, mine = whole(episodes, step), episodes.meta_batch(step, indices, padded)
        assert mine.indices == indices
        assert mine.total == everything.total == 4
        assert list(mine.languages) == [everything.languages[index] for index in indices]
        assert episodes.languages_of(step) == list(everything.languages)
        for ours, theirs in zip((*mine.support, mine.query), (*everything.support, everything.query), strict=True):
            for place, index in enumerate(indices):
                for key in ours:
                    length = ours[key].shape[-1]
                    assert torch.equal(ours[key][place], theirs[key][index][:, :length])
                assert not theirs["attention_mask"][index][:, ours["input_ids"].shape[-1] :].any()


def test_shapes_and_no_sentence_twice() -> None:
    episodes = EpisodeSampler(pools(aa=10), SHAPE, 0)  # exactly as many as one episode takes
    for step in range(10):
        batch = whole(episodes, step)
        assert len(batch.support) == 3
        assert all(tensors["labels"].shape[:2] == (4, 2) for tensors in batch.support)
        assert batch.query["labels"].shape[:2] == (4, 4)
        for place in range(4):
            found = [n for tensors in (*batch.support, batch.query) for n in numbers(tensors)[place]]
            assert sorted(found) == list(range(1000, 1010))


def test_the_same_support_at_every_step() -> None:
    shape = replace(SHAPE, same=True)
    assert shape.sentences == 6
    batch = whole(EpisodeSampler(pools(aa=6), shape, 0), 3)
    first, *others = batch.support
    assert len(others) == 2
    assert all(torch.equal(tensors[name], first[name]) for tensors in others for name in first)
    for place in range(4):
        assert sorted(numbers(first)[place] + numbers(batch.query)[place]) == list(range(1000, 1006))
    with pytest.raises(
        MetaprimeError, match=r"one episode takes 6 \(support 2 x 1 \(inner.support: same\) \+ query 4\)"
    ):
        EpisodeSampler(pools(aa=5), shape, 0)


def test_padded_to_the_longest_of_each_batch_and_no_further() -> None:
    episodes = EpisodeSampler(pools(aa=30, bb=30), SHAPE, 1)
    lengths = set()
    for step in range(10):
        batch = whole(episodes, step)
        drawn = [episodes.draw(step, index)[1] for index in range(4)]
        for tensors, part in zip((*batch.support, batch.query), PARTS, strict=True):
            rows = [r for one in drawn for r in one[part]]
            assert tensors["input_ids"].shape[-1] == max(len(r.windows[0].input_ids) for r in rows)
            assert int(tensors["attention_mask"].sum()) == sum(len(r.windows[0].input_ids) for r in rows)
            lengths.add(tensors["input_ids"].shape[-1])
    assert len(lengths) > 1


def test_support_sentences_share_an_inner_step_by_length_in_an_order_the_episodes_share() -> None:
    episodes = EpisodeSampler(pools(aa=30, bb=30), SHAPE, 1)
    orders = set()
    for step in range(10):
        drawn = [episodes.draw(step, index)[1] for index in range(4)]
        lengths_TNB = np.array([[[len(r.windows[0].input_ids) for r in one[p]] for p in PARTS[:-1]] for one in drawn])
        fitting = [order for order in itertools.permutations(range(3)) if _fits(lengths_TNB, order)]
        assert fitting
        orders.add(fitting[0])
    assert len(orders) > 2  # no inner step always has the long ones


def test_a_length_band_keeps_the_distribution_of_sentences_and_puts_like_by_like() -> None:
    """Over many meta-steps every sentence comes as often; within one their lengths are neighbours."""
    shape = replace(SHAPE, bands=2)
    banded, free = (EpisodeSampler(pools(aa=40, bb=40), own, 1) for own in (shape, SHAPE))
    counts: Counter[int] = Counter()
    spreads: dict[str, list[int]] = {"banded": [], "free": []}
    for step in range(400):
        for name, episodes in (("banded", banded), ("free", free)):
            rows = [row for index in range(4) for row in episodes.draw(step, index)[1]]
            lengths = [len(row.windows[0].input_ids) for row in rows]
            spreads[name].append(max(lengths) - min(lengths))
            counts.update([first_id(row) for row in rows] if name == "banded" else [])
    assert len(counts) == 80
    drawn = np.array(list(counts.values()))
    expected = 400 * 4 * SHAPE.sentences / 80
    assert abs(drawn / expected - 1).max() < 0.25
    assert np.mean(spreads["banded"]) < 0.7 * np.mean(spreads["free"])


def test_a_band_that_is_too_small_names_the_language() -> None:
    with pytest.raises(MetaprimeError, match=r"'aa' has 9 different sentences in the smallest of 2 .*length_bands"):
        EpisodeSampler(pools(aa=19, bb=60), replace(SHAPE, bands=2), 1)


def _fits(lengths_TNB: np.ndarray, order: tuple[int, ...]) -> bool:
    """Whether the steps of all episodes, taken in this order, have ever longer sentences."""
    taken = lengths_TNB[:, list(order)]
    return bool((taken[:, :-1].max(-1) <= taken[:, 1:].min(-1)).all())


def test_long_sentences_are_drawn_whole_and_neighbours_filled_up() -> None:
    more = [row("aa more", number).windows[0] for number in (3, 4)]
    rows = [
        replace(short, windows=(*short.windows, *more[: number % 3])) for number, short in enumerate(pool("aa", 30))
    ]  # one to three windows each, of which the first is not always the longest
    episodes = EpisodeSampler({"aa": rows}, SHAPE, 2)
    filled = 0
    for step in range(5):
        batch = whole(episodes, step)
        drawn = [episodes.draw(step, index)[1] for index in range(4)]
        for tensors, part, lengths in zip((*batch.support, batch.query), PARTS, batch.lengths, strict=True):
            assert tensors["attention_mask"].sum(-1).amax(-1).tolist() == list(lengths)
            counts = [sum(len(r.windows) for r in one[part]) for one in drawn]
            assert tensors["labels"].shape[:2] == (4, max(counts))
            for place, one in enumerate(drawn):
                ids = [w.input_ids[0] for r in one[part] for w in r.windows]
                assert tensors["input_ids"][place, : counts[place], 0].tolist() == ids
                rest = {name: tensor[place, counts[place] :] for name, tensor in tensors.items()}
                assert (rest["labels"] == IGNORE).all()
                assert (rest["attention_mask"].sum(-1) == 1).all()  # attention over nothing would be not a number
                filled += len(rest["labels"])
    assert filled > 0


def test_equal_texts_never_stand_on_both_sides() -> None:
    spellings = [
        str.lower,
        str.upper,
        str.title,
        lambda text: "".join(chr(ord(c) + 0xFEE0) if c != " " else c for c in text),
    ]
    rows = [
        row(write(f"word no{chr(97 + n)}"), 1000 + 10 * n + k) for n in range(10) for k, write in enumerate(spellings)
    ]
    episodes = EpisodeSampler({"aa": rows}, SHAPE, 0)
    served = Counter()
    for step in range(40):
        _, drawn = episodes.draw(step, 0)
        texts = [unicodedata.normalize("NFKC", " ".join(r.example.words)).casefold() for r in drawn]
        assert len(set(texts)) == len(texts) == 10
        served.update(first_id(r) % 10 for r in drawn)
    assert set(served) == {0, 1, 2, 3}  # each spelling gets its turn


def test_duplicates_do_not_count_as_sentences() -> None:
    rows = [row(f"word {n // 2}", 1000 + n) for n in range(18)]  # nine different ones
    with pytest.raises(MetaprimeError, match="'aa' has 9 different sentences, one episode takes 10"):
        EpisodeSampler({"aa": rows}, SHAPE, 0)


SIZES = {"aa": 20, "bb": 40, "cc": 140}


def chi_square(tau: float, expected: dict[str, float]) -> float:
    shape = EpisodeShape(episodes=4, support=2, steps=3, query=4, tau=tau)
    episodes = EpisodeSampler(pools(**SIZES), shape, 0)
    counts = Counter(language for step in range(750) for language in episodes.languages_of(step))
    total = sum(expected.values())
    return float(np.sum([(counts[name] - 3000 * p / total) ** 2 / (3000 * p / total) for name, p in expected.items()]))


@pytest.mark.parametrize(
    ("tau", "expected"),
    [
        (0.0, dict.fromkeys(SIZES, 1.0)),
        (1.0, {name: float(size) for name, size in SIZES.items()}),
        (0.5, {name: size**0.5 for name, size in SIZES.items()}),
    ],
)
def test_languages_are_drawn_by_size_to_the_tau(tau: float, expected: dict[str, float]) -> None:
    assert chi_square(tau, expected) < 13.8  # p = 0.001 with two degrees of freedom
    assert chi_square((tau + 0.5) % 1.5, expected) > 100  # and another tau is told apart


def test_too_few_sentences_names_language_and_numbers() -> None:
    with pytest.raises(MetaprimeError) as error:
        EpisodeSampler(pools(aa=20, bb=9), SHAPE, 0)
    message = str(error.value)
    for part in ("'bb'", "9 different sentences", "takes 10", "support 2 x inner.steps 3 + query 4", "episodes.query"):
        assert part in message


def test_no_language_is_refused() -> None:
    with pytest.raises(MetaprimeError, match=r"data\.languages is empty"):
        EpisodeSampler({}, SHAPE, 0)


def test_a_k_shot_sample_nests_and_is_a_function_of_seed_and_language() -> None:
    rows = pool("aa", 50)
    thirty = sample(rows, 30, 5, "aa")
    assert sample(rows, 10, 5, "aa") == thirty[:10]
    assert len({first_id(r) for r in thirty}) == 30
    assert sample(rows, 30, 5, "aa") == thirty
    assert sample(rows, 30, 6, "aa") != thirty
    assert sample(rows, 30, 5, "bb") != thirty
    assert sorted(first_id(r) for r in sample(rows, 50, 0, "aa")) == list(range(1000, 1050))


def test_more_shots_than_sentences_is_refused() -> None:
    with pytest.raises(MetaprimeError, match=r"'aa' has 50 training sentences, transfer\.shots asks for 51"):
        sample(pool("aa", 50), 51, 0, "aa")


def test_lengths_are_those_of_the_tensors() -> None:
    episodes = EpisodeSampler(pools(qaa=40, qab=40), SHAPE, 0)
    batch = whole(episodes, 3)
    for tensors, lengths in zip((*batch.support, batch.query), batch.lengths, strict=True):
        assert tensors["attention_mask"].sum(-1).amax(-1).tolist() == list(lengths)


def test_one_support_batch_for_every_step_has_its_lengths_for_every_step() -> None:
    batch = whole(EpisodeSampler(pools(qaa=40), replace(SHAPE, same=True), 0), 0)
    assert len(batch.lengths) == SHAPE.steps + 1
    assert len(set(batch.lengths[:-1])) == 1
