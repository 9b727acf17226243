"""A model is a checked copy of an encoder with an adapter in it and a head on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_config import Parts

from metaprime.build.model import CHECKED, build_model
from metaprime.data.rows import Row
from metaprime.models.encoder import Encoder, load_encoder, weights_hash
from metaprime.models.task_model import partition
from metaprime.nn import Adapter
from metaprime.peft import METHODS, MethodConfig
from metaprime.types import Batch, MetaprimeError, Sites


@pytest.fixture
def encoder(toy_bert: Path) -> Encoder:
    return load_encoder(str(toy_bert))


def test_the_encoder_is_copied_and_not_modified(parts: Parts, encoder: Encoder) -> None:
    model = build_model(encoder, parts.task, parts.config.peft, parts.rows)
    assert weights_hash(dict(encoder.module.state_dict())) == encoder.weights
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in encoder.module.modules())
    theta = partition(model).backbone
    for name, value in encoder.module.named_parameters():
        assert torch.equal(theta[f"backbone.{name}"], value)
        assert theta[f"backbone.{name}"].data_ptr() != value.data_ptr()
    with torch.no_grad():
        for value in theta.values():
            value.add_(1.0)
    assert weights_hash(dict(encoder.module.state_dict())) == encoder.weights


def test_it_has_the_adapter_of_the_method_and_the_head_of_the_task(parts: Parts, encoder: Encoder) -> None:
    method = METHODS["ia3"].config()
    model = build_model(encoder, parts.task, method, parts.rows)
    assert model.adapter.config == method
    state = partition(model)
    assert {name.split(".")[2] for name in state.adapter} == {"key_factors", "value_factors", "ffn_factors"}
    assert state.head["head.weight"].shape == (len(parts.task.labels), 32)
    assert not model.training
    batch = parts.task.collate(parts.rows[:3])
    assert model(batch).shape == (*batch["input_ids"].shape, len(parts.task.labels))


def test_outputs_are_those_of_the_task(parts: Parts, encoder: Encoder) -> None:
    first = replace(parts.task, outputs=lambda model, batch: model.head(model.encode(batch))[:, 0])
    model = build_model(encoder, first, parts.config.peft, parts.rows)
    assert model(parts.task.collate(parts.rows[:3])).shape == (3, len(parts.task.labels))


def test_only_the_first_few_rows_are_read(parts: Parts, encoder: Encoder) -> None:
    read: list[Sequence[Row]] = []

    def collate(rows: Sequence[Row]) -> Batch:
        read.append(rows)
        return parts.task.collate(rows)

    build_model(encoder, replace(parts.task, collate=collate), parts.config.peft, parts.rows)
    assert read == [parts.rows[:CHECKED]]


@pytest.mark.parametrize(("architecture", "expected"), [("bert", True), ("deberta-v2", False)])
def test_one_pass_is_for_encoders_that_pass_a_trial(
    parts: Parts, toy_encoder: Callable[[str], Path], architecture: str, expected: bool
) -> None:
    """DeBERTa also applies projections to a table of positions, which belongs to no episode."""
    encoder, config = load_encoder(str(toy_encoder(architecture))), METHODS["lora"].config()
    assert build_model(encoder, parts.task, config, parts.rows).supports_one_pass is expected
    # One row cannot be shared by two episodes.
    assert not build_model(encoder, parts.task, config, parts.rows[:1]).supports_one_pass


def test_precision_is_lowered_after_the_checks(parts: Parts, encoder: Encoder) -> None:
    """The checks compare for equality, so their result must not depend on `autocast`."""
    exact = build_model(encoder, parts.task, parts.config.peft, parts.rows)
    lower = build_model(replace(encoder, autocast=True), parts.task, parts.config.peft, parts.rows)
    assert (exact.autocast, lower.autocast) == (False, True)
    assert lower.supports_one_pass == exact.supports_one_pass
    batch = parts.task.collate(parts.rows[:3])
    with torch.no_grad():
        for one, other in zip(exact.head.parameters(), lower.head.parameters(), strict=True):
            other.copy_(one.normal_(generator=torch.Generator().manual_seed(0)))
        found, expected = lower(batch), exact(batch)
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1)


def test_a_method_without_effect_is_refused(parts: Parts, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter whose modules are hooked nowhere."""
    honest = METHODS["ia3"]

    def unhooked(sites: Sites, config: MethodConfig) -> Adapter:
        adapter = honest.inject(sites, config)
        for module in sites.encoder.modules():
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()
        return adapter

    monkeypatch.setattr("metaprime.build.model.method_of", lambda config: replace(honest, inject=unhooked))
    with pytest.raises(MetaprimeError, match=r"self-check: .*0\.key_factors: never"):
        build_model(encoder, parts.task, honest.config(), parts.rows)
