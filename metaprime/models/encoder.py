"""Loads a Hugging Face encoder (theta) and its tokenizer from a folder or a hub id, safetensors only."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from metaprime.files import write_json
from metaprime.models import attention, deberta
from metaprime.models.checkpoint import encoder_class, load_weights, own_encoder
from metaprime.models.features import feature_scale
from metaprime.models.folder import not_loaded, refuse_bad_folder, refuse_missing
from metaprime.models.sites import Layout, layout_of, resolve, without_fixed
from metaprime.models.spacing import Spaced, spaced
from metaprime.models.trial import try_encoder
from metaprime.types import Direction, MetaprimeError, Params, Spacing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoder:
    """A loaded backbone with its tokenizer, never modified.

    Attributes:
        module: the backbone as loaded, in evaluation mode.
        tokenizer: its fast tokenizer.
        layout: its row of the site table.
        name: folder or hub id.
        weights: hash of the weights (`weights_hash`).
        autocast: whether models over it multiply matrices in bfloat16.
        scale: divisor of its hidden states before a head (`models/features.py`).
        padded: reason why models over it keep batches padded; empty: whether they can work on packed rows is
            tried (`models/packing_check.py`).
    """

    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    layout: Layout
    name: str
    weights: str
    autocast: bool = False
    scale: float = 1.0
    padded: str = ""


def load_encoder(
    name: str,
    implementation: str = "sdpa",
    layout: Layout | None = None,
    trust_remote_code: bool = False,
    *,
    spacing: Spacing | None = "auto",
    direction: Direction = "both",
) -> Encoder:
    """Loads backbone and tokenizer; weights become float32 whatever the precision of the checkpoint.

    Args:
        name: a folder as `save_pretrained` writes it, or a hub id.
        implementation: `sdpa` or `eager` attention.
        layout: the sites; by default the architecture's row of the site table.
        trust_remote_code: whether Python files that come with the checkpoint may be run.
        spacing: as for `read_tokenizer`.
        direction: `both` refuses an encoder in which no word sees those behind it.

    Raises:
        MetaprimeError: the folder or hub id cannot be read; weights are pickled or incomplete; the
            tokenizer is missing, slow or another model's; the model is a decoder or does not run, or
            its architecture has no row in the site table.

    Example: `load_encoder("bert-base-multilingual-cased")`
    """
    attention.register()
    refuse_bad_folder(name)
    try:
        with quiet():
            config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
            _refuse_bad_config(name, config, direction)
            layout = layout or layout_of(config.model_type)
            # transformers' DeBERTa refuses every implementation whose name has sdpa; ours is bound below.
            config._attn_implementation = attention.IMPLEMENTATIONS["eager" if layout.disentangled else implementation]
            module = load_weights(name, config, trust_remote_code)
    except (OSError, ValueError, HfHubHTTPError, SafetensorError) as error:
        raise _explained(name, str(error)) from None
    tokenizer = load_tokenizer(name, trust_remote_code, spacing)
    _refuse_larger_tokenizer(name, tokenizer, module)
    sites = resolve(module, layout)
    if layout.disentangled:
        for layer in sites.layers:
            deberta.bind(layer.attention, attention.FUNCTIONS[implementation])
    module.eval()
    try_encoder(name, module, tokenizer, direction)
    scale, layout = feature_scale(name, module, tokenizer), without_fixed(module, layout)
    padded = "its attention has terms of its own, outside transformers' interface" if layout.disentangled else ""
    weights = weights_hash(dict(module.state_dict()))
    return Encoder(module, tokenizer, layout, name, weights, scale=scale, padded=padded)


def shortened(encoder: Encoder, layer: int | None) -> Encoder:
    """Returns an encoder that ends after some of its layers, which a head then reads.

    Args:
        encoder: the loaded encoder; its module is changed.
        layer: number of layers to keep; None: all.

    Raises:
        MetaprimeError: the encoder has fewer layers, or they share their weights.

    Example: `shortened(encoder, 8)`
    """
    if layer is None:
        return encoder
    layers = encoder.module.get_submodule(encoder.layout.layers)
    if not isinstance(layers, nn.ModuleList) or encoder.module.config.num_hidden_layers != len(layers):
        raise MetaprimeError(
            f"encoder.layer: the layers of {encoder.name!r} share weights, so that none can be left out: set it to null"
        )
    if layer > len(layers):
        raise MetaprimeError(f"encoder.layer: {encoder.name!r} has {len(layers)} layers, not {layer}")
    del layers[layer:]
    config = encoder.module.config
    config.num_hidden_layers = layer
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layer]
    return replace(
        encoder,
        weights=weights_hash(dict(encoder.module.state_dict())),
        scale=feature_scale(encoder.name, encoder.module, encoder.tokenizer),
    )


def load_tokenizer(
    name: str, trust_remote_code: bool = False, spacing: Spacing | None = "auto"
) -> PreTrainedTokenizerBase:
    """Loads only the tokenizer of an encoder, and logs what is said of its spaces.

    Args:
        name: a folder or a hub id.
        trust_remote_code: whether Python files that come with the checkpoint may be run.
        spacing: as for `read_tokenizer`.

    Raises:
        MetaprimeError: the tokenizer is missing, slow or empty, or has no padding token.

    Example: `load_tokenizer("runs/demo/base")`
    """
    read = read_tokenizer(name, trust_remote_code, spacing)
    if read.notice:
        log.warning("%s: %s", name, read.notice)
    return read.tokenizer


def read_tokenizer(name: str, trust_remote_code: bool = False, spacing: Spacing | None = "auto") -> Spaced:
    """Loads only the tokenizer of an encoder, and logs nothing.

    Args:
        name: a folder or a hub id.
        trust_remote_code: whether Python files that come with the checkpoint may be run.
        spacing: `encoder.spacing`; None for what was trained before that key existed: the option of
            transformers, which some of its classes ignore, and nothing else.

    Raises:
        MetaprimeError: the tokenizer is missing, slow or empty, or has no padding token.

    Example: `read_tokenizer("runs/demo/base").notice`
    """
    refuse_missing(name)
    options = {} if spacing == "none" else {"add_prefix_space": True}
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                name, use_fast=True, trust_remote_code=trust_remote_code, **options
            )
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise _explained(name, str(error)) from None
    if not tokenizer.is_fast:
        raise MetaprimeError(f"encoder.name {name!r} has no fast tokenizer, which aligning words and sub-words needs")
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise MetaprimeError(f"encoder.name {name!r} has no tokenizer vocabulary: add its tokenizer.json to the folder")
    if tokenizer.pad_token_id is None:
        raise MetaprimeError(
            f"encoder.name {name!r}: its tokenizer has no padding token: name one as pad_token in its tokenizer_config.json"
        )
    return spaced(tokenizer, spacing or "none")


def weights_hash(weights: Params) -> str:
    """Returns the SHA-256 of names, dtypes, shapes and bytes, in the order of the names.

    Args:
        weights: tensors of any shape `(...,)` by name.

    Example: `weights_hash(dict(module.state_dict()))`
    """
    digest = hashlib.sha256()
    for key in sorted(weights):
        tensor = weights[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def label_names(labels: Sequence[str]) -> dict[str, Any]:
    """Returns the keys of a Hugging Face config that name the outputs of a head.

    Example: `label_names(["O", "B-PER"])["id2label"]` is `{0: "O", 1: "B-PER"}`.
    """
    return {"id2label": dict(enumerate(labels)), "label2id": {label: number for number, label in enumerate(labels)}}


def save_encoder(
    module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, labels: Sequence[str] = ()
) -> None:
    """Writes a plain Hugging Face folder, which `AutoModel.from_pretrained` reads without metaprime.

    Args:
        module: the encoder.
        tokenizer: its tokenizer.
        folder: the folder to write.
        labels: names of the outputs of the heads that will stand on it, written to config.json: a
            token classifier over this folder then has as many outputs, with these names.

    Example: `save_encoder(encoder.module, encoder.tokenizer, Path("primed"), task.labels)`
    """
    with quiet():
        module.save_pretrained(folder)
        save_tokenizer(tokenizer, folder)
        if labels:
            config = copy.deepcopy(module.config)
            config.update(label_names(labels))
            config.save_pretrained(folder)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes a tokenizer's files, with a class that versions before 5 know: `save_tokenizer(tokenizer, Path("primed"))`.

    transformers 5 writes a new name of the generic class, which `AutoTokenizer` of version 4 refuses; both read the old one.
    """
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    if values.get("tokenizer_class") == "TokenizersBackend":
        write_json(file, {**values, "tokenizer_class": "PreTrainedTokenizerFast"})


