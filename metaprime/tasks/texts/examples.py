"""Makes examples of texts: read from corpora, without a known answer, or with shuffled answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from metaprime.data.reading import Format, Reading, settle
from metaprime.data.rows import Example
from metaprime.rng import stream
from metaprime.tasks.task import TaskConfig


def reader(
    examine: Callable[[str, str, str, Any, bool, Format], Reading], config: TaskConfig, form: Format
) -> Callable[[str, str, str], list[Example]]:
    """Returns a function from source, language and split to examples, which logs what was dropped.

    Args:
        examine: reads a split with all its problems.
        config: columns, and the policy on problems.
        form: facts about the files that the section `data` states.

    Example: `reader(examine, config, UNSTATED)("jsonl:data", "en", "train")`.
    """
    # A notice is logged once for all files of a run that are alike.
    logged: set[str] = set()

    def read(source: str, language: str, split: str) -> list[Example]:
        """Reads one split and logs what was dropped."""
        return settle(examine(source, language, split, config, True, form), config.invalid, logged)

    return read


def shared_out(texts: Sequence[str], count: int) -> tuple[str, ...]:
    """Returns as many texts as a task reads: those given, or all their words in equal parts, for a trial of a model.

    Args:
        texts: of one example, at least one.
        count: texts that the task reads.

    Example: `shared_out(["a", "b", "c"], 2)` is `("a", "b c")`.
    """
    if len(texts) == count:
        return tuple(texts)
    edges = [place * len(texts) // count for place in range(count + 1)]
    cut = [" ".join(texts[first:end]) for first, end in pairwise(edges)]
    return tuple(text or texts[0] for text in cut)


def class_of_example(example: Example) -> str:
    """Returns the class of an example, by which episodes and samples are stratified: `class_of_example(example)`."""
    return str(example.gold)


def shuffled(examples: Sequence[Example], seed: int, language: str) -> list[Example]:
    """Permutes the answers of a language's examples among them, for a control.

    Args:
        examples: with their right answers.
        seed: of the permutation.
        language: also part of its address.

    Example: `shuffled(examples, 0, "de")`.
    """
    order = stream(seed, "shuffled classes", language).permutation(len(examples))
    return [replace(example, gold=examples[int(place)].gold) for example, place in zip(examples, order, strict=True)]
