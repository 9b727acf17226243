"""The files for AdapterHub: names and values. benchmarks/adapterhub.py shows that its package computes our logits from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from metaprime.interop.adapterhub import save_for_adapterhub
from metaprime.interop.classifier import Tuned
from metaprime.models.encoder import Encoder, load_encoder
from metaprime.models.sites import resolve
from metaprime.peft import METHODS
from metaprime.peft.method import MethodConfig
from metaprime.types import MetaprimeError, Params

LABELS = ("O", "B-PER", "I-PER")


def made(folder: Path, method: str, settings: dict[str, Any]) -> tuple[Encoder, MethodConfig, Params]:
    encoder, config = load_encoder(str(folder)), METHODS[method].config(**settings)
    modules = METHODS[method].inject(resolve(encoder.module, encoder.layout), config)
    values = {f"adapter.{name}": torch.randn(value.shape) for name, value in modules.named_parameters()}
    return encoder, config, values | {"head.weight": torch.randn(3, 32), "head.bias": torch.randn(3)}


@pytest.mark.parametrize(
    ("method", "settings", "blocks"),
    [
        ("pfeiffer", {"bottleneck": 5}, ["output"]),
        ("houlsby", {"bottleneck": 5, "composition": "learned"}, ["attention.output", "output"]),
        ("houlsby", {"bottleneck": 5, "layer_norm": "in"}, ["attention.output", "output"]),
        ("scaled_parallel", {"bottleneck": 9}, ["output"]),
    ],
    ids=str,
)
def test_every_value_is_there_under_its_name(
    toy_bert: Path, tmp_path: Path, method: str, settings: dict[str, Any], blocks: list[str]
) -> None:
    encoder, config, values = made(toy_bert, method, settings)
    save_for_adapterhub(Tuned(encoder, config, LABELS, values), tmp_path)
    found = load_file(tmp_path / "adapter.safetensors")
    twice = 2 * 2 * 2 if "layer_norm" in settings else 0  # weight and bias of two norms in two layers
    assert len(found) == len([name for name in values if name.startswith("adapter.")]) + twice
    places = {name.split(".adapters.metaprime.")[0] for name in found}
    assert places == {f"bert.encoder.layer.{index}.{block}" for index in (0, 1) for block in blocks}
    down = found[f"bert.encoder.layer.1.output.adapters.metaprime.adapter_down.{1 if twice else 0}.weight"]
    assert torch.equal(down, values["adapter.1.ffn.down_weight"])
    about = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (about["name"], about["model_class"], about["hidden_size"]) == ("metaprime", "BertAdapterModel", 32)
    assert int(32 // about["config"]["reduction_factor"]) == settings["bottleneck"]
    assert about["config"]["is_parallel"] == (method == "scaled_parallel")
    assert about["config"]["original_ln_before"] == (method == "pfeiffer")
    expected = "learned" if "composition" in settings else {"scaled_parallel": 4.0}.get(method, 1.0)
    assert about["config"]["scaling"] == expected
    head = load_file(tmp_path / "model_head.safetensors")
    assert torch.equal(head["heads.metaprime.1.weight"], values["head.weight"])
    told = json.loads((tmp_path / "head_config.json").read_text())["config"]
    assert told["label2id"] == {"O": 0, "B-PER": 1, "I-PER": 2}


def test_mam_is_a_union_of_its_parts(toy_bert: Path, tmp_path: Path) -> None:
    encoder, config, values = made(toy_bert, "mam", {"prefix": {"length": 3}})
    save_for_adapterhub(Tuned(encoder, config, LABELS, values), tmp_path)
    about = json.loads((tmp_path / "adapter_config.json").read_text())["config"]
    assert [part["architecture"] for part in about["configs"]] == ["prefix_tuning", None]
    found = load_file(tmp_path / "adapter.safetensors")
    prefix = found["bert.prefix_tuning.prefix_tunings.metaprime.self_prefix.control_trans"].view(3, 4, 4, 8)
    assert torch.equal(prefix[:, 3].transpose(0, 1), values["adapter.prefix.1.values"])
    assert sum(value.numel() for value in found.values()) == sum(
        value.numel() for name, value in values.items() if name.startswith("adapter.")
    )


def test_lora_names_its_projections(toy_bert: Path, tmp_path: Path) -> None:
    encoder, config, values = made(toy_bert, "lora", {"sites": ("key", "ffn_out"), "rank": 2, "alpha": 3.0})
    save_for_adapterhub(Tuned(encoder, config, LABELS, values), tmp_path)
    about = json.loads((tmp_path / "adapter_config.json").read_text())["config"]
    assert (about["attn_matrices"], about["intermediate_lora"], about["output_lora"]) == (["k"], False, True)
    found = load_file(tmp_path / "adapter.safetensors")
    name = "bert.encoder.layer.1.output.dense.loras.metaprime.lora_B"
    assert torch.equal(found[name], values["adapter.1.ffn_out.lora_B"])
    assert len(found) == 2 * 2 * 2


@pytest.mark.parametrize("width", range(1, 33))
def test_the_factor_gives_the_width_back(toy_bert: Path, tmp_path: Path, width: int) -> None:
    encoder, config, values = made(toy_bert, "pfeiffer", {"bottleneck": width})
    save_for_adapterhub(Tuned(encoder, config, LABELS, values), tmp_path)
    about = json.loads((tmp_path / "adapter_config.json").read_text())
    assert int(32 // about["config"]["reduction_factor"]) == width


@pytest.mark.parametrize(
    ("model_type", "method", "settings", "told"),
    [
        *((name, "lora", {}, "only bert, roberta") for name in ("modernbert", "distilbert", "deberta-v2", "camembert")),
        ("bert", "ia3", {}, "'ia3' has no equivalent in AdapterHub"),
        ("bert", "lora", {"sites": ("value", "attention_out")}, "no LoRA at attention_out"),
        ("bert", "prefix", {"mlp": 4}, "comes out of its MLP"),
        ("bert", "prefix", {"shift_positions": True}, "here they begin after it"),
        ("bert", "parallel_attention", {}, "another function"),
        ("bert", "houlsby", {"composition": "gated"}, "another function"),
        ("bert", "pfeiffer", {"layer_norm": "in"}, "second layer norm"),
    ],
)
def test_what_would_be_another_function_is_refused(
    toy_encoder: Callable[[str], Path],
    tmp_path: Path,
    model_type: str,
    method: str,
    settings: dict[str, Any],
    told: str,
) -> None:
    encoder, config, values = made(toy_encoder(model_type), method, settings)
    with pytest.raises(MetaprimeError, match=told):
        save_for_adapterhub(Tuned(encoder, config, LABELS, values), tmp_path)
    assert not list(tmp_path.iterdir())