def _refuse_bad_config(name: str, config: PretrainedConfig, direction: Direction) -> None:
    """Refuses decoders, adapters without a language, and configs that name weights which are not safetensors."""
    if getattr(config, "is_encoder_decoder", False) and encoder_class(config) is None:
        alone = own_encoder(config)
        raise MetaprimeError(
            f"encoder.name {name!r}: its config.json says is_encoder_decoder, but metaprime needs an encoder alone: "
            + (
                f'save it once, and its tokenizer beside it: python -c "from transformers import AutoTokenizer, {alone}; '
                f"{alone}.from_pretrained('{name}').save_pretrained('FOLDER'); "
                f"AutoTokenizer.from_pretrained('{name}').save_pretrained('FOLDER')\""
                if alone
                else "give one"
            )
        )
    if getattr(config, "is_decoder", False) and direction == "both":
        raise MetaprimeError(
            f"encoder.name {name!r}: its config.json says is_decoder, but metaprime needs an encoder with bidirectional "
            "attention: give an encoder, set is_decoder to false if it was trained as one, or set encoder.direction: causal "
            "to take it as it is"
        )
    if getattr(config, "default_language", "") is None:
        languages = ", ".join(map(str, getattr(config, "languages", ())))
        raise MetaprimeError(
            f"encoder.name {name!r}: it has an adapter for each of its languages ({languages}), and its config.json chooses "
            "none: set default_language there to the one whose adapter all sentences shall pass, and list the others under "
            "encoder.sites.unused"
        )
    weights = getattr(config, "transformers_weights", None)
    if weights and not str(weights).endswith((".safetensors", ".safetensors.index.json")):
        raise MetaprimeError(
            f"encoder.name {name!r}: its config.json names {weights!r} as transformers_weights, which is no safetensors file: "
            "remove that key"
        )


