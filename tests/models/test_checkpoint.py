"""Weights under other names, and those of an encoder alone, are told from damaged ones."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, BertForMaskedLM, MT5Config, MT5EncoderModel, MT5Model, PreTrainedModel
from transformers.models.m2m_100.modeling_m2m_100 import M2M100Encoder

from metaprime.models.encoder import load_encoder
from metaprime.models.sites import BERT, Layout
from metaprime.types import MetaprimeError

WEIGHTS = "model.safetensors"
T5 = Layout(
    layers="encoder.block",
    **{name: f"layer.0.SelfAttention.{name[0]}" for name in ("query", "key", "value")},
    attention_out="layer.0.SelfAttention.o",
    ffn_in="layer.1.DenseReluDense.wi_0",
    ffn_out="layer.1.DenseReluDense.wo",
    attention="layer.0.SelfAttention",
)
SIZES = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "pad_token_id": 0, "eos_token_id": 3}


@pytest.fixture
def folder(toy_bert: Path, tmp_path: Path) -> Path:
    """A copy of the toy BERT that a test may change."""
    return Path(shutil.copytree(toy_bert, tmp_path / "encoder"))


def rename(folder: Path, change: Callable[[str], str]) -> None:
    for file in folder.glob("*.safetensors"):
        save_file({change(name): value for name, value in load_file(file).items()}, file, metadata={"format": "pt"})


def run_remedy(error: MetaprimeError) -> None:
    """Runs the Python command in a message."""
    (command,) = re.findall(r'python -c ".*"', str(error))
    exec(shlex.split(command)[2])


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda name: f"_orig_mod.{name}", "_orig_mod."),
        (lambda name: f"module.{name}", "module."),
        (lambda name: f"module._orig_mod.{name}", "_orig_mod.module."),
        (lambda name: f"other.{name}", "other."),
        (lambda name: name.replace("encoder.layer.1.", "encoder.layer.1._orig_mod."), "_orig_mod."),
    ],
    ids=["compiled", "parallel", "both", "another", "one layer"],
)
@pytest.mark.parametrize("shards", [False, True])
def test_names_with_something_added_are_told_with_the_command_that_takes_it_out(
    folder: Path, change: Callable[[str], str], part: str, shards: bool
) -> None:
    before = load_encoder(str(folder)).weights
    if shards:
        module = AutoModel.from_pretrained(folder)
        (folder / WEIGHTS).unlink()
        module.save_pretrained(folder, max_shard_size="20KB")
        index = next(folder.glob("*.index.json"))
        content = json.loads(index.read_text())
        content["weight_map"] = {change(name): shard for name, shard in content["weight_map"].items()}
        index.write_text(json.dumps(content))
    rename(folder, change)
    with pytest.raises(
        MetaprimeError, match=f"names of its weights have '{part}' in them .*BertModel have not"
    ) as caught:
        load_encoder(str(folder))
    run_remedy(caught.value)
    assert load_encoder(str(folder)).weights == before


def test_a_head_on_top_does_not_hide_it(folder: Path) -> None:
    BertForMaskedLM.from_pretrained(folder).save_pretrained(folder)
    before = load_encoder(str(folder)).weights
    rename(folder, lambda name: f"module.{name}")
    with pytest.raises(MetaprimeError, match=r"have 'module\.' in them") as caught:
        load_encoder(str(folder))
    run_remedy(caught.value)
    assert load_encoder(str(folder)).weights == before


def test_a_weight_that_is_missing_all_the_same_is_not_put_down_to_names(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    del weights["encoder.layer.0.output.dense.weight"]
    save_file({f"module.{name}": value for name, value in weights.items()}, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(
        MetaprimeError, match=r"others in it are not of BertModel, for example module\..*saved together"
    ):
        load_encoder(str(folder))


def saved(folder: Path, module: PreTrainedModel, like: Path) -> Path:
    """A folder with a module's weights and the tokenizer of another encoder."""
    shutil.copytree(like, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    module.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_encoder_of_an_encoder_decoder_is_loaded_by_its_class(
    toy_bert: Path, tmp_path: Path, attention: str
) -> None:
    """With its biases of relative positions, which reach the attention as an argument of their own."""
    size = AutoConfig.from_pretrained(toy_bert).vocab_size
    folder = saved(tmp_path / "mt5", MT5EncoderModel(MT5Config(vocab_size=size, **SIZES)), toy_bert)
    ours, stock = load_encoder(str(folder), attention, T5).module, MT5EncoderModel.from_pretrained(folder).eval()
    assert type(ours) is MT5EncoderModel
    ids, mask = torch.randint(5, 60, (2, 9), generator=torch.Generator().manual_seed(0)), torch.ones(2, 9).long()
    mask[1, 6:] = 0
    found, expected = (
        module(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()] for module in (ours, stock)
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    found.square().sum().backward()
    expected.square().sum().backward()
    name = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    mine, theirs = (module.get_parameter(name).grad for module in (ours, stock))
    assert theirs.any()
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


def test_a_class_that_is_called_encoder_is_one_too(toy_bert: Path, tmp_path: Path) -> None:
    size = AutoConfig.from_pretrained(toy_bert).vocab_size
    sizes = {
        f"{part}_{name}": value
        for part in ("encoder", "decoder")
        for name, value in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 64))
    }
    config = AutoConfig.for_model(
        "m2m_100", vocab_size=size, d_model=32, pad_token_id=0, max_position_embeddings=130, **sizes
    )
    folder = saved(tmp_path / "m2m", M2M100Encoder(config), toy_bert)
    layout = Layout(
        layers="layers",
        **{name: f"self_attn.{name[0]}_proj" for name in ("query", "key", "value")},
        attention_out="self_attn.out_proj",
        ffn_in="fc1",
        ffn_out="fc2",
        attention="self_attn",
    )
    assert type(load_encoder(str(folder), layout=layout).module) is M2M100Encoder


def test_a_whole_encoder_decoder_is_refused_with_the_command_that_saves_its_encoder(
    toy_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = AutoConfig.from_pretrained(toy_bert).vocab_size
    folder = saved(tmp_path / "whole", MT5Model(MT5Config(vocab_size=size, **SIZES)), toy_bert)
    with pytest.raises(
        MetaprimeError, match=r"says is_encoder_decoder, but .* MT5EncoderModel\.from_pretrained"
    ) as caught:
        load_encoder(str(folder), layout=T5)
    monkeypatch.chdir(tmp_path)
    run_remedy(caught.value)
    assert type(load_encoder("FOLDER", layout=T5).module) is MT5EncoderModel
    # An encoder alone whose config.json does not say so.
    file = Path("FOLDER/config.json")
    config = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in config.items() if key != "architectures"}))
    with pytest.raises(MetaprimeError, match=r"set architectures in its config\.json to \['MT5EncoderModel'\]"):
        load_encoder("FOLDER", layout=T5)


def test_a_fixed_table_is_not_trained(changed_toy: Callable[..., Path], toy_bert: Path) -> None:
    """Loading a RoFormer makes its table of positions a parameter like any other."""
    folder = changed_toy("roformer", embedding_size=32)
    assert AutoModel.from_pretrained(folder).encoder.embed_positions.weight.requires_grad
    encoder = load_encoder(str(folder), "eager", BERT)
    assert encoder.layout.unused == ("pooler.", "encoder.embed_positions.")
    assert load_encoder(str(toy_bert)).layout.unused == ("pooler.",)
