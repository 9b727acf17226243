"""The Pfeiffer adapter against its formula, written out densely."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import layer_norm

from metaprime.models.encoder import load_encoder
from metaprime.models.sites import LAYOUTS, resolve
from metaprime.peft import pfeiffer
from metaprime.streams import torch_stream

IDS = torch.randint(5, 60, (2, 6), generator=torch_stream(0, "ids"))


def randomised(modules: torch.nn.Module) -> None:
    draw = torch_stream(0, "random phi")
    for parameter in modules.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=draw)


def dense(phi: dict[str, torch.Tensor], u: torch.Tensor, scale: float) -> torch.Tensor:
    inner = torch.relu(u @ phi["down_weight"].T + phi["down_bias"])
    return scale * (inner @ phi["up_weight"].T + phi["up_bias"])


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("model_type", [name for name, row in LAYOUTS.items() if row.ffn_norm])
@torch.no_grad()
def test_it_is_the_double_layer_norm(toy_encoder: Callable[[str], Path], model_type: str, scale: float) -> None:
    encoder = load_encoder(str(toy_encoder(model_type)))
    layer = resolve(encoder.module, encoder.layout).layers[1]
    norm, seen = layer.ffn_norm, {}
    modules = pfeiffer.inject(
        resolve(encoder.module, encoder.layout), pfeiffer.PfeifferConfig(bottleneck=5, scale=scale)
    )
    randomised(modules)
    layer.ffn_in.register_forward_hook(lambda module, inputs, output: seen.update(residual=inputs[0]))
    layer.ffn_out.register_forward_hook(lambda module, inputs, output: seen.update(y=output))
    found = encoder.module(input_ids=IDS, attention_mask=torch.ones_like(IDS)).last_hidden_state

    def normed(x: torch.Tensor) -> torch.Tensor:
        return layer_norm(x, (32,), norm.weight, norm.bias, norm.eps)

    z = seen["y"] + seen["residual"]
    expected = normed(z + dense(dict(modules["1"].named_parameters()), normed(z), scale))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    assert (found - normed(z)).abs().max() > 0.1


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("model_type", [name for name, row in LAYOUTS.items() if not row.ffn_norm])
@torch.no_grad()
def test_in_a_pre_ln_encoder_it_follows_the_residual_sum(
    toy_encoder: Callable[[str], Path], model_type: str, scale: float
) -> None:
    """z is what the layer gives without adapter: attention block, then feed-forward output plus residual."""
    encoder = load_encoder(str(toy_encoder(model_type)))
    sites = resolve(encoder.module, encoder.layout)
    arguments: dict[str, Any] = {}
    sites.layers[1].layer.register_forward_pre_hook(
        lambda module, args, kwargs: arguments.update(args=args, kwargs=kwargs), with_kwargs=True
    )
    encoder.module(input_ids=IDS, attention_mask=torch.ones_like(IDS))
    args, kwargs = arguments["args"], arguments["kwargs"]
    z = sites.layers[1].layer(*args, **kwargs)
    modules = pfeiffer.inject(sites, pfeiffer.PfeifferConfig(bottleneck=5, scale=scale))
    randomised(modules)
    found = sites.layers[1].layer(*args, **kwargs)
    torch.testing.assert_close(found, z + dense(dict(modules["1"].named_parameters()), z, scale), rtol=0, atol=2e-6)
    assert (found - z).abs().max() > 0.1


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
