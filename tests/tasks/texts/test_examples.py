"""Examples: as many texts as a task reads, and answers that are shuffled by seed and language."""

from __future__ import annotations

from metaprime.data.rows import Example
from metaprime.tasks.texts.examples import shared_out, shuffled


def test_classes_are_shuffled_among_texts_by_seed_and_language() -> None:
    texts = [Example((f"t{number}",), f"c{number}") for number in range(20)]
    found = shuffled(texts, 0, "de")
    assert sorted(one.gold for one in found) == sorted(one.gold for one in texts)
    assert [one.words for one in found] == [one.words for one in texts]
    assert found == shuffled(texts, 0, "de")
    assert found not in (texts, shuffled(texts, 1, "de"), shuffled(texts, 0, "fr"))


def test_any_words_give_as_many_texts_as_a_task_reads() -> None:
    assert shared_out(["a", "b", "c"], 1) == ("a b c",)
    assert shared_out(["a b", "c"], 2) == ("a b", "c")
    assert shared_out(["a", "b", "c"], 2) == ("a", "b c")
    assert shared_out(["a"], 3) == ("a", "a", "a")
