"""Loading theta: always float32, never a pickle, never a weight that the checkpoint does not hold."""

from __future__ import annotations

import json
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_permissions import Forbid
from transformers import AutoModel, AutoTokenizer, CanineTokenizer, dynamic_module_utils

from metaprime.models.encoder import load_encoder, load_tokenizer, save_encoder, weights_hash
from metaprime.models.sites import BERT
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


def test_an_unknown_architecture_is_refused_with_what_a_row_needs(toy_encoder: Callable[[str], Path]) -> None:
    refused(
        toy_encoder("albert"),
        r"'albert' has no row in metaprime/models/sites\.py.*encoder\.sites: .*attention_out, ffn_in",
    )


@pytest.mark.parametrize("architecture", ["rembert", "mpnet"])
def test_an_architecture_without_sdpa_is_told_so(toy_encoder: Callable[[str], Path], architecture: str) -> None:
    folder = str(toy_encoder(architecture))
    with pytest.raises(MetaprimeError, match=r"has no sdpa attention in transformers: set encoder\.attention: eager"):
        load_encoder(folder, "sdpa", BERT)


def configured(folder: Path, **values: object) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))
    return folder


@pytest.mark.parametrize("key", ["is_decoder", "is_encoder_decoder"])
def test_a_decoder_is_refused(folder: Path, key: str) -> None:
    refused(
        configured(folder, **{key: True}), rf"encoder\.name '.*encoder': its config\.json says {key}, but metaprime"
    )


def test_a_tokenizer_with_more_pieces_than_embeddings_is_refused(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    last = len(tokenizer)
    tokenizer.add_tokens(["[new]"])
    tokenizer.save_pretrained(folder)
    refused(
        folder, rf"tokenizer\.json numbers '\[new\]' as {last}, but config\.json and weights have {last} embeddings"
    )
    module = AutoModel.from_pretrained(folder)
    module.resize_token_embeddings(last + 1)
    module.save_pretrained(folder)
    assert load_encoder(str(folder)).module.get_input_embeddings().num_embeddings == last + 1


def test_a_tokenizer_that_cannot_pad_is_refused(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    refused(folder, "its tokenizer has no padding token: name one as pad_token")
    with pytest.raises(MetaprimeError, match="no padding token"):
        load_tokenizer(str(folder))


def test_the_tokenizer_alone_needs_no_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    assert load_tokenizer(str(folder)).is_fast


class Malicious:
    """An object whose unpickling creates a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.file,)


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Writes a malicious pickle; afterwards, nothing must have read it."""
    sprung, set_up = tmp_path / "sprung", []

    def write(file: Path) -> None:
        set_up.append(file)
        with file.open("wb") as opened:
            pickle.dump({"weight": Malicious(sprung)}, opened)

    yield write
    assert not sprung.exists()
    with set_up[0].open("rb") as opened:
        pickle.load(opened)
    assert sprung.exists()  # it would have


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth", "last.ckpt", "model.pkl"])
def test_a_malicious_pickle_is_refused_unread(folder: Path, trap: Callable[[Path], None], name: str) -> None:
    trap(folder / name)
    (folder / WEIGHTS).unlink()
    refused(folder, rf"{re.escape(name)} is a pickle, which can run code when read")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "training_args.bin", "optimizer.pt", "adapter_model.bin"])
def test_a_malicious_pickle_beside_the_weights_is_left_alone(
    folder: Path, trap: Callable[[Path], None], name: str
) -> None:
    before = load_encoder(str(folder)).weights
    trap(folder / name)
    assert load_encoder(str(folder)).weights == before


@pytest.mark.parametrize("beside", ["metaprime.safetensors", "adapter_model.safetensors"])
def test_a_malicious_pickle_beside_other_tensors_is_not_taken_instead(
    folder: Path, trap: Callable[[Path], None], beside: str
) -> None:
    trap(folder / "pytorch_model.bin")
    (folder / WEIGHTS).rename(folder / beside)
    refused(folder, r"encoder\.name '.*encoder' cannot be loaded: .*model\.safetensors")


def test_a_config_that_names_a_pickle_as_weights_is_refused(folder: Path, trap: Callable[[Path], None]) -> None:
    trap(folder / "pytorch_model.bin")
    configured(folder, transformers_weights="pytorch_model.bin")
    refused(folder, r"config\.json names 'pytorch_model\.bin' as transformers_weights, which is no safetensors file")


@pytest.fixture
def sharded(folder: Path) -> Path:
    module = AutoModel.from_pretrained(folder)
    (folder / WEIGHTS).unlink()
    module.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


def test_a_sharded_checkpoint_is_the_same_encoder(toy_bert: Path, sharded: Path) -> None:
    assert load_encoder(str(sharded)).weights == load_encoder(str(toy_bert)).weights


