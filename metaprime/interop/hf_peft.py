"""Writes adapter and head in the format of Hugging Face peft, for `peft.PeftModel.from_pretrained`.

peft itself builds the model and writes the files; this module only copies our values into its tensors.
The files belong to the classifier that transformers has for the same encoder, whose layers after the encoder are saved
with the adapter.
"""

from __future__ import annotations

import contextlib
import copy
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from metaprime.interop.classifier import OF_WORDS, Tuned, linear_head, load_classifier, put_head, revision
from metaprime.interop.formats import Format
from metaprime.interop.text_head import saved_beside
from metaprime.models.encoder import Encoder, quiet
from metaprime.models.sites import Layout, resolve
from metaprime.peft import MethodConfig, hf_peft
from metaprime.peft.injection import FUSED
from metaprime.peft.settings import HfConfig, Ia3Config, PrefixConfig, PromptConfig, TermsConfig
from metaprime.types import MetaprimeError, Params

ADAPTER = "default"
"""peft's default name of an adapter."""

TASK_TYPES = {"AutoModelForTokenClassification": "TOKEN_CLS", "AutoModelForSequenceClassification": "SEQ_CLS"}
"""Class of transformers -> peft's name of the task."""

Tensors = Iterator[tuple[torch.Tensor, torch.Tensor]]
"""Pairs: peft's tensor, and our value for it."""

Plan = tuple[Any, Callable[[Any, Sequence[str], Params], Tensors]]
"""peft's config for a method, and the function that pairs the tensors."""

MakePlan = Callable[[Any, Any, Layout, Encoder], Plan]
"""`make(peft, method, layout, encoder)` returns the plan of a method."""


