"""Fine-tuning: what moves, on which sentences, and when it stops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from metaprime.config.sections import TransferConfig
from metaprime.data.rows import Row
from metaprime.models.encoder import weights_hash
from metaprime.transfers import finetune
from metaprime.transfers.evaluate import evaluate, f1
from metaprime.transfers.finetune import FineTuned, check_shares, fine_tune
from metaprime.transfers.start import start_values
from metaprime.types import Batch, MetaprimeError, Params

Parts = Any  # the fixture of this folder's conftest


def start_of(parts: Parts) -> Params:
    return {**parts.state.adapter, **parts.state.head}


def run(
    parts: Parts, rows: Sequence[Row], lr: float = 1e-2, task: Any = None, language: str = "qaa", **settings: Any
) -> FineTuned:
    chosen, backbone = TransferConfig(**{"steps": 6, "batch": 4, **settings}), parts.state.backbone
    return fine_tune(parts.model, task or parts.task, backbone, start_of(parts), rows, chosen, lr, 3, language)


def seen(parts: Parts) -> tuple[Any, list[list[Row]], list[Row]]:
    """The task with its collate watched: training batches in order, and the rows that were evaluated."""
    batches: list[list[Row]] = []
    evaluated: list[Row] = []

    def collate(rows: Sequence[Row]) -> Batch:
        if torch.is_grad_enabled():
            batches.append(list(rows))
        else:
            evaluated.extend(rows)
        return parts.task.collate(rows)

    return replace(parts.task, collate=collate), batches, evaluated


def test_theta_stays_and_adapter_and_head_move(parts: Parts) -> None:
    everything = {name: value.detach().clone() for name, value in parts.model.named_parameters()}
    frozen = weights_hash(parts.state.backbone)
    tuned = run(parts, parts.rows[:8])
    assert weights_hash(parts.state.backbone) == frozen
    # Values are returned, never written into the model.
    assert all(torch.equal(value, everything[name]) for name, value in parts.model.named_parameters())
    assert tuned.values.keys() == start_of(parts).keys()
    assert all(not torch.equal(value, everything[name]) for name, value in tuned.values.items())
    assert not any(value.requires_grad for value in tuned.values.values())


def test_full_fine_tuning_moves_theta_by_value(parts: Parts) -> None:
    start = {**start_of(parts), **parts.state.backbone}
    before = weights_hash(parts.state.backbone)
    settings = TransferConfig(steps=3, batch=4)
    tuned = fine_tune(parts.model, parts.task, parts.state.backbone, start, parts.rows[:8], settings, 1e-3, 0, "qaa")
    assert weights_hash(parts.state.backbone) == before
    assert weights_hash({name: tuned.values[name] for name in parts.state.backbone}) != before


def test_full_fine_tuning_costs_what_it_does_by_hand(parts: Parts) -> None:
    rows, encoder = parts.rows[:6], parts.model.backbone.config
    start = {**start_of(parts), **parts.state.backbone}
    settings, positions = TransferConfig(steps=1, batch=6), parts.task.collate(rows)["input_ids"].numel()
    tuned = fine_tune(parts.model, parts.task, parts.state.backbone, start, rows, settings, 1e-3, 0, "qaa", count=True)
    wide, inner, layers = encoder.hidden_size, encoder.intermediate_size, encoder.num_hidden_layers
    adapter = 2 * wide * parts.config.peft.bottleneck  # one in each layer, down and up
    weights = layers * (4 * wide * wide + 2 * wide * inner + adapter) + wide * len(parts.task.labels)
    attention = layers * positions * (positions // 6) * wide  # each position looks at all of its sentence's
    pooler = 6 * wide * wide  # runs and trains nothing
    # A matrix product costs as much again for its weights' gradient and for its inputs'. Fused attention is two, then five.
    assert tuned.flops == 2 * (3 * positions * weights + 7 * attention + pooler)


def test_counting_is_asked_for_and_changes_no_bit(parts: Parts) -> None:
    rows = parts.rows[:4]
    one, other = (
        fine_tune(
            parts.model, parts.task, parts.state.backbone, start_of(parts), rows, settings, 1e-2, 3, "qaa", count=True
        )
        for settings in (TransferConfig(steps=3, batch=4), TransferConfig(steps=6, batch=4))
    )
    assert one.flops is not None
    assert other.flops == pytest.approx(2 * one.flops)  # every batch holds the same sentences
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
    flat = [row.sentence.origin for batch in batches for row in batch]
    for epoch in (flat[:10], flat[10:]):
        assert Counter(epoch) == Counter(row.sentence.origin for row in rows)
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
        run(parts, parts.rows[:12], task=task, language=language, stop=stop, development_share=0.5, evaluate_every=6)
        orders.append([row.sentence.origin for batch in batches for row in batch])
        aside.append({row.sentence.origin for row in evaluated})
    assert orders[0] == orders[2] != orders[1]
    assert aside[0] == aside[2]
    assert (aside[0] != aside[1]) == (stop == "development")


def test_each_language_and_seed_has_its_own_fresh_start(parts: Parts) -> None:
    settings, primed = TransferConfig(), start_of(parts)
    one, again, other, later = (
        start_values(parts.model, parts.task, parts.state.backbone, settings, primed, parts.rows[:8], seed, language)
        for seed, language in ((0, "qaa"), (0, "qaa"), (0, "qaf"), (1, "qaa"))
    )
    drawn = [name for name, value in one.items() if value.count_nonzero()]
    for group in ("adapter.", "head."):
        assert [name for name in drawn if name.startswith(group)]
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(
        torch.equal(one[name], unlike[name]) for name in drawn if one[name].dim() > 1 for unlike in (other, later)
    )
    settings = TransferConfig(start_adapter="primed", start_head="primed")
    kept = start_values(parts.model, parts.task, parts.state.backbone, settings, primed, parts.rows[:8], 0, "qaf")
    assert all(torch.equal(kept[name], primed[name]) for name in primed)


def test_the_development_split_is_taken_out_of_the_k(parts: Parts) -> None:
    task, batches, evaluated = seen(parts)
    rows = parts.rows[:10]
    settings = {"stop": "development", "development_share": 0.3, "evaluate_every": 3, "batch": 7}
    run(parts, rows, task=task, steps=6, **settings)
    trained = {row.sentence.origin for batch in batches for row in batch}
    looked_at = Counter(row.sentence.origin for row in evaluated)
    assert len(trained) == 7
    assert set(looked_at.values()) == {2}  # at steps 3 and 6
    assert trained | set(looked_at) == {row.sentence.origin for row in rows}
    assert not trained & set(looked_at)


def test_the_values_that_score_best_on_the_development_split_are_kept(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, found = iter([10.0, 30.0, 30.0, 20.0]), []

    def scored(model: object, task: object, values: Params, rows: object) -> tuple[dict[str, Any], list[list[str]]]:
        found.append({name: value.detach().clone() for name, value in values.items()})
        return {"lenient": {"overall": {"f1": next(scores)}}}, []

    monkeypatch.setattr(finetune, "evaluate", scored)
    tuned = run(parts, parts.rows[:10], steps=7, stop="development", evaluate_every=2)
    assert len(found) == 4  # after steps 2, 4, 6 and the last
    assert tuned.steps == 4  # the first of the two best
    assert len(tuned.losses) == 7
    assert all(torch.equal(value, found[1][name]) for name, value in tuned.values.items())
    assert any(not torch.equal(value, found[3][name]) for name, value in tuned.values.items())


@pytest.mark.parametrize(("share", "shots"), [(0.2, (2,)), (0.9, (50, 4)), (0.01, (10,))])
def test_a_share_that_leaves_nothing_is_refused_before_training(share: float, shots: tuple[int, ...]) -> None:
    settings = TransferConfig(stop="development", development_share=share, shots=shots)
    with pytest.raises(MetaprimeError, match=rf"development_share {share} of {shots[-1]} sentences leaves no"):
        check_shares(settings)
    check_shares(settings.model_copy(update={"stop": "fixed"}))


def test_a_loss_that_is_not_finite_names_language_step_and_remedy(parts: Parts) -> None:
    with pytest.raises(
        MetaprimeError, match=r"language 'qaa': the loss is (nan|inf) at step \d; lower transfer\.lr \(1e\+30\)"
    ):
        run(parts, parts.rows[:8], lr=1e30)


def test_predictions_come_in_the_order_of_the_rows(parts: Parts) -> None:
    values = dict(parts.model.named_parameters())
    rows = parts.rows[:100]  # more than one batch, of mixed lengths
    scores, together = evaluate(parts.model, parts.task, values, rows)
    alone = [evaluate(parts.model, parts.task, values, [row])[1][0] for row in rows]
    assert together == alone
    assert len({tuple(tags) for tags in together}) > 10
    assert scores["sentences"] == 100
    assert f1(scores) == scores["lenient"]["overall"]["f1"]