@pytest.mark.parametrize(
    "way", ["../outside.safetensors", "{root}/outside.safetensors", "sub/../../outside.safetensors"]
)
def test_an_index_that_leads_out_of_the_folder_is_refused(sharded: Path, tmp_path: Path, way: str) -> None:
    index = sharded / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    name, shard = next(iter(content["weight_map"].items()))
    shutil.copy(sharded / shard, tmp_path / "outside.safetensors")  # which would do
    content["weight_map"][name] = way.format(root=tmp_path)
    index.write_text(json.dumps(content))
    refused(
        sharded, r"index\.json names the shard '.*outside\.safetensors', which is not a \*\.safetensors file in its own"
    )


def test_an_index_that_names_a_pickle_is_refused(sharded: Path, trap: Callable[[Path], None]) -> None:
    index = sharded / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    trap(sharded / "model.bin")
    content["weight_map"] = dict.fromkeys(content["weight_map"], "model.bin")
    index.write_text(json.dumps(content))
    refused(sharded, r"names the shard 'model\.bin', which is not a \*\.safetensors file")


@pytest.mark.parametrize("text", ["{ not json", "[]", "{}", '{"weight_map": 3}'])
def test_a_damaged_index_is_refused(sharded: Path, text: str) -> None:
    (sharded / "model.safetensors.index.json").write_text(text)
    refused(sharded, r"model\.safetensors\.index\.json is damaged .*: copy the checkpoint again")


def test_an_index_of_shards_that_are_not_there_is_refused(sharded: Path) -> None:
    next(sharded.glob("model-*.safetensors")).unlink()
    refused(sharded, r"encoder\.name '.*encoder' cannot be loaded: ")


REMOTE = """
from pathlib import Path
from transformers import BertConfig, BertModel
Path({sprung!r}).touch()
class ForeignConfig(BertConfig):
    model_type = {model_type!r}
class ForeignModel(BertModel):
    config_class = ForeignConfig
"""


def with_code(folder: Path, sprung: Path, model_type: str) -> Path:
    """The encoder as a repository with Python files of its own."""
    (folder / "foreign.py").write_text(REMOTE.format(sprung=str(sprung), model_type=model_type))
    auto_map = {"AutoConfig": "foreign.ForeignConfig", "AutoModel": "foreign.ForeignModel"}
    return configured(folder, model_type=model_type, auto_map=auto_map)


def test_code_that_comes_with_an_encoder_is_not_run_unasked(folder: Path, tmp_path: Path) -> None:
    with_code(folder, tmp_path / "sprung", "foreign")
    for layout in (None, BERT):
        with pytest.raises(MetaprimeError, match=r"Python code \(auto_map .*set encoder\.trust_remote_code: true"):
            load_encoder(str(folder), layout=layout)
    assert not (tmp_path / "sprung").exists()


def test_what_transformers_knows_itself_is_loaded_without_that_code(folder: Path, tmp_path: Path) -> None:
    with_code(folder, tmp_path / "sprung", "bert")
    assert type(load_encoder(str(folder)).module).__module__.startswith("transformers.models.bert")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_is_run_when_asked(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = load_encoder(str(folder)).weights
    with_code(folder, tmp_path / "sprung", "foreign")
    encoder = load_encoder(str(folder), layout=BERT, trust_remote_code=True)
    assert (tmp_path / "sprung").exists()
    assert type(encoder.module).__name__ == "ForeignModel"
    assert encoder.weights == before


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
    refused(folder, "names of its weights have 'other.' in them")


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


def test_a_generic_tokenizer_has_the_class_that_transformers_4_knows(folder: Path, tmp_path: Path) -> None:
    encoder = load_encoder(str(folder))
    encoder.tokenizer.save_pretrained(tmp_path / "stock")
    save_encoder(encoder.module, encoder.tokenizer, tmp_path / "saved")
    stock, saved = (
        json.loads((tmp_path / name / "tokenizer_config.json").read_text("utf-8")) for name in ("stock", "saved")
    )
    # The name that version 4 refuses: findings/transformers_tokenizer_class_backwards.sh.
    assert stock["tokenizer_class"] == "TokenizersBackend"
    assert saved == {**stock, "tokenizer_class": "PreTrainedTokenizerFast"}
    words = ["Ada", "naps", "."]
    again = load_encoder(str(tmp_path / "saved")).tokenizer
    assert again(words, is_split_into_words=True) == encoder.tokenizer(words, is_split_into_words=True)


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


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json", ""])
def test_an_encoder_without_permission_is_called_that(folder: Path, forbid: Forbid, name: str) -> None:
    forbid(folder / name)
    refused(folder, rf"^{folder / name}: permission denied: .*chmod")
