"""Loading theta: always float32, never a pickle, never a weight that the checkpoint does not hold."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, CanineTokenizer, DistilBertConfig, DistilBertModel

from metaprime.models.encoder import load_encoder, save_encoder, weights_hash
from metaprime.types import MetaprimeError

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(toy_bert: Path, tmp_path: Path) -> Path:
    """A copy of the toy BERT that a test may damage."""
    return Path(shutil.copytree(toy_bert, tmp_path / "encoder"))


def rewrite(folder: Path, change) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file(change(weights), folder / WEIGHTS, metadata={"format": "pt"})


def without_pooler(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in weights.items() if not name.startswith("pooler.")}


def refused(folder: Path | str, message: str) -> None:
    with pytest.raises(MetaprimeError, match=message):
        load_encoder(str(folder))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_are_float32_whatever_the_checkpoint_holds(folder: Path, dtype: torch.dtype) -> None:
    AutoModel.from_pretrained(folder).to(dtype).save_pretrained(folder)
    stored = load_file(folder / WEIGHTS)
    assert {value.dtype for value in stored.values()} == {dtype}
    loaded = load_encoder(str(folder)).module.state_dict()
    assert {name: value.dtype for name, value in loaded.items()} == dict.fromkeys(stored, torch.float32)
    assert all(torch.equal(loaded[name], value.float()) for name, value in stored.items())


def test_it_comes_in_evaluation_mode_with_our_attention(toy_bert: Path) -> None:
    for implementation in ("sdpa", "eager"):
        encoder = load_encoder(str(toy_bert), implementation)
        assert not encoder.module.training
        assert encoder.module.config._attn_implementation == f"metaprime_{implementation}"
        assert encoder.name == str(toy_bert)


def test_a_pickle_is_refused_with_the_command_that_converts_it(folder: Path) -> None:
    before = load_encoder(str(folder)).weights
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(MetaprimeError, match=r"pytorch_model\.bin is a pickle") as caught:
        load_encoder(str(folder))
    command = re.search(r"python -c .*", str(caught.value))
    assert command
    subprocess.run([sys.executable, *shlex.split(command[0])[1:]], check=True)
    assert load_encoder(str(folder)).weights == before


def test_a_safetensors_file_beside_a_pickle_is_what_is_read(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    load_encoder(str(folder))


def test_an_unusable_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", r"there is no folder '.*nowhere'")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"folder '.*empty' holds no config\.json")
    (folder / WEIGHTS).unlink()
    refused(folder, r"holds no \*\.safetensors")


@pytest.mark.parametrize("text", ["{ not json", "{}", "[]"])
def test_a_corrupt_config_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    refused(folder, r"encoder\.name '.*encoder' cannot be loaded: .*config\.json")


def test_an_unknown_architecture_is_refused_with_what_a_row_needs(folder: Path) -> None:
    config = DistilBertConfig(vocab_size=50, dim=32, n_layers=1, n_heads=4, hidden_dim=64)
    DistilBertModel(config).save_pretrained(folder)
    refused(folder, r"'distilbert' has no row in metaprime/models/sites\.py.*attention_out, ffn_in")


def test_a_truncated_checkpoint_is_refused(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    refused(folder, r"encoder\.name '.*encoder' cannot be loaded: .*header")


def test_a_checkpoint_without_some_weight_is_refused_not_filled_at_random(folder: Path) -> None:
    gone = "encoder.layer.1.output.dense.weight"
    rewrite(folder, lambda weights: {name: value for name, value in weights.items() if name != gone})
    refused(folder, rf"1 weights of its checkpoint do not fit its config\.json, for example {gone} \(missing\)")


def test_a_checkpoint_of_other_names_is_refused(folder: Path) -> None:
    rewrite(folder, lambda weights: {f"other.{name}": value for name, value in weights.items()})
    refused(folder, "weights of its checkpoint do not fit")


def test_a_checkpoint_of_other_shapes_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    refused(folder, r"for example encoder\.layer\.0\.intermediate\.dense\.bias \(\(64,\), not \(48,\)\)")


def test_a_checkpoint_with_another_head_on_top_gives_its_encoder(folder: Path) -> None:
    before = load_encoder(str(folder)).weights
    rewrite(
        folder, lambda weights: {f"bert.{name}": value for name, value in weights.items()} | {"cls.x": torch.ones(2)}
    )
    assert load_encoder(str(folder)).weights == before


def test_a_slow_tokenizer_is_refused(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    CanineTokenizer().save_pretrained(folder)
    refused(folder, "has no fast tokenizer, which aligning words and sub-words needs")


def test_a_folder_without_tokenizer_is_refused(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    refused(folder, r"no tokenizer vocabulary: add its tokenizer\.json")


@pytest.mark.parametrize("sharded", [False, True])
def test_a_checkpoint_without_pooler_gets_none(folder: Path, sharded: bool) -> None:
    rewrite(folder, without_pooler)
    if sharded:
        module = AutoModel.from_pretrained(folder, add_pooling_layer=False)
        (folder / WEIGHTS).unlink()
        module.save_pretrained(folder, max_shard_size="20KB")
        assert not (folder / WEIGHTS).exists()
    one, again = load_encoder(str(folder)), load_encoder(str(folder))
    assert one.module.pooler is None
    assert one.weights == again.weights


def test_what_is_saved_is_an_ordinary_checkpoint(folder: Path, tmp_path: Path) -> None:
    encoder = load_encoder(str(folder))
    save_encoder(encoder.module, encoder.tokenizer, tmp_path / "saved")
    before, after = load_file(folder / WEIGHTS), load_file(tmp_path / "saved" / WEIGHTS)
    assert "pooler.dense.weight" in before
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "metaprime" not in (tmp_path / "saved" / "config.json").read_text()
    assert load_encoder(str(tmp_path / "saved")).weights == encoder.weights
    stock = AutoModel.from_pretrained(tmp_path / "saved").state_dict()
    assert all(torch.equal(stock[name], value) for name, value in before.items())


def test_saving_without_pooler_saves_none(folder: Path, tmp_path: Path) -> None:
    rewrite(folder, without_pooler)
    encoder = load_encoder(str(folder))
    save_encoder(encoder.module, encoder.tokenizer, tmp_path / "saved")
    assert load_file(tmp_path / "saved" / WEIGHTS).keys() == load_file(folder / WEIGHTS).keys()
    assert load_encoder(str(tmp_path / "saved")).weights == encoder.weights


def test_the_hash_sees_one_bit_and_not_the_order() -> None:
    draw = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(3, 4, generator=draw) for name in ("a", "b", "c")}
    whole = weights_hash(weights)
    assert len(whole) == 64
    assert weights_hash(dict(reversed(weights.items()))) == whole
    assert weights_hash({name: value.T.contiguous().T for name, value in weights.items()}) == whole
    flipped = {name: value.clone() for name, value in weights.items()}
    flipped["b"].view(torch.int32)[2, 3] ^= 1
    others = [
        flipped,
        {"a": weights["b"], "b": weights["a"], "c": weights["c"]},
        {**weights, "a": weights["a"].reshape(4, 3)},
        {**weights, "a": weights["a"].view(torch.int32)},
        {name: weights[name] for name in ("a", "b")},
    ]
    assert len({whole, *map(weights_hash, others)}) == 6
