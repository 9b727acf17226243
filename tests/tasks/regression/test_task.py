"""Regression: targets in the unit of the head's answers, and their loss."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from metaprime.data.rows import Example, Lengths
from metaprime.data.subwords import Subwords
from metaprime.tasks.regression.settings import RegressionConfig
from metaprime.tasks.regression.task import TARGET, build, loss, to_json
from metaprime.tasks.task import Text
from metaprime.types import IGNORE

CONFIG = RegressionConfig(range=(0, 5))


def test_the_loss_is_the_mean_squared_error_of_texts_with_a_target() -> None:
    outputs, targets = torch.tensor([[1.0], [2.0], [9.0]]), torch.tensor([[0.0], [4.0], [0.0]])
    labels = torch.tensor([[0], [0], [IGNORE]])
    assert float(loss(outputs, {"labels": labels, TARGET: targets})) == (1 + 4) / 2
    assert float(loss(outputs, {"labels": torch.full((3, 1), IGNORE), TARGET: targets})) == 0


@pytest.mark.parametrize(("config", "targets"), [(CONFIG, [-1, 0.5, 1]), (RegressionConfig(), [0, 3.75, 5])])
def test_targets_are_in_the_unit_of_the_heads_answers(
    toy_tokenizer: PreTrainedTokenizerFast, config: RegressionConfig, targets: list[float]
) -> None:
    task = build(config, Text(Subwords(toy_tokenizer), Lengths(16)))
    batch = task.collate(task.encode([Example(("mali",), gold) for gold in (0.0, 3.75, 5.0)]))
    assert batch[TARGET].dtype == torch.float32
    assert batch[TARGET][:, 0].tolist() == targets
    assert batch["labels"].tolist() == [[0]] * 3
    assert task.example(["mali"]).gold == config.centre


def test_a_line_of_predictions() -> None:
    line = to_json(Example(("x", "y"), 2.5), 2.0)
    assert line == {"text": "x", "pair": "y", "gold": 2.5, "predicted": 2.0}
