"""Writes a tuned model as an ordinary classifier, for transformers' own loaders.

This works for methods after which the encoder is one of its own architecture with other weights:
those without modules of their own, and those whose modules can be merged into the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch.func import functional_call
from transformers import PreTrainedModel

from metaprime.interop.classifier import OF_WORDS, Tuned, linear_head, load_classifier, put_head
from metaprime.interop.formats import Format
from metaprime.interop.hf_peft import merged_by_peft
from metaprime.models.encoder import quiet, save_tokenizer
from metaprime.models.sites import resolve
from metaprime.peft import MethodConfig, method_of
from metaprime.peft.injection import rows_of
from metaprime.peft.settings import (
    BitfitConfig,
    BudgetConfig,
    FullConfig,
    HeadConfig,
    HfConfig,
    Ia3Config,
    MixoutConfig,
    TermsConfig,
)
from metaprime.peft.sparse.weights import CHANGE, weights_of
from metaprime.types import MetaprimeError, Params, Sites, strip_prefix

Merge = Callable[[Any, Sites, Params], None]
"""`merge(method, sites, phi)` changes the weights of the encoder with these sites to those with phi in them."""


def save_as_transformers(tuned: Tuned, folder: Path) -> None:
    """Writes `config.json`, `model.safetensors` and the tokenizer's files into an existing folder.

    Raises:
        MetaprimeError: the method's modules cannot be merged into the weights, or the architecture
            has no classifier that can compute what our head does.

    Example: `save_as_transformers(tuned, Path("tagger"))`
    """
    model = merged_classifier(tuned)
    with quiet():
        model.save_pretrained(folder)
        save_tokenizer(tuned.encoder.tokenizer, folder)


def merged_classifier(tuned: Tuned) -> PreTrainedModel:
    """Returns the encoder's classifier with adapter and head in its weights.

    Raises:
        MetaprimeError: as `save_as_transformers`.

    Example: `merged_classifier(tuned)(**inputs).logits`
    """
    # A head that fits nowhere is refused before the encoder is read.
    linear_head(tuned)
    method = tuned.method
    if isinstance(method, HfConfig):
        return merged_by_peft(tuned)
    merge = next((merge for config, merge in MERGES.items() if isinstance(method, config)), None)
    if merge is None:
        raise MetaprimeError(f"peft.method {method.method!r} cannot be merged into the encoder's weights")
    model = load_classifier(tuned)
    base = cast(PreTrainedModel, model.get_submodule(model.base_model_prefix))
    with torch.no_grad():
        merge(method, resolve(base, tuned.encoder.layout), strip_prefix("adapter", tuned.values))
    put_head(model, tuned)
    return model


def load_transformers(
    folder: Path, trust_remote_code: bool = False, auto_class: str = OF_WORDS.auto_class
) -> PreTrainedModel:
    """Loads an exported folder by transformers' own loader: `load_transformers(Path("tagger")).num_labels`.

    Args:
        folder: written by `save_as_transformers`.
        trust_remote_code: whether Python files that come with the encoder may be run.
        auto_class: name of the loader's class.
    """
    with quiet():
        loader = getattr(transformers, auto_class)
        return cast(PreTrainedModel, loader.from_pretrained(folder, trust_remote_code=trust_remote_code))


def _nothing(method: Any, sites: Sites, phi: Params) -> None:
    """Merges a method without modules."""


def _terms(method: Any, sites: Sites, phi: Params) -> None:
    """Merges low-rank terms: W + (alpha / r) B A, in the rows of the site."""
    for index, layer in enumerate(sites.layers):
        for site in method.sites:
            rows = rows_of(layer, site)
            down, up = (phi[f"{index}.{site}.{part}"] for part in ("lora_A", "lora_B"))
            getattr(layer, site).weight[rows.start : rows.stop] += method.alpha / method.rank * (up @ down)


def _factors(method: Any, sites: Sites, phi: Params) -> None:
    """Merges (IA)3's factors: rows of W_k and W_v with their biases, columns of W_2."""
    for index, layer in enumerate(sites.layers):
        for site in ("key", "value"):
            projection, rows = getattr(layer, site), rows_of(layer, site)
            factors = phi[f"{index}.{site}_factors.factors"]
            projection.weight[rows.start : rows.stop] *= factors[:, None]
            if projection.bias is not None:
                projection.bias[rows.start : rows.stop] *= factors
        layer.ffn_out.weight *= phi[f"{index}.ffn_factors.factors"]


def _shifts(method: Any, sites: Sites, phi: Params) -> None:
    """Merges BitFit: b + delta."""
    for name, delta in phi.items():
        path = name.removesuffix(".delta").replace(":", ".")
        sites.encoder.get_submodule(path).get_parameter("bias").add_(delta)


def _changes(method: Any, sites: Sites, phi: Params) -> None:
    """Merges a change of the weights: theta + delta."""
    adapter = method_of(method).inject(copy.deepcopy(sites), method)
    change = functional_call(adapter.get_submodule(CHANGE), strip_prefix(CHANGE, phi), ())
    weights = weights_of(adapter)
    for name, shape, part in zip(weights.names, weights.shapes, change.split(weights.sizes), strict=True):
        sites.encoder.get_parameter(name.removeprefix("backbone.")).add_(part.reshape(shape))


MERGES: dict[type[MethodConfig], Merge] = {
    FullConfig: _nothing,
    HeadConfig: _nothing,
    TermsConfig: _terms,
    Ia3Config: _factors,
    BitfitConfig: _shifts,
    BudgetConfig: _changes,
    MixoutConfig: _changes,
}
"""A method's config class -> the function that merges it. Methods of Hugging Face's peft are merged by peft."""


TRANSFORMERS = Format(merged_classifier, save_as_transformers)
