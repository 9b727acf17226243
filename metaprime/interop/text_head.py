"""Lets the state of a text pass the layer that transformers has between its encoder and a linear head.

Our head of a text is one linear layer over one state. Those of transformers have a layer (D, D) and an activation before
it: BERT's pooler, RoBERTa's `dense`, DistilBERT's `pre_classifier`. The layer becomes a multiple of the identity so small
that the activation is linear there to the last bit, and the head's weight makes up for it; a ReLU gets a bias that keeps its
arguments positive instead. Shape suffixes: D hidden size, C outputs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from metaprime.types import MetaprimeError, Params

TINY = 2.0**-30
"""Factor of the identity: 1 + erf(2^-30 x) is 1 in float32, and so is tanh(2^-30 x) / (2^-30 x), for every x below 100."""

SLOPES = {"deberta": 0.5, "deberta-v2": 0.5, "electra": 0.5, "eurobert": 0.5}
"""Model type -> slope at 0 of the activation, a GELU; all others but DistilBERT's ReLU have tanh, whose slope is 1."""

POOLING_NAMES = {"eurobert": {"first": "bos", "mean": "mean"}, "modernbert": {"first": "cls", "mean": "mean"}}
"""Model type -> its config's names of our poolings; the classifiers of all other types read the first state."""


def pooled_by(config: Any, pooling: str) -> dict[str, str]:
    """Returns the key of an encoder's config that has its classifier read another state, if it has one.

    Args:
        config: the encoder's own config.
        pooling: `first`, `mean`, or empty for none.

    Example: `pooled_by(encoder.module.config, "mean")`
    """
    name = POOLING_NAMES.get(config.model_type, {}).get(pooling)
    return {"classifier_pooling": name} if name else {}


def check_pooling(model: PreTrainedModel, pooling: str) -> None:
    """Refuses a classifier that reads another state of a text, or computes more than a head and one layer before it.

    Args:
        model: a classifier of texts.
        pooling: the state that the head reads, `first` or `mean`.

    Raises:
        MetaprimeError: it is such a classifier.

    Example: `check_pooling(model, "first")`
    """
    _layers(model)
    if pooling != "first" and model.config.model_type not in POOLING_NAMES:
        raise MetaprimeError(
            f"{type(model).__name__} reads the first sub-word of a text, and this head the mean of all: tune with task.pooling: "
            "first to export the model"
        )


@torch.no_grad()
def let_pass(model: PreTrainedModel, head: Params) -> None:
    """Copies a head into a classifier, and has the layer before it pass the encoder's state.

    Args:
        model: a classifier of texts, whose encoder has its final weights.
        head: `weight` (C, D) and `bias` (C,).

    Raises:
        MetaprimeError: the classifier has other layers.

    Example: `let_pass(model, linear_head(tuned))`
    """
    (_, before), (_, last) = _layers(model)
    identity_DD = torch.eye(before.out_features)
    if model.config.model_type == "distilbert":
        shift, factor, slope = _largest_state(model), 1.0, 1.0
    else:
        shift, factor, slope = 0.0, TINY, SLOPES.get(model.config.model_type, 1.0)
    before.weight.copy_(factor * identity_DD)
    before.bias.fill_(shift)
    last.weight.copy_(head["weight"] / (factor * slope))
    last.bias.copy_(head["bias"] - shift * head["weight"].sum(1))


def saved_beside(model: PreTrainedModel) -> list[str]:
    """Returns the names of the modules that hold a classifier's layers after the encoder: `["classifier", "pooler"]`.

    Args:
        model: a classifier of texts.

    Raises:
        MetaprimeError: the classifier has other layers.
    """
    names = {path.removesuffix(".dense").removesuffix(".out_proj").split(".")[-1] for path, _ in _layers(model)}
    return sorted(names)


def _layers(model: PreTrainedModel) -> tuple[tuple[str, nn.Linear], tuple[str, nn.Linear]]:
    """Returns path and layer of the linear layer (D, D) before the head, and of the head."""
    base = model.base_model_prefix
    ends = ("", f"{base}.", f"{base}.pooler.")
    found = [
        (path, module)
        for path, module in model.named_modules()
        if [*module.parameters(recurse=False)] and (not path.startswith(ends[1]) or f"{path}.".startswith(ends[2]))
    ]
    linear = [(path, module) for path, module in found if isinstance(module, nn.Linear) and module.bias is not None]
    if len(linear) != len(found) or len(linear) != 2 or linear[0][1].weight.shape != (model.config.hidden_size,) * 2:
        raise MetaprimeError(
            f"{type(model).__name__} puts other layers on its encoder than a square one and a head "
            f"({', '.join(path for path, _ in found)}), which our head does not fit"
        )
    return linear[0], linear[1]


def _largest_state(model: PreTrainedModel) -> float:
    """Returns a power of two above every value that the encoder's last layer norm can give."""
    norm = [module for module in model.modules() if isinstance(module, nn.LayerNorm)][-1]
    largest = (norm.weight.abs() * math.sqrt(norm.weight.numel()) + norm.bias.abs()).max().item()
    return 2.0 ** math.ceil(math.log2(largest))
