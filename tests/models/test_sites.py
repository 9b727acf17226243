"""The site table: every row leads to the right modules of its architecture, and mistakes are named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from metaprime.models.encoder import load_encoder
from metaprime.models.sites import BERT, LAYOUTS, Layout, is_unused, layout_of, resolve
from metaprime.types import LayerSites, MetaprimeError

HIDDEN, HEADS, INNER, LAYERS = 32, 4, 64, 2  # of the toy encoders
PRE_LN = ("modernbert", "eurobert")
MODULES = [field.name for field in fields(LayerSites) if field.name != "thirds"]
PATHS = ("query", "key", "value", "attention_out", "ffn_in", "ffn_out", "attention")


@pytest.mark.parametrize("model_type", LAYOUTS)
def test_every_row_resolves(toy_encoder: Callable[[str], Path], model_type: str) -> None:
    encoder = AutoModel.from_pretrained(toy_encoder(model_type))
    sites = resolve(encoder, layout_of(model_type))
    heads = 2 if model_type == "eurobert" else HEADS  # of keys and values
    assert (sites.hidden, sites.heads, sites.head_width) == (HIDDEN, heads, HIDDEN // HEADS)
    assert len(sites.layers) == LAYERS
    shapes = {
        "query": (HIDDEN, HIDDEN),
        "key": (HIDDEN, heads * HIDDEN // HEADS),
        "value": (HIDDEN, heads * HIDDEN // HEADS),
        "attention_out": (HIDDEN, HIDDEN),
        "ffn_in": (HIDDEN, INNER),
        "ffn_out": (INNER, HIDDEN),
    }
    if model_type == "modernbert":
        shapes |= dict.fromkeys(("query", "key", "value"), (HIDDEN, 3 * HIDDEN)) | {"ffn_in": (HIDDEN, 2 * INNER)}
    names = {module: name for name, module in encoder.named_modules()}
    seen: set[nn.Module] = set()
    for index, layer in enumerate(sites.layers):
        for field, shape in shapes.items():
            linear = getattr(layer, field)
            assert isinstance(linear, nn.Linear), field
            assert (linear.in_features, linear.out_features) == shape, field
        assert (layer.ffn_norm is None) == (model_type in PRE_LN)
        assert layer.ffn_norm is None or isinstance(layer.ffn_norm, nn.LayerNorm)
        assert {layer.query, layer.key, layer.value} <= set(layer.attention.modules()) <= set(layer.layer.modules())
        modules = {getattr(layer, name) for name in MODULES} - {None}
        assert all(f".{index}." in f".{names[module]}." for module in modules)
        assert len(modules) == len(MODULES) - (model_type in PRE_LN) - 2 * (model_type == "modernbert")
        assert not modules & seen
        seen |= modules


def activated(model_type: str, layer: LayerSites, inner: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """What goes from the feed-forward block's first site to its last."""
    if model_type == "modernbert":
        value, gate = inner.chunk(2, dim=-1)
        return F.gelu(value) * gate
    if model_type == "eurobert":
        return F.silu(inner) * layer.layer.mlp.up_proj(x)
    return F.gelu(inner)


@pytest.mark.parametrize("model_type", LAYOUTS)
def test_every_site_is_where_its_name_says(
    toy_encoder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, model_type: str
) -> None:
    """Told from what flows through: the attention function's own arguments, the activation, the layer's result."""
    loaded = load_encoder(str(toy_encoder(model_type)))
    sites = resolve(loaded.module, loaded.layout)
    flow: dict[nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}
    calls = []
    fused = F.scaled_dot_product_attention

    def spy(*qkv: torch.Tensor, **options: object) -> torch.Tensor:
        calls.append((*qkv, fused(*qkv, **options)))
        return calls[-1][-1]

    def record(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor | tuple) -> None:
        flow.setdefault(module, (inputs[0], output[0] if isinstance(output, tuple) else output))

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    for layer in sites.layers:
        for module in {getattr(layer, name) for name in MODULES} - {layer.attention, None}:
            module.register_forward_hook(record)
    with torch.no_grad():
        last = loaded.module(input_ids=torch.tensor([[2, 7, 8, 9, 3]]), output_hidden_states=True).hidden_states
        assert len(calls) == LAYERS
        for index, layer in enumerate(sites.layers):
            *qkv, mixed = calls[index]
            made = [flow[module][1] for module in (layer.query, layer.key, layer.value)]
            if layer.query is layer.key:
                made = list(made[0].chunk(3, dim=-1))
            shared = HEADS // sites.heads
            query, key, value = (heads.transpose(1, 2) for heads in (qkv[0], qkv[1][:, ::shared], qkv[2][:, ::shared]))
            assert torch.equal(made[2], value.flatten(2))
            for projection, expected in zip(made[:2], (query, key), strict=True):
                assert torch.equal(projection[:, 0], expected.flatten(2)[:, 0])  # at position 0 nothing is rotated
            assert torch.equal(flow[layer.attention_out][0], mixed.transpose(1, 2).flatten(2))
            x, inner = flow[layer.ffn_in]
            torch.testing.assert_close(flow[layer.ffn_out][0], activated(model_type, layer, inner, x))
            start, end = flow[layer.layer]
            if layer.ffn_norm is None:
                torch.testing.assert_close(end, start + flow[layer.attention_out][1] + flow[layer.ffn_out][1])
            else:
                assert torch.equal(flow[layer.ffn_norm][0], flow[layer.ffn_out][1] + x)
                assert torch.equal(flow[layer.ffn_norm][1], end)
            if index + 1 < LAYERS or model_type not in PRE_LN:  # after the last layer of a pre-LN encoder stands a norm
                assert torch.equal(end, last[index + 1])


