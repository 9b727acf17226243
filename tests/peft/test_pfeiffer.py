"""The Pfeiffer adapter against its formula, written out densely."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import layer_norm
from transformers import AutoModel

from metaprime.models.sites import BERT, LAYOUTS, resolve
from metaprime.peft import pfeiffer
from metaprime.streams import torch_stream


def randomised(modules: torch.nn.Module) -> None:
    draw = torch_stream(0, "random phi")
    for parameter in modules.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=draw)


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("model_type", LAYOUTS)
def test_it_is_the_double_layer_norm(toy_encoder: Callable[[str], Path], model_type: str, scale: float) -> None:
    encoder = AutoModel.from_pretrained(toy_encoder(model_type)).eval()
    layer = encoder.encoder.layer[1]
    sites = resolve(encoder, LAYOUTS[model_type])
    modules = pfeiffer.inject(sites, pfeiffer.PfeifferConfig(bottleneck=5, scale=scale))
    randomised(modules)
    residual_BLD = torch.randn(2, 6, 32, generator=torch_stream(0, "residual"))
    with torch.no_grad():
        y_BLD = layer.output.dense(layer.intermediate(residual_BLD))
        found = layer.output(layer.intermediate(residual_BLD), residual_BLD)

        def norm(x: torch.Tensor) -> torch.Tensor:
            return layer_norm(x, (32,), layer.output.LayerNorm.weight, layer.output.LayerNorm.bias, 1e-12)

        phi = dict(modules["1"].named_parameters())
        u = norm(y_BLD + residual_BLD)
        inner = torch.relu(u @ phi["down_weight"].T + phi["down_bias"])
        a = scale * (inner @ phi["up_weight"].T + phi["up_bias"])
        expected = norm(a + y_BLD + residual_BLD)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    assert (found - u).abs().max() > 0.1


def test_in_a_pre_ln_encoder_it_follows_the_feed_forward_output(toy_bert: Path) -> None:
    encoder = AutoModel.from_pretrained(toy_bert).eval()
    sites = resolve(encoder, replace(BERT, ffn_norm=None))
    dense = encoder.encoder.layer[0].output.dense
    x = torch.randn(2, 6, 64, generator=torch_stream(0, "x"))
    with torch.no_grad():
        z = dense(x)
        modules = pfeiffer.inject(sites, pfeiffer.PfeifferConfig(bottleneck=5))
        randomised(modules)
        phi = dict(modules["0"].named_parameters())
        a = torch.relu(z @ phi["down_weight"].T + phi["down_bias"]) @ phi["up_weight"].T + phi["up_bias"]
        torch.testing.assert_close(dense(x), z + a, rtol=0, atol=2e-6)


@pytest.mark.parametrize("init", ["lora", "bert"])
def test_how_it_starts(init: str) -> None:
    config = pfeiffer.PfeifferConfig(bottleneck=200, init=init)
    drawn = pfeiffer.Bottleneck(400, config).initial(torch_stream(0, "start"))
    assert not drawn["down_bias"].any()
    assert not drawn["up_bias"].any()
    down = drawn["down_weight"]
    if init == "lora":
        assert not drawn["up_weight"].any()
        assert 0.99 / 20 < float(down.abs().max()) <= 1 / 20  # uniform in +-1/sqrt(400)
        assert float(down.std()) == pytest.approx(1 / 20 / 3**0.5, rel=0.02)
    else:
        assert float(down.std()) == pytest.approx(0.02, rel=0.02)
        assert float(drawn["up_weight"].std()) == pytest.approx(0.02, rel=0.02)
    assert config.identity == (not drawn["up_weight"].any())