def save_as_peft(tuned: Tuned, folder: Path) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors` into an existing folder.

    With a prompt, peft's model also returns logits at the prompt's positions, before those of the words.

    Raises:
        MetaprimeError: peft is not installed, or cannot represent this method on this encoder.

    Example: `save_as_peft(Tuned(encoder, config.peft, labels, values), Path("export"))`
    """
    # The encoder's embeddings are not ours; left to "auto", peft would ask the hub whether they changed.
    peft_model(tuned).save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)


@torch.no_grad()
def peft_model(tuned: Tuned) -> Any:
    """Returns peft's model of an encoder's classifier, with our adapter and head in it.

    Raises:
        MetaprimeError: peft is not installed, or cannot represent this method on this encoder.

    Example: `peft_model(tuned).peft_config`
    """
    # A head that fits nowhere is refused before the encoder is read.
    linear_head(tuned)
    peft, encoder, layout = _package(), tuned.encoder, tuned.encoder.layout
    plan, task_type = _plan_of(tuned.method, encoder), TASK_TYPES.get(tuned.plain.auto_class)
    if task_type is None:
        raise MetaprimeError(f"peft has no loader for {tuned.plain.auto_class.removeprefix('AutoModelFor')}")
    model = load_classifier(tuned)
    # peft keeps a copy of the head, which it makes when it wraps the model.
    put_head(model, tuned)
    count = len(resolve(encoder.module, layout).layers)
    layers = [f"{model.base_model_prefix}.{layout.layers}.{index}" for index in range(count)]
    config, tensors = plan(peft, tuned.method, layout, encoder)
    config.task_type = task_type
    if tuned.plain.pooling:
        # transformers draws the layer before the head anew.
        config.modules_to_save = saved_beside(model)
    with _calm():
        wrapped = peft.get_peft_model(model, config, revision=revision(encoder.name)).eval()
    for theirs, ours in tensors(wrapped, layers, tuned.values):
        theirs.copy_(ours.reshape(theirs.shape))
    return wrapped


def merged_by_peft(tuned: Tuned) -> PreTrainedModel:
    """Returns the classifier with our head, and the adapter merged into its weights by peft.

    Raises:
        MetaprimeError: as `save_as_peft`; or peft cannot merge this method.

    Example: `merged_by_peft(tuned)(**inputs).logits`
    """
    wrapped = peft_model(tuned)
    try:
        merged: PreTrainedModel = wrapped.merge_and_unload()
    except (AttributeError, NotImplementedError, ValueError, TypeError, RuntimeError) as error:
        raise MetaprimeError(f"peft cannot merge this adapter into the encoder's weights: {error}") from None
    return merged


def load_peft(
    folder: Path,
    settings: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
    auto_class: str = OF_WORDS.auto_class,
) -> Any:
    """Loads an exported folder by peft's own loader: `load_peft(Path("export")).config.id2label`.

    Args:
        folder: written by `save_as_peft`.
        settings: what the encoder's own config lacks, as `told_to_loader` returns it.
        trust_remote_code: whether Python files that come with the encoder may be run.
        auto_class: name of the class of transformers that loads such a model.
    """
    with quiet(), _calm():
        loader = getattr(_package(), auto_class.replace("AutoModel", "AutoPeftModel"))
        return loader.from_pretrained(str(folder), trust_remote_code=trust_remote_code, **(settings or {}))


def _plan_of(method: MethodConfig, encoder: Encoder) -> MakePlan:
    """Returns the function that makes the plan of a method; refuses methods that peft cannot represent."""
    plan = next((plan for config, plan in PLANS.items() if isinstance(method, config)), None)
    if plan is None:
        raise MetaprimeError(f"peft.method {method.method!r} has no equivalent in Hugging Face's peft")
    if isinstance(method, PrefixConfig):
        _check_prefix(method)
    sites = {*FUSED} & {*getattr(method, "sites", ())}
    fused = encoder.layout.query == encoder.layout.key and not isinstance(method, HfConfig)
    if fused and (isinstance(method, Ia3Config) or sites):
        raise MetaprimeError(
            f"the queries, keys and values of this {type(encoder.module).__name__} are one projection, which peft can only "
            "modify as a whole"
        )
    return plan


def _check_prefix(method: PrefixConfig) -> None:
    """Refuses prefixes that are another function in peft."""
    if not method.shift_positions:
        raise MetaprimeError(
            "in Hugging Face's peft the words' positions begin after the prefix, here they did not: fine-tune with "
            "peft.shift_positions: true"
        )
    if method.mlp:
        raise MetaprimeError(
            "this prefix still comes out of its MLP: export the folder of a transfer, which holds the computed prefix"
        )


@contextlib.contextmanager
def _calm() -> Iterator[None]:
    """Hides a warning that peft provokes in transformers and that users can do nothing about."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.* is deprecated", FutureWarning)
        yield


def _package() -> Any:
    """Imports peft."""
    try:
        import peft
    except ImportError as error:
        raise MetaprimeError(f"Hugging Face's peft cannot be imported ({error}): pip install peft") from None
    return peft


def _lora(peft: Any, method: Any, layout: Layout, encoder: Encoder) -> Plan:
    """Makes the plan of LoRA."""
    paths = {site: getattr(layout, site) for site in method.sites}
    config = peft.LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules=_matching(layout, paths.values()),
    )

    def tensors(wrapped: Any, layers: Sequence[str], values: Params) -> Tensors:
        for index, layer in enumerate(layers):
            for site, path in paths.items():
                theirs = wrapped.get_base_model().get_submodule(f"{layer}.{path}")
                for part in ("lora_A", "lora_B"):
                    yield getattr(theirs, part)[ADAPTER].weight, values[f"adapter.{index}.{site}.{part}"]

    return config, tensors


def _ia3(peft: Any, method: Any, layout: Layout, encoder: Encoder) -> Plan:
    """Makes the plan of (IA)3."""
    paths = {"key": layout.key, "value": layout.value, "ffn": layout.ffn_out}
    config = peft.IA3Config(
        target_modules=_matching(layout, paths.values()),
        feedforward_modules=_matching(layout, [layout.ffn_out]),
    )

    def tensors(wrapped: Any, layers: Sequence[str], values: Params) -> Tensors:
        for index, layer in enumerate(layers):
            for name, path in paths.items():
                theirs = wrapped.get_base_model().get_submodule(f"{layer}.{path}")
                yield theirs.ia3_l[ADAPTER], values[f"adapter.{index}.{name}_factors.factors"]

    return config, tensors


def _prompt(peft: Any, method: Any, layout: Layout, encoder: Encoder) -> Plan:
    """Makes the plan of a prompt."""
    # ELECTRA's embeddings are narrower than its hidden size.
    width = cast(nn.Embedding, encoder.module.get_input_embeddings()).embedding_dim
    config = peft.PromptTuningConfig(num_virtual_tokens=method.length, token_dim=width)

    def tensors(wrapped: Any, layers: Sequence[str], values: Params) -> Tensors:
        yield wrapped.prompt_encoder[ADAPTER].embedding.weight, values["adapter.prompt.vectors"]

    return config, tensors


def _prefix(peft: Any, method: Any, layout: Layout, encoder: Encoder) -> Plan:
    """Makes the plan of a prefix."""
    config = peft.PrefixTuningConfig(num_virtual_tokens=method.length)

    def tensors(wrapped: Any, layers: Sequence[str], values: Params) -> Tensors:
        states_HPd = [values[f"adapter.{index}.{part}"] for index in range(len(layers)) for part in ("keys", "values")]
        # From (2 x layers, H, P, D / H).
        stored_P2LHd = torch.stack(states_HPd).permute(2, 0, 1, 3)
        yield wrapped.prompt_encoder[ADAPTER].embedding.weight, stored_P2LHd

    return config, tensors


def _hf(peft: Any, method: Any, layout: Layout, encoder: Encoder) -> Plan:
    """Makes the plan of a method that peft implements itself."""
    adapter = cast(hf_peft.HfLayers, hf_peft.inject(resolve(copy.deepcopy(encoder.module), layout), method))
    # A pattern that finds modules of the encoder finds others in the classifier, such as its head.
    config = hf_peft.peft_config(method, [], **hf_peft.exact(adapter, adapter.source[1]))

    def tensors(wrapped: Any, layers: Sequence[str], values: Params) -> Tensors:
        base = wrapped.get_base_model()
        for path, layer in adapter.items():
            theirs = base.get_submodule(f"{base.base_model_prefix}.{path.replace(':', '.')}")
            for name, _ in layer.named_parameters():
                yield theirs.get_parameter(name.replace(":", ".")), values[f"adapter.{path}.{name}"]

    return config, tensors


def _matching(layout: Layout, paths: Iterable[str]) -> str:
    """Returns a pattern for the modules at these paths of every layer.

    It is anchored at the layer, because `output.dense` alone also matches the attention's module.
    """
    inside = "|".join(re.escape(path) for path in paths)
    return rf".*\.{re.escape(layout.layers)}\.\d+\.({inside})"


PLANS: dict[type[MethodConfig], MakePlan] = {
    TermsConfig: _lora,
    Ia3Config: _ia3,
    PromptConfig: _prompt,
    PrefixConfig: _prefix,
    HfConfig: _hf,
}
"""A method's config class -> the function that makes its plan."""


PEFT = Format(peft_model, save_as_peft)
