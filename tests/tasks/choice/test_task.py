"""Multiple choice: a window for each choice, and a loss over those of an example."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerFast

from metaprime.data.episodes import stacked
from metaprime.data.rows import Example, Lengths, blank, collate
from metaprime.data.subwords import Subwords
from metaprime.tasks.choice.settings import ChoiceConfig
from metaprime.tasks.choice.task import CHOICE, MULTIPLE_CHOICE, build, loss, to_json
from metaprime.tasks.task import Task, Text
from metaprime.types import IGNORE

CONFIG = ChoiceConfig(choices=("a", "b", "c"))
ASKED = ChoiceConfig(
    question="question", questions={"cause": "What was the cause?", "effect": "What happened?"}, text="premise"
)


def made(tokenizer: PreTrainedTokenizerFast, config: ChoiceConfig = CONFIG) -> Task:
    return build(config, Text(Subwords(tokenizer), Lengths(32)))


def test_the_loss_is_that_of_the_scores_of_each_example(toy_tokenizer: PreTrainedTokenizerFast) -> None:
    task = made(toy_tokenizer)
    examples = [Example(("mali bono", "dabi", "bono", "mali"), gold) for gold in ("c", "a", "b")]
    rows = task.encode(examples)
    assert [len(row.windows) for row in rows] == [3, 3, 3]
    batch = task.collate([*rows, blank(rows[0], 2)])
    scores = torch.randn(11, 1)
    expected = F.cross_entropy(scores[:9].view(3, 3), torch.tensor([2, 0, 1]))
    torch.testing.assert_close(loss(scores, batch), expected)
    assert batch[CHOICE][:, 0].tolist() == [0, 1, 2] * 3 + [0, 0]
    # Choices of one example only: others' scores make no difference.
    scores[9:] = 100
    torch.testing.assert_close(loss(scores, batch), expected)
    nothing = {**batch, "labels": torch.full_like(batch["labels"], IGNORE)}
    assert float(loss(scores, nothing)) == 0


def test_each_choice_is_a_pair_with_the_text(toy_tokenizer: PreTrainedTokenizerFast) -> None:
    task = made(toy_tokenizer)
    (row,) = task.encode([Example(("mali bono", "dabi", "bono", "mali"), "a")])
    for window, choice in zip(row.windows, ("dabi", "bono", "mali"), strict=True):
        assert list(window.input_ids) == toy_tokenizer("mali bono", choice)["input_ids"]
    assert stacked([[row], [row, row]], lambda rows: collate(rows, 0))["labels"].shape == (2, 6, 1)


def test_facts_and_lines() -> None:
    example = Example(("t", "x", "y"), "choice1")
    line = to_json(example, "choice2")
    assert line == {"text": "t", "choices": ["x", "y"], "gold": "choice1", "predicted": "choice2"}
    errors = MULTIPLE_CHOICE.errors
    assert errors
    assert errors.of_example(line) == (0, 1)
    assert [piece.text for piece in errors.show(line, "predicted")] == ["t", "x", "y"]
