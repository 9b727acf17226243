"""Fine-tuning: what moves, on which sentences, and when it stops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from toy_config import Parts, started_at

from metaprime.config.sections import TransferConfig
from metaprime.data.rows import Row
from metaprime.models.encoder import weights_hash
from metaprime.models.task_model import TaskModel, functional_loss
from metaprime.packing import NEARLY_FULL
from metaprime.tasks import Task
from metaprime.tasks.task import Scores
from metaprime.transfers import finetune
from metaprime.transfers.finetune import FineTuned, fine_tune
from metaprime.types import Batch, MetaprimeError, Params


def run(
    parts: Parts,
    rows: Sequence[Row],
    lr: float = 1e-2,
    task: Task | None = None,
    language: str = "qaa",
    count: bool = False,
    **settings: Any,
) -> FineTuned:
    context = parts.context(TransferConfig(**{"steps": 6, "batch": 4, **settings}))
    context = replace(context, task=task or parts.task)
    return fine_tune(context, started_at(parts.start, rows, 3, language), lr, count=count)


def seen(parts: Parts) -> tuple[Task, list[list[Row]], list[Row]]:
    """The task, watched: training batches in order, and the rows that were predicted."""
    batches: list[list[Row]] = []
    predicted: list[Row] = []

    def collate(rows: Sequence[Row]) -> Batch:
        batches.append(list(rows))
        return parts.task.collate(rows)

    def predict(model: TaskModel, values: Params, rows: Sequence[Row]) -> list[Any]:
        predicted.extend(rows)
        return parts.task.predict(model, values, rows)

    return replace(parts.task, collate=collate, predict=predict), batches, predicted


def test_theta_stays_and_adapter_and_head_move(parts: Parts) -> None:
    everything = {name: value.detach().clone() for name, value in parts.model.named_parameters()}
    frozen = weights_hash(parts.state.backbone)
    tuned = run(parts, parts.rows[:8])
    assert weights_hash(parts.state.backbone) == frozen
    # Values are returned, never written into the model.
    assert all(torch.equal(value, everything[name]) for name, value in parts.model.named_parameters())
    assert tuned.values.keys() == parts.start.keys()
    assert all(not torch.equal(value, everything[name]) for name, value in tuned.values.items())
    assert not any(value.requires_grad for value in tuned.values.values())


def test_full_fine_tuning_moves_theta_by_value(parts: Parts) -> None:
    start = {**parts.start, **parts.state.backbone}
    before = weights_hash(parts.state.backbone)
    context = parts.context(TransferConfig(steps=3, batch=4))
    tuned = fine_tune(context, started_at(start, parts.rows[:8], 0), 1e-3)
    assert weights_hash(parts.state.backbone) == before
    assert weights_hash({name: tuned.values[name] for name in parts.state.backbone}) != before


@pytest.mark.parametrize("padded", ["", "by this test"], ids=["packed", "padded"])
def test_full_fine_tuning_costs_what_it_does_by_hand(parts: Parts, padded: str) -> None:
    rows, encoder = parts.rows[:6], parts.model.backbone.config
    start = {**parts.start, **parts.state.backbone}
    mask = parts.task.collate(rows)["attention_mask"]
    assert mask.sum() < NEARLY_FULL * mask.numel()
    positions = mask.numel() if padded else int(mask.sum())
    model = parts.model.variant(padded=padded)
    context = replace(parts.context(TransferConfig(steps=1, batch=6)), model=model)
    context = replace(context, loss=functional_loss(model, parts.task.loss))
    tuned = fine_tune(context, started_at(start, rows, 0), 1e-3, count=True)
    wide, inner, layers = encoder.hidden_size, encoder.intermediate_size, encoder.num_hidden_layers
    # One adapter in each layer, down and up.
    adapter = 2 * wide * parts.config.peft.bottleneck
    weights = positions * layers * (4 * wide * wide + 2 * wide * inner + adapter)
    # The head reads padded states.
    weights += mask.numel() * wide * len(parts.task.labels)
    # Attention pads sentences this short. The pooler reads the first position of each row, and trains nothing.
    attention = layers * mask.numel() * mask.shape[1] * wide
    pooler = (6 if padded else 1) * wide * wide
    # A matrix product costs as much again for its weights' gradient and for its inputs'. Fused attention is two, then five.
    assert tuned.flops == 2 * (3 * weights + 7 * attention + pooler)


def test_counting_is_asked_for_and_changes_no_bit(parts: Parts) -> None:
    rows = parts.rows[:4]
    one, other = (run(parts, rows, count=True, steps=steps) for steps in (3, 6))
    assert one.flops is not None
    # Every batch holds the same sentences.
    assert other.flops == pytest.approx(2 * one.flops)
    silent = run(parts, rows)
    assert silent.flops is None
    assert all(torch.equal(value, other.values[name]) for name, value in silent.values.items())


def test_the_loss_falls(parts: Parts) -> None:
    losses = run(parts, parts.rows[:8], lr=3e-2, steps=40, batch=8).losses
    assert len(losses) == 40
    assert sum(losses[-5:]) / 5 < 0.5 * losses[0]


def test_every_epoch_sees_every_sentence_once(parts: Parts) -> None:
    task, batches, evaluated = seen(parts)
    rows = parts.rows[:10]
    run(parts, rows, task=task, steps=5, batch=4)  # twenty sentences: two epochs across five batches
    assert [len(batch) for batch in batches] == [4] * 5
    flat = [row.example.origin for batch in batches for row in batch]
    for epoch in (flat[:10], flat[10:]):
        assert Counter(epoch) == Counter(row.example.origin for row in rows)
    assert flat[:10] != flat[10:]
    assert not evaluated


def test_a_batch_is_never_larger_than_the_sentences(parts: Parts) -> None:
    task, batches, _ = seen(parts)
    run(parts, parts.rows[:3], task=task, steps=2, batch=16)
    assert [len(batch) for batch in batches] == [3, 3]


def test_the_same_seed_gives_the_same_values_to_the_bit(parts: Parts) -> None:
    one, other = run(parts, parts.rows[:8]), run(parts, parts.rows[:8])
    assert one.losses == other.losses
    assert all(torch.equal(value, other.values[name]) for name, value in one.values.items())


@pytest.mark.parametrize("stop", ["fixed", "development"])
def test_each_language_has_its_own_order_and_development_split(parts: Parts, stop: str) -> None:
    orders, aside = [], []
    for language in ("qaa", "qaf", "qaa"):
        task, batches, evaluated = seen(parts)
        run(
            parts,
            parts.rows[:12],
            task=task,
            language=language,
            stop=stop,
            development_share=0.5,
            evaluate_every=6,
        )
        orders.append([row.example.origin for batch in batches for row in batch])
        aside.append({row.example.origin for row in evaluated})
    assert orders[0] == orders[2] != orders[1]
    assert aside[0] == aside[2]
    assert (aside[0] != aside[1]) == (stop == "development")


def test_the_development_split_is_taken_out_of_the_k(parts: Parts) -> None:
    task, batches, evaluated = seen(parts)
    rows = parts.rows[:10]
    settings = {"stop": "development", "development_share": 0.3, "evaluate_every": 3, "batch": 7}
    run(parts, rows, task=task, steps=6, **settings)
    trained = {row.example.origin for batch in batches for row in batch}
    looked_at = Counter(row.example.origin for row in evaluated)
    assert len(trained) == 7
    assert set(looked_at.values()) == {2}  # at steps 3 and 6
    assert trained | set(looked_at) == {row.example.origin for row in rows}
    assert not trained & set(looked_at)


def test_the_values_that_score_best_on_the_development_split_are_kept(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, found = iter([10.0, 30.0, 30.0, 20.0]), []

    def scored(model: object, task: object, values: Params, rows: object) -> tuple[Scores, list[list[str]]]:
        found.append({name: value.detach().clone() for name, value in values.items()})
        return Scores(next(scores), {}), []

    monkeypatch.setattr(finetune, "evaluate", scored)
    tuned = run(parts, parts.rows[:10], steps=7, stop="development", evaluate_every=2)
    assert len(found) == 4  # after steps 2, 4, 6 and the last
    assert tuned.steps == 4  # the first of the two best
    assert len(tuned.losses) == 7
    assert all(torch.equal(value, found[1][name]) for name, value in tuned.values.items())
    assert any(not torch.equal(value, found[3][name]) for name, value in tuned.values.items())


def test_a_loss_that_is_not_finite_names_language_step_and_remedy(parts: Parts) -> None:
    with pytest.raises(
        MetaprimeError, match=r"language 'qaa': the loss is (nan|inf) at step \d; lower transfer\.lr \(1e\+30\)"
    ):
        run(parts, parts.rows[:8], lr=1e30)
