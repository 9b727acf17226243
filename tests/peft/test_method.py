"""What holds of every method: how many parameters it has, and that the backbone keeps its names."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from transformers import BertConfig, BertModel, PreTrainedModel

from metaprime.models.sites import BERT, resolve
from metaprime.peft import METHODS, MethodConfig, moves_backbone, rates
from metaprime.rng import torch_stream
from metaprime.types import Sites

D, F, LAYERS = 768, 3072, 12

VECTORS = [D] * 2 + LAYERS * ([D] * 5 + [F] + [D] * 4)  # the embeddings' norm; then biases and norms of each layer
TENSORS = VECTORS + LAYERS * ([D * D] * 4 + [D * F] * 2)
"""Sizes of all weights that may change, but the embeddings."""


def entries(share: float) -> int:
    return sum(int(share * size) for size in TENSORS)


PHI: dict[str, list[tuple[dict, int]]] = {
    "pfeiffer": [
        ({"bottleneck": 48}, 894_528),
        ({"bottleneck": 7}, LAYERS * (2 * D * 7 + 7 + D)),
    ],
    "prefix": [
        ({"length": 30}, 552_960),
        ({"length": 5}, LAYERS * 2 * 5 * D),
        ({"length": 30, "mlp": 800}, 30 * D + (D + 1) * 800 + (800 + 1) * 2 * LAYERS * D),
    ],
    "lora": [
        ({"rank": 8, "sites": ("query", "value")}, 294_912),
        ({"rank": 16, "sites": ("ffn_in", "ffn_out")}, 1_474_560),
        ({"rank": 3, "sites": ("query", "key", "value", "attention_out")}, LAYERS * 4 * 2 * D * 3),
    ],
    "head": [({}, 0)],
    "houlsby": [
        ({"bottleneck": 48}, 1_789_056),
        ({"bottleneck": 48, "layer_norm": "in"}, 1_789_056 + 2 * LAYERS * 2 * D),
    ],
    "parallel": [({"bottleneck": 16}, 304_320), ({"bottleneck": 512}, 9_452_544)],
    "scaled_parallel": [
        ({"bottleneck": 16}, 304_320),
        ({"bottleneck": 16, "composition": "learned"}, 304_320 + LAYERS),
    ],
    "parallel_attention": [({"bottleneck": 200, "layer_norm": "in"}, LAYERS * (2 * D * 200 + 200 + D + 2 * D))],
    "multihead_parallel": [({"length": 30}, LAYERS * 2 * 30 * D)],
    "ffn_lora": [({"rank": 16}, 1_474_560)],
    "mam": [({}, 599_232), ({"prefix": {"length": 30}}, 599_232 + LAYERS * 2 * 14 * D)],
    "prompt": [({"length": 20}, 20 * D)],
    "ia3": [({}, LAYERS * (2 * D + F))],
    "bitfit": [({}, D + LAYERS * (4 * D + F + D + 2 * D))],  # the embeddings' layer norm, then each layer's
    "bottleneck": [
        ({"at": ("attention", "ffn"), "insertion": "parallel", "bottleneck": 8}, 2 * LAYERS * (2 * D * 8 + 8 + D)),
        ({"bottleneck": 8, "composition": "gated"}, LAYERS * (2 * D * 8 + 8 + D + 1)),
    ],
    "full": [({}, 0)],
    "random_mask": [({}, entries(0.005)), ({"budget": 0.1, "scope": "global"}, int(0.1 * sum(TENSORS)))],
    "magnitude": [({"budget": 0.01, "embeddings": True}, entries(0.01) + 100 * D // 100)],
    "sam": [({}, entries(0.005))],
    "fisher": [({"scope": "global", "budget": 0.02}, int(0.02 * sum(TENSORS)))],
    "child_pruning": [({}, sum(TENSORS))],
    "diff_pruning": [({}, 2 * sum(TENSORS))],
    "hf": [
        ({}, 294_912),
        ({"config": {"peft_type": "IA3", "target_modules": ["key"], "feedforward_modules": []}}, LAYERS * D),
    ],
    "mixout": [({}, sum(TENSORS)), ({"embeddings": True}, sum(TENSORS) + 100 * D)],
}
"""Of BERT-base: options, and the number of phi's parameters by the closed form."""