@pytest.mark.parametrize("model_type", LAYOUTS)
def test_what_is_unused_exists(toy_encoder: Callable[[str], Path], model_type: str) -> None:
    names = [name for name, _ in AutoModel.from_pretrained(toy_encoder(model_type)).named_parameters()]
    assert all(any(name.startswith(path) for name in names) for path in layout_of(model_type).unused)


def test_an_architecture_without_a_row_is_told_what_a_row_needs() -> None:
    with pytest.raises(MetaprimeError) as caught:
        layout_of("zorg")
    message = str(caught.value)
    assert "'zorg' has no row in metaprime/models/sites.py" in message
    for site in ("layers", *PATHS, "ffn_norm"):
        assert site in message.split("under encoder.sites:")[1]
    assert all(known in message for known in LAYOUTS)


@pytest.mark.parametrize("site", ["layers", *PATHS, "ffn_norm"])
def test_a_wrong_path_is_named(toy_bert: Path, site: str) -> None:
    encoder = AutoModel.from_pretrained(toy_bert)
    with pytest.raises(MetaprimeError, match=r"site 'no\.such' is not in this BertModel"):
        resolve(encoder, BERT.model_copy(update={site: "no.such"}))


def test_what_is_no_projection_and_no_stack_of_layers_is_refused(toy_bert: Path) -> None:
    encoder = AutoModel.from_pretrained(toy_bert)
    with pytest.raises(MetaprimeError, match=r"'output\.LayerNorm' of this BertModel is a LayerNorm, not a linear"):
        resolve(encoder, BERT.model_copy(update={"ffn_out": "output.LayerNorm"}))
    with pytest.raises(MetaprimeError, match=r"site 'pooler\.dense' of this BertModel holds no layers"):
        resolve(encoder, BERT.model_copy(update={"layers": "pooler.dense"}))


def test_a_pre_ln_encoder_has_no_norm_site(toy_bert: Path) -> None:
    sites = resolve(AutoModel.from_pretrained(toy_bert), BERT.model_copy(update={"ffn_norm": None}))
    assert [layer.ffn_norm for layer in sites.layers] == [None] * LAYERS


XLM = Layout(
    layers="attentions",
    **{name: f"{name[0]}_lin" for name in ("query", "key", "value")},
    attention_out="out_lin",
    ffn_in="ffns.*.lin1",
    ffn_out="ffns.*.lin2",
    attention="attentions.*",
    ffn_norm="layer_norm2.*",
)
"""Attention, feed-forward blocks and norms are in lists of their own."""


@pytest.fixture
def xlm() -> PreTrainedModel:
    return AutoModel.from_config(AutoConfig.for_model("xlm", vocab_size=60, emb_dim=32, n_layers=2, n_heads=4))


def test_parts_of_a_layer_may_be_in_lists_of_their_own(xlm: PreTrainedModel) -> None:
    sites = resolve(xlm, XLM)
    assert (sites.hidden, sites.heads, sites.head_width) == (HIDDEN, HEADS, HIDDEN // HEADS)
    for index, layer in enumerate(sites.layers):
        assert layer.query is xlm.attentions[index].q_lin
        assert layer.attention is xlm.attentions[index]
        assert (layer.ffn_in, layer.ffn_out) == (xlm.ffns[index].lin1, xlm.ffns[index].lin2)
        assert layer.ffn_norm is xlm.layer_norm2[index]


def test_then_the_end_of_a_layer_must_be_named(xlm: PreTrainedModel) -> None:
    with pytest.raises(MetaprimeError, match=r"ffn_norm is needed where ffn_out is a path with \* \(ffns\.\*\.lin2\)"):
        resolve(xlm, XLM.model_copy(update={"ffn_norm": None}))
    with pytest.raises(MetaprimeError, match=r"site 'ffns\.0\.no' is not in this XLMModel"):
        resolve(xlm, XLM.model_copy(update={"ffn_in": "ffns.*.no"}))


@pytest.mark.parametrize(
    ("name", "covered"),
    [
        ("pooler.dense.bias", True),
        ("layer.0.query_global.weight", True),
        ("layer.11.query_global.bias", True),
        ("layer.0.query.weight", False),
        ("my.pooler.dense", False),
    ],
)
def test_unused_are_prefixes_with_a_star_for_any_layer(name: str, covered: bool) -> None:
    assert is_unused(name, ("pooler.", "layer.*.query_global")) is covered
    assert not is_unused(name, ())


def test_a_head_is_as_wide_as_the_state_of_a_word() -> None:
    """MobileBERT's layers are narrower inside."""
    narrow = {"hidden_size": 64, "intra_bottleneck_size": 32, "embedding_size": 16, "intermediate_size": 48}
    config = AutoConfig.for_model("mobilebert", vocab_size=60, num_hidden_layers=1, num_attention_heads=4, **narrow)
    sites = resolve(AutoModel.from_config(config), BERT)
    assert (sites.layers[0].key.in_features, sites.hidden) == (32, 64)


@pytest.mark.parametrize("path", ["", "a..b", ".a", "a.", "a b", "a/b"])
def test_a_path_is_names_with_dots_between(path: str) -> None:
    values = BERT.model_dump()
    assert Layout.model_validate(values) == BERT
    with pytest.raises(ValidationError, match="should match pattern"):
        Layout.model_validate({**values, "query": path})
