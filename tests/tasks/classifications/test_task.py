"""Several classifications: a text's loss, answers and gradients are those of its own task's classes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast

from metaprime.data.rows import Example, Lengths
from metaprime.data.subwords import Subwords
from metaprime.rng import torch_stream
from metaprime.tasks.classification.settings import ClassificationConfig
from metaprime.tasks.classifications.settings import ClassificationsConfig
from metaprime.tasks.classifications.task import END, FIRST, build, loss
from metaprime.tasks.task import Task, Text
from metaprime.types import IGNORE, MetaprimeError

CONFIG = ClassificationsConfig(
    tasks={
        "sst": ClassificationConfig(labels=("bad", "good")),
        "mrpc": ClassificationConfig(labels=("other", "same", "unclear"), pair="second"),
    }
)


@pytest.fixture
def task(toy_tokenizer: PreTrainedTokenizerFast) -> Task:
    return build(CONFIG, Text(Subwords(toy_tokenizer), Lengths(32)))


def test_a_text_has_the_classes_of_its_task(task: Task) -> None:
    rows = task.encode([Example(("mali", "bono"), "mrpc: same"), Example(("mali",), "sst: good")])
    batch = task.collate(rows)
    assert batch["labels"].tolist() == [[1], [4]]
    assert (batch[FIRST].tolist(), batch[END].tolist()) == ([[0], [3]], [[3], [5]])
    logits = torch.randn(2, 5, generator=torch_stream(0, "logits"), requires_grad=True)
    found = task.loss(logits, batch)
    expected = cross_entropy(logits[:1, :3], torch.tensor([1])) + cross_entropy(logits[1:, 3:], torch.tensor([1]))
    torch.testing.assert_close(found, expected / 2)
    # What other tasks' classes are given is read and moved by none of it.
    (moved,) = torch.autograd.grad(found, logits)
    assert moved[0, 3:].tolist() == [0, 0]
    assert moved[1, :3].tolist() == [0, 0, 0]
    assert (moved[0, :3] != 0).all()


def test_windows_that_fill_up_a_batch_count_for_nothing() -> None:
    logits = torch.randn(2, 5, generator=torch_stream(1, "logits"), requires_grad=True)
    filled = {"labels": torch.tensor([[1], [IGNORE]]), FIRST: torch.tensor([[0], [0]]), END: torch.tensor([[3], [0]])}
    one = {name: value[:1] for name, value in filled.items()}
    torch.testing.assert_close(loss(logits, filled), loss(logits[:1], one))
    none = {name: value[1:] for name, value in filled.items()}
    assert loss(logits[1:], none).item() == 0
    (moved,) = torch.autograd.grad(loss(logits, filled), logits)
    assert moved.isfinite().all()


def test_the_answer_is_the_likeliest_of_the_own_classes(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = task.encode([Example(("mali", "bono"), "mrpc: same"), Example(("mali",), "sst: good")])
    scores = torch.tensor([[0.0, 1.0, 2.0, 9.0, 8.0], [9.0, 9.0, 9.0, 1.0, 0.0]])
    place = "metaprime.tasks.classification.task.outputs_of"
    monkeypatch.setattr(place, lambda *parts: iter([([1, 0], scores.flip(0))]))
    model: Any = SimpleNamespace()
    assert task.predict(model, {}, rows) == ["mrpc: unclear", "sst: bad"]


def test_texts_of_no_known_task_are_refused(task: Task, toy_tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(
        MetaprimeError, match="this head has the classes of mrpc, sst: predict with the folder of a transfer"
    ):
        task.example(["mali", "bono"])
    # A trial of a model may have any words.
    assert len(task.example(["any", "number", "of", "words"]).words) == 2
    own = build(CONFIG.for_language("sst"), Text(Subwords(toy_tokenizer), Lengths(32)))
    assert own.example(["mali bono"]).gold == "sst: bad"
    assert own.labels == task.labels
