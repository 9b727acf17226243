"""Loading theta: a Hugging Face encoder and its tokenizer, from a folder or a hub id, safetensors only."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from metaprime.models import attention
from metaprime.models.sites import Layout, layout_of
from metaprime.types import MetaprimeError, Params


@dataclass(frozen=True)
class Encoder:
    """A loaded backbone as it came, its row of the site table, and the hash of its weights. Never modified."""

    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    layout: Layout
    name: str
    weights: str


def load_encoder(name: str, implementation: str = "sdpa") -> Encoder:
    """Loads backbone and tokenizer in float32, whatever the checkpoint's own precision.

    Args:
        name: a folder as `save_pretrained` writes it, or a hub id.
        implementation: `sdpa` or `eager`.

    Raises:
        MetaprimeError: the folder or hub id cannot be read, holds pickled weights only or not all weights, has no
            fast tokenizer, or is of an architecture without a row in the site table.
    """
    attention.register()
    _refuse_bad_folder(name)
    try:
        with _quiet():
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
            layout = layout_of(config.model_type)
            config._attn_implementation = attention.IMPLEMENTATIONS[implementation]
            module = _load_weights(name, config)
            tokenizer = AutoTokenizer.from_pretrained(
                name, use_fast=True, add_prefix_space=True, trust_remote_code=False
            )
    except (OSError, ValueError, HfHubHTTPError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        absent = "" if Path(name).exists() else "there is no folder of that name here, and as a hub id: "
        raise MetaprimeError(
            f"encoder.name {name!r} cannot be loaded: {absent}{reason}. Give a folder with config.json, model.safetensors and "
            "tokenizer files, or a hub id that is reachable or already downloaded"
        ) from None
    if not tokenizer.is_fast:
        raise MetaprimeError(f"encoder.name {name!r} has no fast tokenizer, which aligning words and sub-words needs")
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise MetaprimeError(f"encoder.name {name!r} has no tokenizer vocabulary: add its tokenizer.json to the folder")
    module.eval()
    return Encoder(module, tokenizer, layout, name, weights_hash(dict(module.state_dict())))


def weights_hash(weights: Params) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        tensor = weights[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_encoder(module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes a plain Hugging Face folder that `AutoModel.from_pretrained` reads with no code of ours."""
    with _quiet():
        module.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _refuse_bad_folder(name: str) -> None:
    folder = Path(name)
    if not folder.exists():
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise MetaprimeError(f"encoder.name: there is no folder {name!r}")
        return
    if not (folder / "config.json").is_file():
        raise MetaprimeError(f"encoder.name: folder {name!r} holds no config.json")
    if not any(folder.glob("*.safetensors")):
        pickled = next(iter(sorted(folder.glob("*.bin"))), None)
        if pickled:
            raise MetaprimeError(
                f"encoder.name: {pickled} is a pickle, which can run code when read. Convert it once, where you trust "
                f'it: python -c "import torch; from safetensors.torch import save_file; '
                f"save_file({{k: v.clone() for k, v in torch.load('{pickled}', weights_only=True).items()}}, "
                f"'{folder}/model.safetensors', metadata={{'format': 'pt'}})\""
            )
        raise MetaprimeError(f"encoder.name: folder {name!r} holds no *.safetensors")


def _load_weights(name: str, config: PretrainedConfig) -> PreTrainedModel:
    """The backbone with every weight out of the checkpoint: transformers would draw what is not there at random.

    Only a pooler may be missing. It is left away: it would be random weights saved as if they were learned.
    """
    module, info = AutoModel.from_pretrained(
        name,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # named below, never passed on
        output_loading_info=True,
    )
    wrong = {key: f"{tuple(found)}, not {tuple(own)}" for key, found, own in info["mismatched_keys"]}
    wrong |= {key: "missing" for key in info["missing_keys"] if not key.startswith("pooler.")}
    if wrong:
        key = min(wrong)
        raise MetaprimeError(
            f"encoder.name {name!r}: {len(wrong)} weights of its checkpoint do not fit its config.json, for example "
            f"{key} ({wrong[key]}): the two belong to different models, or the file was damaged"
        )
    if info["missing_keys"]:
        module.pooler = None
    return cast(PreTrainedModel, module)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Loading a base model out of a model with another head reports the head's weights at length: expected here."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
