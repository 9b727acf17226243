"""Chooses which hidden states a fresh head reads, and measures their scale.

Encoders differ by a factor of ten in the size of their last hidden states, and with it in the step
that a head needs. Heads therefore read features divided by `feature_scale`, a power of four: the
division is exact, and encoders of ordinary scale, one half to two, are read as they are.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from metaprime.models.encoder import Encoder, weights_hash
from metaprime.rng import torch_stream
from metaprime.types import MetaprimeError

SEQUENCES, LENGTH = 8, 32
"""Shape (B, L) of the random text on which the scale is measured."""


@torch.no_grad()
def deviation(module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
    """Returns the root mean square of the last hidden states around their mean.

    It is measured on sub-words drawn at random, so that it is a property of the encoder alone.

    Args:
        module: the encoder.
        tokenizer: its tokenizer.

    Example: `deviation(encoder.module, encoder.tokenizer)`
    """
    special = set(tokenizer.all_special_ids)
    ids_V = torch.tensor([number for number in sorted(tokenizer.get_vocab().values()) if number not in special])
    drawn_BL = torch.randint(len(ids_V), (SEQUENCES, LENGTH), generator=torch_stream(0, "feature scale"))
    ids_BL = ids_V[drawn_BL].to(module.device)
    hidden_BLD = module(input_ids=ids_BL, attention_mask=torch.ones_like(ids_BL)).last_hidden_state
    hidden_ND = hidden_BLD.flatten(0, 1).double()
    return float((hidden_ND - hidden_ND.mean(0)).square().mean().sqrt())


def feature_scale(encoder: Encoder) -> float:
    """Returns the divisor of an encoder's features: the power of four nearest to their deviation.

    Raises:
        MetaprimeError: the hidden states are constant or not finite.

    Example: `feature_scale(encoder)` is 1.0 for the embedded encoder and 0.25 for MiniLM.
    """
    size = deviation(encoder.module, encoder.tokenizer)
    if not (math.isfinite(size) and size > 0):
        raise MetaprimeError(
            f"encoder.name {encoder.name!r}: its hidden states of different words are {'equal' if size == 0 else size}: "
            "the checkpoint cannot be used, give another"
        )
    return float(4.0 ** round(math.log(size, 4)))


def shortened(encoder: Encoder, layer: int | None) -> Encoder:
    """Returns an encoder that ends after some of its layers, with the scale of its features.

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
    return replace(encoder, weights=weights_hash(dict(encoder.module.state_dict())))
