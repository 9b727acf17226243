"""Configs of Hugging Face's peft, against the model that peft itself makes of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dense_bert import IDS
from pydantic import ValidationError
from torch import nn
from torch.func import functional_call

from metaprime.models.encoder import load_encoder
from metaprime.models.sites import LAYOUTS, resolve
from metaprime.peft import hf_peft
from metaprime.rng import Noise, torch_stream
from metaprime.types import MetaprimeError

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:Unsupported layer type")  # peft says so of every layer norm

KINDS: list[dict[str, Any]] = [
    {"peft_type": "LORA"},
    {"peft_type": "LORA", "use_dora": True, "r": 4},
    {"peft_type": "LORA", "target_modules": ["query", "output.dense"], "use_rslora": True},
    {
        "peft_type": "IA3",
        "target_modules": ["key", "intermediate.dense"],
        "feedforward_modules": ["intermediate.dense"],
    },
    {"peft_type": "LOHA", "r": 2},
    {"peft_type": "LOKR", "r": 2},
    {"peft_type": "OFT", "oft_block_size": 8},
    {"peft_type": "HRA"},
    {"peft_type": "VERA", "r": 8},
    {"peft_type": "FOURIERFT", "n_frequency": 20},
    {"peft_type": "LN_TUNING", "target_modules": ["attention.output.LayerNorm"]},
    {"peft_type": "LN_TUNING"},
    {"peft_type": "LORA", "layers_to_transform": [1]},
    {"peft_type": "LORA", "target_modules": ["word_embeddings"]},
]
"""Linear, element by element, orthogonal, with frozen parts, norms, embeddings."""


def injected(folder: Path, config: dict[str, Any]) -> tuple[nn.Module, nn.Module, nn.ModuleDict]:
    """The encoder as it was, and with the method in it; values that are not zero."""
    encoder = load_encoder(str(folder))
    plain = copy.deepcopy(encoder.module)
    modules = hf_peft.inject(resolve(encoder.module, encoder.layout), hf_peft.HfConfig(config=config))
    drawn, noise = modules.initial(torch_stream(0, "phi")), torch_stream(0, "noise")
    for name, parameter in modules.named_parameters():
        parameter.data = drawn[name] + 0.2 * torch.randn(parameter.shape, generator=noise)
    return plain, encoder.module, modules


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_output_and_gradients_are_those_of_peft(toy_bert: Path, config: dict[str, Any]) -> None:
    plain, ours, modules = injected(toy_bert, config)
    layers = hf_peft._injected(plain, modules.source[1], 0)
    theirs = copy.deepcopy(plain)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tuner = peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING[config["peft_type"]](theirs, modules.source[1], "default")
    own = dict(theirs.named_parameters())
    names = {
        f"{path.replace('.', ':')}.{n.replace('.', ':')}": f"{path}.{n}"
        for path in layers
        for n, _ in hf_peft._trained(layers[path])
    }
    assert names.keys() == dict(modules.named_parameters()).keys()
    for name, parameter in modules.named_parameters():
        own[names[name]].data = parameter.data.clone()
    found, expected = (
        model.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).last_hidden_state for model in (ours, tuner)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    for output in (found, expected):
        output.square().sum().backward()
    for name, parameter in modules.named_parameters():
        torch.testing.assert_close(parameter.grad, own[names[name]].grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_type", LAYOUTS)
def test_without_target_modules_it_is_queries_and_values(toy_encoder: Callable[[str], Path], model_type: str) -> None:
    encoder = load_encoder(str(toy_encoder(model_type)))
    modules = hf_peft.inject(resolve(encoder.module, encoder.layout), hf_peft.HfConfig())
    assert len(modules) == (2 if model_type == "modernbert" else 4)


def test_its_start_is_drawn_from_the_generator_alone(toy_bert: Path) -> None:
    _, _, modules = injected(toy_bert, {"peft_type": "LORA"})
    before = torch.random.get_rng_state()
    one, same, other = (modules.initial(torch_stream(seed, "phi")) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_theta_moves_the_layer_with_it(toy_bert: Path) -> None:
    """What the layer takes for its base is the encoder's own module, whatever values are given for it."""
    _, ours, _ = injected(toy_bert, {"peft_type": "LORA", "use_dora": True})
    name = "encoder.layer.0.attention.self.query.weight"
    moved = {name: ours.get_parameter(name) + 0.5}
    inputs = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    with torch.no_grad():
        found = functional_call(ours, moved, (), inputs).last_hidden_state
        ours.get_parameter(name).data += 0.5
        expected = ours(**inputs).last_hidden_state
    assert torch.equal(found, expected)


