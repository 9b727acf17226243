"""Loads the token classifier that transformers has for an encoder, and puts our head on it.

The classifier's own head must be one linear layer, as ours is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn
from transformers import AutoModelForTokenClassification, PreTrainedModel

from metaprime.models.encoder import Encoder, label_names, quiet
from metaprime.peft import MethodConfig
from metaprime.types import MetaprimeError, Params, strip_prefix


@dataclass(frozen=True)
class Tuned:
    """A tuned model, to be written for other packages.

    Attributes:
        encoder: the encoder of adapter and head; after full fine-tuning, the tuned one.
        method: settings of the PEFT method.
        labels: names of the C labels.
        values: adapter and head by full name, in the method's shapes; `head.weight` is `(C, D)`.
        trust_remote_code: whether Python files that come with the encoder may be run.
    """

    encoder: Encoder
    method: MethodConfig
    labels: Sequence[str]
    values: Params
    trust_remote_code: bool = False


def linear_head(values: Params, scale: float = 1.0) -> Params:
    """Returns `weight` (C, D) and `bias` (C,) of the linear layer that a saved head computes.

    No other package divides the features that the head reads: the weight is divided here, by a power
    of four, so that the logits are the same.

    Args:
        values: adapter and head by full name; `head.weight` is `(C, D)`.
        scale: divisor of the features, `Encoder.scale`.

    Raises:
        MetaprimeError: the head is not one linear layer.

    Example: `linear_head(artifact.values)["weight"].shape`
    """
    head = strip_prefix("head", values)
    if head.keys() != {"weight", "bias"}:
        raise MetaprimeError(
            f"this head holds {', '.join(sorted(head)) or 'nothing'}, and other packages have one linear layer, weight and bias"
        )
    return {"weight": head["weight"] / scale, "bias": head["bias"]}


def load_classifier(tuned: Tuned) -> PreTrainedModel:
    """Loads the token classifier of a model's encoder in float32; its head is a random draw.

    Raises:
        MetaprimeError: transformers has no such class, or its head is more than a linear layer.

    Example: `load_classifier(tuned).num_labels`
    """
    try:
        with quiet():
            model: PreTrainedModel = AutoModelForTokenClassification.from_pretrained(
                address(tuned.encoder.name),
                dtype=torch.float32,
                trust_remote_code=tuned.trust_remote_code,
                **label_names(tuned.labels),
            )
    except ValueError as error:
        reason = str(error).split("\n")[0]
        raise MetaprimeError(f"transformers cannot read {tuned.encoder.name} as a token classifier: {reason}") from None
    classifier_path(model)
    layers = tuned.encoder.module.config.num_hidden_layers
    if model.config.num_hidden_layers != layers:
        raise MetaprimeError(
            f"encoder.layer keeps {layers} of the {model.config.num_hidden_layers} layers of {tuned.encoder.name}, and other "
            "packages load all of them: prime first, which saves an encoder of that many layers"
        )
    return model


def classifier_path(model: PreTrainedModel) -> str:
    """Returns the name of a token classifier's last layer, `classifier` in most architectures.

    Raises:
        MetaprimeError: the model puts more than one linear layer with a bias on its encoder.

    Example: `model.get_submodule(classifier_path(model))`
    """
    children = {name: part for name, part in model.named_children() if next(part.parameters(), None) is not None}
    heads = {name: part for name, part in children.items() if name != model.base_model_prefix}
    linear = [name for name, part in heads.items() if isinstance(part, nn.Linear) and part.bias is not None]
    if len(heads) > 1 or len(linear) != 1:
        raise MetaprimeError(
            f"{type(model).__name__} puts more than a linear layer on the encoder ({', '.join(sorted(heads))}), which our head "
            "does not fit"
        )
    return linear[0]


def address(name: str) -> str:
    """Returns the name of an encoder as it holds in every folder of this machine.

    Args:
        name: a folder or a hub id.

    Returns:
        The absolute path of a folder; a hub id as it is.

    Example: `address("runs/demo/primed")`
    """
    return os.path.abspath(name) if Path(name).exists() else name


def revision(name: str) -> str | None:
    """Returns the commit of a hub id that the cache holds; None for a folder: `revision("org/name")`."""
    if Path(name).exists():
        return None
    found: Any = try_to_load_from_cache(name, "config.json")
    # A cached file lies at .../snapshots/<commit>/config.json.
    return Path(found).parent.name if isinstance(found, str) else None
