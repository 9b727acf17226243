"""Points of the design space against their formulas, written out densely."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dense_bert import IDS, Changes, bert, hidden, randomised
from torch.nn.functional import gelu, layer_norm, silu
from transformers import AutoModel

from metaprime.models.encoder import load_encoder
from metaprime.models.sites import LAYOUTS, resolve
from metaprime.peft import bottleneck
from metaprime.rng import torch_stream


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
    modules = bottleneck.inject(
        resolve(encoder.module, encoder.layout), bottleneck.PfeifferConfig(bottleneck=5, scale=scale)
    )
    randomised(modules)
    layer.ffn_in.register_forward_hook(lambda module, inputs, output: seen.update(residual=inputs[0]))
    layer.ffn_out.register_forward_hook(lambda module, inputs, output: seen.update(y=output))
    found = encoder.module(input_ids=IDS, attention_mask=torch.ones_like(IDS)).last_hidden_state

    def normed(x: torch.Tensor) -> torch.Tensor:
        return layer_norm(x, (32,), norm.weight, norm.bias, norm.eps)

    z = seen["y"] + seen["residual"]
    expected = normed(z + dense(dict(modules["1"]["ffn"].named_parameters()), normed(z), scale))
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
    modules = bottleneck.inject(sites, bottleneck.PfeifferConfig(bottleneck=5, scale=scale))
    randomised(modules)
    found = sites.layers[1].layer(*args, **kwargs)
    torch.testing.assert_close(
        found, z + dense(dict(modules["1"]["ffn"].named_parameters()), z, scale), rtol=0, atol=2e-6
    )
    assert (found - z).abs().max() > 0.1


@pytest.mark.parametrize("init", ["lora", "bert"])
def test_how_it_starts(init: str) -> None:
    config = bottleneck.PfeifferConfig(bottleneck=200, init=init)
    drawn = bottleneck.Bottleneck(400, 400, config).initial(torch_stream(0, "start"))
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


ACTIVATION = {"relu": torch.relu, "gelu": gelu, "silu": silu, "tanh": torch.tanh, "identity": lambda x: x}
POINTS = {  # where h and its x are in `dense.Changes`; a sequential adapter reads h itself
    ("sequential", "attention"): "attention",
    ("sequential", "ffn"): "ffn",
    ("parallel", "attention"): "context",
    ("parallel", "ffn"): "ffn",
}
FORMS: list[dict[str, Any]] = [
    {"scale": 4.0},
    {"composition": "learned"},
    {"composition": "gated", "scale": 0.5},
    {"layer_norm": "in"},
    *({"activation": name} for name in ACTIVATION if name != "relu"),
]


def changed(module: Any, form: dict[str, Any], insertion: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """h after the adapter, from its values and the formula alone."""
    phi = {name: value.data for name, value in module.named_parameters()}

    def change(h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        x = h if insertion == "sequential" else x
        if "norm_weight" in phi:
            x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
            x = x * phi["norm_weight"] + phi["norm_bias"]
        inner = ACTIVATION[form.get("activation", "relu")](x @ phi["down_weight"].T + phi["down_bias"])
        a = phi.get("scale", form.get("scale", 1.0)) * (inner @ phi["up_weight"].T + phi["up_bias"])
        return (1 - phi["gate"]) * h + phi["gate"] * a if "gate" in phi else h + a

    return change


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize(("insertion", "at"), POINTS)
def test_every_point_is_its_formula(toy_bert: Path, insertion: str, at: str, form: dict[str, Any]) -> None:
    config = bottleneck.BottleneckConfig(at=(at,), insertion=insertion, bottleneck=5, **form)
    encoder = load_encoder(str(toy_bert))
    modules = randomised(bottleneck.inject(resolve(encoder.module, encoder.layout), config)).double()
    stock = AutoModel.from_pretrained(toy_bert).double().eval()
    place = POINTS[insertion, at]
    expected = bert(stock, [Changes(**{place: changed(layer[at], form, insertion)}) for layer in modules.values()])
    torch.testing.assert_close(hidden(encoder.module.double()), expected, rtol=0, atol=1e-10)
    assert (expected - hidden(stock)).abs().max() > 0.05


def test_a_learned_scale_is_at_work_in_the_adapter_around_the_norm(toy_bert: Path) -> None:
    """Twice the learned scale is the adapter of twice the fixed one."""
    found = []
    for form, learned in (({"scale": 2.0}, None), ({"composition": "learned"}, 2.0)):
        encoder = load_encoder(str(toy_bert))
        sites = resolve(encoder.module, encoder.layout)
        modules = randomised(bottleneck.inject(sites, bottleneck.PfeifferConfig(bottleneck=5, **form)))
        draw = torch_stream(0, "the same phi")
        for name, value in modules.named_parameters():
            value.data = (
                torch.full((1,), learned) if name.endswith("scale") else 0.3 * torch.randn(value.shape, generator=draw)
            )
        found.append(hidden(encoder.module))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-6)


def test_houlsby_is_the_sequential_adapter_after_both_blocks(toy_bert: Path) -> None:
    encoder = load_encoder(str(toy_bert))
    modules = randomised(
        bottleneck.inject(resolve(encoder.module, encoder.layout), bottleneck.HoulsbyConfig(bottleneck=5))
    ).double()
    parts = [{at: changed(module, {}, "sequential") for at, module in layer.items()} for layer in modules.values()]
    expected = bert(AutoModel.from_pretrained(toy_bert).double().eval(), [Changes(**part) for part in parts])
    torch.testing.assert_close(hidden(encoder.module.double()), expected, rtol=0, atol=1e-10)


def test_a_pass_that_failed_between_tap_and_site_leaves_nothing_for_the_next(toy_bert: Path) -> None:
    encoder = load_encoder(str(toy_bert))
    sites = resolve(encoder.module, encoder.layout)
    modules = randomised(bottleneck.inject(sites, bottleneck.ParallelConfig(bottleneck=5)))
    expected = hidden(encoder.module)

    seen: list[weakref.ref[torch.Tensor]] = []

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    watch = modules["0"]["ffn"].register_forward_hook(lambda module, inputs, output: seen.append(weakref.ref(output)))
    handle = sites.layers[0].ffn_in.register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        encoder.module(input_ids=IDS[:1])
    handle.remove()
    watch.remove()
    assert torch.equal(hidden(encoder.module), expected)
    gc.collect()
    assert [left() for left in seen] == [None]


def test_impossible_points_are_refused() -> None:
    for keys, told in (
        ({"insertion": "pfeiffer", "at": ("attention",)}, "at must be .ffn."),
        ({"insertion": "pfeiffer", "composition": "gated"}, "not defined for insertion pfeiffer"),
        ({"at": ("ffn", "ffn")}, "names a block twice"),
        ({"at": ()}, "at least 1 item"),
    ):
        with pytest.raises(ValueError, match=told):
            bottleneck.BottleneckConfig(**keys)