def _refuse_larger_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase, module: PreTrainedModel) -> None:
    """Refuses a tokenizer with a token id beyond the embedding table."""
    rows = cast(nn.Embedding, module.get_input_embeddings()).num_embeddings
    piece, highest = max(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    if highest >= rows:
        raise MetaprimeError(
            f"encoder.name {name!r}: its tokenizer.json numbers {piece!r} as {highest}, but config.json and weights have "
            f"{rows} embeddings: give the tokenizer that belongs to these weights, or add the missing rows with transformers' "
            "resize_token_embeddings"
        )


def _explained(name: str, error: str) -> MetaprimeError:
    """Turns an error of transformers into one that names the key and a remedy."""
    if "trust_remote_code" in error:
        return MetaprimeError(
            f"encoder.name {name!r} brings its own Python code (auto_map in its config.json), which is not run: use an "
            "architecture that transformers supports, or read that code and set encoder.trust_remote_code: true"
        )
    if "scaled_dot_product_attention" in error:
        return MetaprimeError(
            f"encoder.name {name!r}: this architecture has no sdpa attention in transformers: set encoder.attention: eager"
        )
    return not_loaded(name, error)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences transformers inside the block: it would report the unused head of every checkpoint at length.

    Example: `with quiet(): module.save_pretrained(folder)`
    """
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
