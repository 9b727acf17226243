"""Head and full tuning leave the encoder alone: no parameters, no hooks, the same output."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dense_bert import hidden
from pydantic import ValidationError
from toy_injection import injected

from metaprime.models.encoder import load_encoder
from metaprime.peft import METHODS, method_of, no_adapter
from metaprime.peft.method import label

BOTH = ("head", "full")


@pytest.mark.parametrize("method", BOTH)
def test_the_encoder_is_left_alone(toy_bert: Path, method: str) -> None:
    encoder, adapter, config = injected(toy_bert, method=method)
    assert len(adapter) == 0
    assert dict(adapter.named_parameters()) == {}
    assert adapter.config is config
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in encoder.module.modules())
    assert torch.equal(hidden(encoder.module), hidden(load_encoder(str(toy_bert)).module))


@pytest.mark.parametrize("method", BOTH)
def test_the_adapter_does_nothing_else(toy_bert: Path, method: str) -> None:
    _, adapter, config = injected(toy_bert, method=method)
    assert (adapter.selects, adapter.projects, adapter.penalised) == (False, False, False)
    assert adapter.collapse({}) == (config, {})
    assert adapter.penalty({}) is None


def test_full_tuning_alone_moves_theta() -> None:
    assert (no_adapter.HEAD.moves_backbone, no_adapter.FULL.moves_backbone) == (False, True)
    assert (no_adapter.HEAD.short, no_adapter.FULL.short) == ("HT", "FT")


@pytest.mark.parametrize("method", BOTH)
def test_a_config_names_its_method_and_has_no_settings(method: str) -> None:
    config = METHODS[method].config()
    assert method_of(config) is METHODS[method]
    assert not METHODS[method].injects
    assert (config.identity, config.positions, label(config)) == (True, 0, method)
    assert config.model_dump() == {"method": method}
    with pytest.raises(ValidationError, match="extra_forbidden"):
        METHODS[method].config(rank=4)
    with pytest.raises(ValidationError, match=f"'{method}'"):
        METHODS[method].config(method="lora")
