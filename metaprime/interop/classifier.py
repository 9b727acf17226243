"""Loads the classifier that transformers has for an encoder, and puts our head on it.

Of a token classifier the own head must be one linear layer, as ours is. Classifiers of whole texts have one more layer
before it, which is made to let the encoder's state pass.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from torch import nn
from transformers import PreTrainedModel

from metaprime.interop.text_head import check_pooling, let_pass, pooled_by
from metaprime.models.encoder import Encoder, label_names, quiet
from metaprime.peft import MethodConfig
from metaprime.tasks.task import Plain
from metaprime.types import MetaprimeError, Params, strip_prefix

OF_WORDS = Plain("AutoModelForTokenClassification")
"""A token classifier."""


@dataclass(frozen=True)
class Tuned:
    """A tuned model, to be written for other packages.

    Attributes:
        encoder: the encoder of adapter and head; after full fine-tuning, the tuned one.
        method: settings of the PEFT method.
        labels: names of the C labels.
        values: adapter and head by full name, in the method's shapes; `head.weight` is `(C, D)`.
        trust_remote_code: whether Python files that come with the encoder may be run.
        plain: the model of transformers that has such a head.
    """

    encoder: Encoder
    method: MethodConfig
    labels: Sequence[str]
    values: Params
    trust_remote_code: bool = False
    plain: Plain = OF_WORDS


def linear_head(tuned: Tuned) -> Params:
    """Returns `weight` (C, D) and `bias` (C,) of the linear layer that a saved head computes.

    No other package divides the features that the head reads: the weight is divided here, by a power
    of four, so that the logits are the same. Where the head answers in a unit of its own, the layer answers with the
    numbers themselves. A head without a bias gets one of zeros.

    Raises:
        MetaprimeError: the head is not one linear layer.

    Example: `linear_head(tuned)["weight"].shape`
    """
    head, plain = strip_prefix("head", tuned.values), tuned.plain
    if head.keys() | {"bias"} != {"weight", "bias"}:
        raise MetaprimeError(
            f"this head holds {', '.join(sorted(head)) or 'nothing'}, and other packages have one linear layer, weight and bias"
        )
    weight = head["weight"]
    bias = head.get("bias", weight.new_zeros(len(weight)))
    return {"weight": weight * plain.unit / tuned.encoder.scale, "bias": bias * plain.unit + plain.centre}


def load_classifier(tuned: Tuned) -> PreTrainedModel:
    """Loads the classifier of a model's encoder in float32; its head is a random draw.

    Raises:
        MetaprimeError: transformers has no such class, its head is more than a linear layer, or reads another state.

    Example: `load_classifier(tuned).num_labels`
    """
    auto_class = tuned.plain.auto_class
    try:
        with quiet():
            model: PreTrainedModel = getattr(transformers, auto_class).from_pretrained(
                address(tuned.encoder.name),
                dtype=torch.float32,
                trust_remote_code=tuned.trust_remote_code,
                **told_to_loader(tuned),
            )
    except ValueError as error:
        reason = str(error).split("\n")[0]
        raise MetaprimeError(f"transformers cannot read {tuned.encoder.name} by {auto_class}: {reason}") from None
    if tuned.plain.pooling:
        check_pooling(model, tuned.plain.pooling)
    else:
        classifier_path(model)
    layers = tuned.encoder.module.config.num_hidden_layers
    if model.config.num_hidden_layers != layers:
        raise MetaprimeError(
            f"encoder.layer keeps {layers} of the {model.config.num_hidden_layers} layers of {tuned.encoder.name}, and other "
            "packages load all of them: prime first, which saves an encoder of that many layers"
        )
    return model


def told_to_loader(tuned: Tuned) -> dict[str, Any]:
    """Returns what the config of a model's encoder lacks for the classifier: names of the labels, and the pooling.

    Example: `load_peft(folder, told_to_loader(tuned))`
    """
    config, plain = tuned.encoder.module.config, tuned.plain
    names = {} if plain.auto_class == "AutoModelForMultipleChoice" else label_names(tuned.labels)
    settings = {**names, **pooled_by(config, plain.pooling)}
    return {} if all(getattr(config, name, None) == value for name, value in settings.items()) else settings


@torch.no_grad()
def put_head(model: PreTrainedModel, tuned: Tuned) -> None:
    """Copies a model's head into a loaded classifier, whose encoder has its final weights.

    Raises:
        MetaprimeError: the head is not one linear layer.

    Example: `put_head(load_classifier(tuned), tuned)`
    """
    head = linear_head(tuned)
    if tuned.plain.pooling:
        let_pass(model, head)
    else:
        for name, parameter in model.get_submodule(classifier_path(model)).named_parameters():
            parameter.copy_(head[name])


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
