"""When episodes are adapted one after another, and what is said then. With real encoders: tests/test_any_encoder.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from inner_loops import changed
from toy_config import Parts

from metaprime.build.model import build_model
from metaprime.meta import InnerLoop, Outcome, Way
from metaprime.models.encoder import load_encoder
from metaprime.models.task_model import TaskModel
from metaprime.peft import METHODS
from metaprime.priming.batching import SILENTLY_WRONG, choose_execution, two_episodes, why_not_together
from metaprime.priming.memory import Trial
from metaprime.types import Episodes, Loss, Params

INNER = InnerLoop(lr=0.1, moves=("adapter", "head"))


class Steps:
    """A meta-step that counts its calls, and raises what it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.seen: list[tuple[Params, Episodes, InnerLoop]] = []

    def __call__(self, loss: Loss, backbone: Params, start: Params, episodes: Episodes, inner: InnerLoop, /) -> Outcome:
        self.seen.append((start, episodes, inner))
        if self.error:
            raise self.error
        return Outcome({}, {}, {}, torch.zeros(2), torch.zeros(2, 2))


def trial(step: Steps) -> Trial:
    def loss(*given: Any) -> torch.Tensor:
        return torch.zeros(())

    return Trial(step, loss, {}, {"head.bias": torch.zeros(2, 7), "rates.0.head:bias": torch.zeros(2)})


def chosen(
    parts: Parts, step: Steps, inner: InnerLoop, model: TaskModel | None = None, shown: bool = True
) -> InnerLoop:
    return choose_execution(trial(step), model or parts.model, parts.task, parts.rows, inner, shown)


@pytest.mark.parametrize("way", [Way.ONE_PASS, Way.VMAP])
def test_what_a_trial_shows_to_go_together_stays_as_it_is(
    parts: Parts, caplog: pytest.LogCaptureFixture, way: Way
) -> None:
    step, inner = Steps(), changed(INNER, way=way, chunk=3)
    assert chosen(parts, step, inner) is inner
    assert len(step.seen) == 1
    assert not caplog.text


def test_what_is_asked_to_go_one_by_one_is_not_tried(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    step, inner = Steps(RuntimeError("vmap")), changed(INNER, way=Way.LOOP)
    assert chosen(parts, step, inner) is inner
    assert step.seen == []
    assert not caplog.text


@pytest.mark.parametrize("words", ["vmap: it looks like you're calling .item()", "Batching rule not implemented"])
def test_torchs_own_words_are_the_reason(parts: Parts, caplog: pytest.LogCaptureFixture, words: str) -> None:
    step, inner = Steps(RuntimeError(f"{words}. See the docs. And more")), changed(INNER, chunk=3)
    assert chosen(parts, step, inner, shown=False) == changed(inner, way=Way.LOOP)
    assert not caplog.text
    assert chosen(parts, step, inner) == changed(inner, way=Way.LOOP)
    assert caplog.messages == [
        f"BertModel cannot adapt episodes together ({words}): they are adapted one after another, as with "
        "inner.batched=false"
    ]


def test_another_error_is_raised(parts: Parts) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        chosen(parts, Steps(RuntimeError("out of memory")), INNER)


def test_a_method_that_draws_and_a_precision_without_a_rule_need_no_trial(
    parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = load_encoder(parts.config.encoder.name)
    noisy = build_model(encoder, parts.task, METHODS["pfeiffer"].config.model_validate({"dropout": 0.5}), parts.rows)
    narrow = parts.model.variant(autocast=True)
    step = Steps()
    assert chosen(parts, step, INNER, noisy).execution.way is Way.LOOP
    assert "peft.method pfeiffer draws in training" in caplog.text
    assert chosen(parts, step, changed(INNER, way=Way.VMAP), narrow).execution.way is Way.LOOP
    assert "no gradient of bfloat16 products under vmap" in caplog.text
    assert step.seen == []
    # Nothing is drawn without an inner loop, and one pass has no vmap in it.
    assert chosen(parts, step, changed(INNER, moves=()), noisy).execution.way is Way.VMAP
    assert chosen(parts, step, changed(INNER, way=Way.ONE_PASS), narrow).execution.way is Way.ONE_PASS
    assert len(step.seen) == 2


@pytest.mark.parametrize(
    ("moves", "second_order", "reason"),
    [
        (("backbone", "adapter", "head"), True, SILENTLY_WRONG),
        (("backbone", "adapter", "head"), False, ""),
        (("adapter", "head"), True, ""),
    ],
)
def test_a_derivative_that_would_be_wrong_without_an_error_is_known(
    parts: Parts, moves: tuple[str, ...], second_order: bool, reason: str
) -> None:
    step, inner = Steps(), changed(INNER, moves=moves, second_order=second_order)
    episodes = two_episodes(parts.task, parts.rows, parts.model)
    assert why_not_together(trial(step), episodes, inner) == reason
    assert len(step.seen) == (0 if reason else 1)


def test_the_trial_is_of_two_equal_episodes_of_one_inner_step(parts: Parts) -> None:
    episodes = two_episodes(parts.task, parts.rows, parts.model)
    expected = parts.task.collate(parts.rows[:2])
    assert (episodes.total, episodes.indices, len(episodes.support)) == (2, (0, 1), 1)
    for batch in (*episodes.support, episodes.query):
        assert batch.keys() == expected.keys()
        for name, tensor in batch.items():
            assert torch.equal(tensor[0], expected[name])
            assert torch.equal(tensor[1], expected[name])
