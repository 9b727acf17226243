"""Measures the scale of the hidden states that a head reads.

Encoders differ by a factor of ten in the size of their last hidden states, and with it in the step
that a head needs. Heads therefore read features divided by `feature_scale`, a power of four: the
division is exact, and encoders of ordinary scale, one half to two, are read as they are.
"""

from __future__ import annotations

import math

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

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


def feature_scale(name: str, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
    """Returns the divisor of an encoder's features: the power of four nearest to their deviation.

    Args:
        name: the encoder's, for messages.
        module: the encoder.
        tokenizer: its tokenizer.

    Raises:
        MetaprimeError: the hidden states are constant or not finite.

    Example: `feature_scale("base", module, tokenizer)` is 1.0 for the embedded encoder and 0.25 for MiniLM.
    """
    size = deviation(module, tokenizer)
    if not (math.isfinite(size) and size > 0):
        raise MetaprimeError(
            f"encoder.name {name!r}: its hidden states of different words are {'equal' if size == 0 else size}: "
            "the checkpoint cannot be used, give another"
        )
    return float(4.0 ** round(math.log(size, 4)))
