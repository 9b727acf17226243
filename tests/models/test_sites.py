"""The site table: every row leads to the right modules of its architecture, and mistakes are named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel

from metaprime.models.sites import BERT, LAYOUTS, layout_of, resolve
from metaprime.types import LayerSites, MetaprimeError

HIDDEN, HEADS, INNER, LAYERS = 32, 4, 64, 2  # of the toy encoders


@pytest.mark.parametrize("model_type", LAYOUTS)
def test_every_row_resolves(toy_encoder: Callable[[str], Path], model_type: str) -> None:
    encoder = AutoModel.from_pretrained(toy_encoder(model_type))
    sites = resolve(encoder, layout_of(model_type))
    assert (sites.hidden, sites.heads, sites.head_width) == (HIDDEN, HEADS, HIDDEN // HEADS)
    assert len(sites.layers) == LAYERS
    shapes = {
        "query": (HIDDEN, HIDDEN),
        "key": (HIDDEN, HIDDEN),
        "value": (HIDDEN, HIDDEN),
        "attention_out": (HIDDEN, HIDDEN),
        "ffn_in": (HIDDEN, INNER),
        "ffn_out": (INNER, HIDDEN),
    }
    names = {module: name for name, module in encoder.named_modules()}
    seen = []
    for index, layer in enumerate(sites.layers):
        for field, shape in shapes.items():
            linear = getattr(layer, field)
            assert isinstance(linear, nn.Linear), field
            assert (linear.in_features, linear.out_features) == shape, field
        assert isinstance(layer.ffn_norm, nn.LayerNorm)
        assert {layer.query, layer.key, layer.value} <= set(layer.attention.modules())
        modules = [getattr(layer, field.name) for field in fields(LayerSites)]
        assert all(f".{index}." in names[module] for module in modules)
        seen += modules
    assert len(set(seen)) == len(fields(LayerSites)) * LAYERS


@pytest.mark.parametrize("model_type", LAYOUTS)
def test_every_site_is_where_its_name_says(
    toy_encoder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, model_type: str
) -> None:
    """Told from what flows through: the attention function's own arguments, the activation, the layer's result."""
    encoder = AutoModel.from_pretrained(toy_encoder(model_type), attn_implementation="sdpa").eval()
    sites = resolve(encoder, layout_of(model_type))
    flow: dict[nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}
    calls = []
    fused = F.scaled_dot_product_attention

    def spy(*qkv: torch.Tensor, **options: object) -> torch.Tensor:
        calls.append((*qkv, fused(*qkv, **options)))
        return calls[-1][-1]

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    for layer in sites.layers:
        for field in fields(LayerSites):
            if field.name != "attention":
                getattr(layer, field.name).register_forward_hook(lambda m, x, y: flow.update({m: (x[0], y)}))
    with torch.no_grad():
        last = encoder(input_ids=torch.tensor([[2, 7, 8, 9, 3]]), output_hidden_states=True).hidden_states
    assert len(calls) == LAYERS
    for index, layer in enumerate(sites.layers):
        *qkv, mixed = (tensor.transpose(1, 2).reshape(1, 5, HIDDEN) for tensor in calls[index])
        for projection, expected in zip((layer.query, layer.key, layer.value), qkv, strict=True):
            assert torch.equal(flow[projection][1], expected)
        assert torch.equal(flow[layer.attention_out][0], mixed)
        assert torch.equal(flow[layer.ffn_out][0], F.gelu(flow[layer.ffn_in][1]))
        assert torch.equal(flow[layer.ffn_norm][0], flow[layer.ffn_out][1] + flow[layer.ffn_in][0])
        assert torch.equal(flow[layer.ffn_norm][1], last[index + 1])


@pytest.mark.parametrize("model_type", LAYOUTS)
def test_what_is_unused_exists(toy_encoder: Callable[[str], Path], model_type: str) -> None:
    names = [name for name, _ in AutoModel.from_pretrained(toy_encoder(model_type)).named_parameters()]
    assert all(any(name.startswith(path) for name in names) for path in layout_of(model_type).unused)


def test_an_architecture_without_a_row_is_told_what_a_row_needs() -> None:
    with pytest.raises(MetaprimeError) as caught:
        layout_of("zorg")
    message = str(caught.value)
    assert "'zorg' has no row in metaprime/models/sites.py" in message
    for site in ("layers", *(field.name for field in fields(LayerSites))):
        assert site in message.split("module paths:")[1]
    assert "bert, roberta, xlm-roberta" in message


@pytest.mark.parametrize("site", ["layers", *(field.name for field in fields(LayerSites))])
def test_a_wrong_path_is_named(toy_bert: Path, site: str) -> None:
    encoder = AutoModel.from_pretrained(toy_bert)
    with pytest.raises(MetaprimeError, match=r"site 'no\.such' is not in this BertModel"):
        resolve(encoder, replace(BERT, **{site: "no.such"}))


def test_a_pre_ln_encoder_has_no_norm_site(toy_bert: Path) -> None:
    sites = resolve(AutoModel.from_pretrained(toy_bert), replace(BERT, ffn_norm=None))
    assert [layer.ffn_norm for layer in sites.layers] == [None] * LAYERS