def test_dropout_is_drawn_from_the_key(toy_bert: Path) -> None:
    _, ours, modules = injected(toy_bert, {"peft_type": "LORA", "lora_dropout": 0.5})
    layer = next(iter(modules.values()))
    x = torch.randn(3, 32, generator=torch_stream(0, "x"))
    plain = layer(x, ours.encoder.layer[0].attention.self.query.forward(x))
    layer.noise = Noise(torch.tensor([7]))
    one = layer(x, ours.encoder.layer[0].attention.self.query.forward(x))
    layer.noise = Noise(torch.tensor([7]))
    again = layer(x, ours.encoder.layer[0].attention.self.query.forward(x))
    assert torch.equal(one, again)
    assert not torch.allclose(one, plain)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "NOPE"}, r"peft_type 'NOPE' is unknown to peft .* LORA"),
        ({"peft_type": "LORA", "rank": 3}, r"peft\.config: .*rank"),
        ({"peft_type": "LORA", "target_modules": ["no_such"]}, r"peft cannot put LORA into this encoder: .*no_such"),
        ({"peft_type": "LORA", "bias": "all"}, r"would train .*bias of the encoder itself"),
        ({"peft_type": "LORA", "modules_to_save": ["pooler"]}, r"would train .*pooler.* of the encoder itself"),
        ({"peft_type": "LORA", "init_lora_weights": "pissa"}, r"initialisation changes .*query\.weight of the encoder"),
    ],
    ids=str,
)
def test_what_is_no_change_beside_the_encoder_is_refused(toy_bert: Path, config: dict[str, Any], message: str) -> None:
    encoder = load_encoder(str(toy_bert))
    with pytest.raises(MetaprimeError, match=message):
        hf_peft.inject(resolve(encoder.module, encoder.layout), hf_peft.HfConfig(config=config))


@pytest.mark.parametrize(
    ("kind", "ours"), [("PREFIX_TUNING", "prefix"), ("PROMPT_TUNING", "prompt"), ("P_TUNING", "prompt")]
)
def test_what_peft_cannot_names_ours_that_can(kind: str, ours: str) -> None:
    with pytest.raises(ValidationError, match=f"use method: {ours}, which runs on every encoder"):
        hf_peft.HfConfig(config={"peft_type": kind})
    with pytest.raises(ValidationError, match="config needs peft_type"):
        hf_peft.HfConfig(config={"r": 8})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "POLY"}, "POLY needs task numbers beside the words"),
        ({"peft_type": "ADALORA", "total_step": 10}, "ADALORA needs a training loop that changes its ranks"),
        ({"peft_type": "LOHA", "rank_dropout": 0.1}, r"config\.rank_dropout is not supported: it would be off"),
    ],
)
def test_what_a_plain_pass_does_not_train_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        hf_peft.HfConfig(config=config)


def test_a_start_is_drawn_for_the_encoder_as_it_is(toy_bert: Path) -> None:
    """DoRA begins with the norms of the weights beside it, so that its start changes nothing: after theta has moved too."""
    _, ours, modules = injected(toy_bert, {"peft_type": "LORA", "use_dora": True})
    for parameter in ours.parameters():
        parameter.data += 0.1
    plain = copy.deepcopy(ours)
    for module in plain.modules():
        module._forward_hooks.clear()
    drawn = modules.initial(torch_stream(0, "phi"))
    for name, parameter in modules.named_parameters():
        parameter.data = drawn[name]
    inputs = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    with torch.no_grad():
        found, expected = (model(**inputs).last_hidden_state for model in (ours, plain))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_pooler_that_a_pattern_finds_is_left_out_and_named(toy_bert: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = load_encoder(str(toy_bert))
    config = hf_peft.HfConfig(config={"peft_type": "LORA", "target_modules": "all-linear"})
    modules = hf_peft.inject(resolve(encoder.module, encoder.layout), config)
    assert "no token-level loss reaches pooler.dense, which stays unchanged" in caplog.text
    assert len(modules) == 2 * 6
    assert modules.initial(torch_stream(0, "phi")).keys() == dict(modules.named_parameters()).keys()


def test_ln_tuning_changes_the_norms_of_the_layers(toy_bert: Path) -> None:
    encoder = load_encoder(str(toy_bert))
    modules = hf_peft.inject(
        resolve(encoder.module, encoder.layout), hf_peft.HfConfig(config={"peft_type": "LN_TUNING"})
    )
    assert {path.rpartition(":")[2] for path in modules} == {"LayerNorm"}
    assert len(modules) == 2 * 2
    assert sum(value.numel() for value in modules.parameters()) == 4 * 2 * 32