START_AT_ZERO = ("bitfit", "child_pruning", "mixout")


@cache
def bert_base() -> PreTrainedModel:
    with torch.device("meta"):
        return BertModel(BertConfig(vocab_size=100, hidden_size=D, intermediate_size=F, num_hidden_layers=LAYERS))


def inject(method: str, options: dict) -> tuple[PreTrainedModel, nn.ModuleDict]:
    with torch.device("meta"):
        encoder = BertModel(bert_base().config)
        return encoder, METHODS[method].inject(resolve(encoder, BERT), METHODS[method].config(**options))


@pytest.mark.parametrize("method", METHODS)
def test_phi_has_as_many_parameters_as_its_formula_says(method: str) -> None:
    for options, count in PHI[method]:
        _, modules = inject(method, options)
        assert sum(parameter.numel() for parameter in modules.parameters()) == count, options


@pytest.mark.parametrize("method", METHODS)
def test_the_backbone_keeps_its_names_and_modules(method: str) -> None:
    encoder, _ = inject(method, {})
    plain = bert_base()
    assert [name for name, _ in encoder.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert encoder.state_dict().keys() == plain.state_dict().keys()
    modules = {name: type(module) for name, module in encoder.named_modules()}
    assert modules == {name: type(module) for name, module in plain.named_modules()}


@pytest.mark.parametrize("method", METHODS)
def test_modules_start_at_zero_and_say_how_they_are_drawn(method: str, small_sites: Callable[[], Sites]) -> None:
    modules = METHODS[method].inject(small_sites(), METHODS[method].config())
    owners = [module for module in modules.modules() if list(module.parameters(recurse=False))]
    for module in [modules] if hasattr(modules, "initial") else owners:
        own = dict([*module.named_parameters(), *module.named_buffers()])
        assert not any(value.any() for value in own.values())
        drawn = module.initial(torch_stream(0, "x"))
        assert {name: value.shape for name, value in drawn.items()} == {n: p.shape for n, p in own.items()}
        assert any(value.any() for value in drawn.values()) != (method in START_AT_ZERO)
    assert bool(owners) == any(count for _, count in PHI[method])


@pytest.fixture
def small_sites() -> Callable[[], Sites]:
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    return lambda: resolve(BertModel(BertConfig(vocab_size=10, **shape)), BERT)


@pytest.mark.parametrize("method", METHODS)
def test_the_config_names_its_method_and_refuses_what_it_does_not_know(method: str) -> None:
    config = METHODS[method].config()
    assert isinstance(config, MethodConfig)
    assert config.method == method
    with pytest.raises(ValidationError, match="extra_forbidden"):
        METHODS[method].config(no_such_key=1)
    with pytest.raises(ValidationError, match="frozen"):
        config.method = "other"
    assert METHODS[method].formula


def test_only_full_fine_tuning_moves_the_backbone() -> None:
    assert [name for name, method in METHODS.items() if method.moves_backbone] == ["full"]


def test_adapter_head_and_full_tuning_are_short_as_papers_have_them() -> None:
    assert {name: method.short for name, method in METHODS.items() if method.short} == {
        "pfeiffer": "AT",
        "head": "HT",
        "full": "FT",
    }


def test_what_is_known_of_a_method_without_torch_is_what_the_method_says() -> None:
    assert rates() == {name: method.rate for name, method in METHODS.items()}
    assert {name for name in METHODS if moves_backbone(METHODS[name].config())} == {"full"}
    assert all(moves_backbone(method.config()) == method.moves_backbone for method in METHODS.values())
