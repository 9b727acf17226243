"""Writes adapter and head in the format of Hugging Face peft, for `peft.PeftModel.from_pretrained`.

peft itself builds the model and writes the files; this module only copies our values into its tensors.
The files belong to the `AutoModelForTokenClassification` of the same encoder, whose classifier must be
one linear layer, as our head is.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModelForTokenClassification, PreTrainedModel

from metaprime.models.encoder import Encoder, quiet
from metaprime.models.sites import Layout, resolve
from metaprime.peft import MethodConfig, hf_peft
from metaprime.peft.injection import FUSED
from metaprime.peft.settings import HfConfig, Ia3Config, PrefixConfig, PromptConfig, TermsConfig
from metaprime.types import MetaprimeError, Params

ADAPTER = "default"
"""peft's default name of an adapter."""

Tensors = Iterator[tuple[torch.Tensor, torch.Tensor]]
"""Pairs: peft's tensor, and our value for it."""

Plan = tuple[Any, Callable[[Any, Sequence[str], Params], Tensors]]
"""peft's config for a method, and the function that pairs the tensors."""

MakePlan = Callable[[Any, Any, Layout, Encoder], Plan]
"""`make(peft, method, layout, encoder)` returns the plan of a method."""


def save_as_peft(
    encoder: Encoder,
    method: MethodConfig,
    labels: Sequence[str],
    values: Params,
    folder: Path,
    trust_remote_code: bool = False,
) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors`.

    With a prompt, peft's model also returns logits at the prompt's positions, before those of the words.

    Args:
        encoder: the encoder of adapter and head.
        method: the PEFT method.
        labels: names of the C labels.
        values: adapter and head by full name, in the method's shapes; `head.weight` is `(C, D)`.
        folder: an existing folder.
        trust_remote_code: whether Python files that come with the encoder may be run.

    Raises:
        MetaprimeError: peft is not installed, or cannot represent this method on this encoder.

    Example: `save_as_peft(encoder, config.peft, labels, values, Path("export"))`
    """
    peft = _package()
    plan = _plan_of(method, encoder)
    model = _classifier_of(encoder, labels, trust_remote_code)
    layout = encoder.layout
    layers = [f"{model.base_model_prefix}.{layout.layers}.{index}" for index in range(model.config.num_hidden_layers)]
    config, tensors = plan(peft, method, layout, encoder)
    wrapped = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        for theirs, ours in tensors(wrapped, layers, values):
            theirs.copy_(ours.reshape(theirs.shape))
        head = wrapped.get_base_model().classifier.modules_to_save[ADAPTER]
        for name, parameter in head.named_parameters():
            parameter.copy_(values[f"head.{name}"])
    wrapped.save_pretrained(folder, safe_serialization=True)


def _plan_of(method: MethodConfig, encoder: Encoder) -> MakePlan:
    """Returns the function that makes the plan of a method; refuses methods that peft cannot represent."""
    plan = next((plan for config, plan in PLANS.items() if isinstance(method, config)), None)
    if plan is None:
        raise MetaprimeError(
            f"peft.method {method.method!r} has no equivalent in Hugging Face's peft: only lora, ffn_lora, ia3, prompt, and "
            "prefix with shift_positions can be exported; try --format adapterhub"
        )
    if isinstance(method, PrefixConfig) and not method.shift_positions:
        raise MetaprimeError(
            "in Hugging Face's peft the words' positions begin after the prefix, here they did not: fine-tune with "
            "peft.shift_positions: true, or use --format adapterhub"
        )
    if isinstance(method, PrefixConfig) and method.mlp:
        raise MetaprimeError(
            "this prefix still comes out of its MLP: export the folder of a transfer, which holds the computed prefix"
        )
    sites = {*FUSED} & {*getattr(method, "sites", ())}
    fused = encoder.layout.query == encoder.layout.key and not isinstance(method, HfConfig)
    if fused and (isinstance(method, Ia3Config) or sites):
        raise MetaprimeError(
            f"the queries, keys and values of this {type(encoder.module).__name__} are one projection, which peft can only "
            "modify as a whole: it cannot be exported, use the metaprime folder itself"
        )
    return plan


def _classifier_of(encoder: Encoder, labels: Sequence[str], trust_remote_code: bool) -> PreTrainedModel:
    """Loads the token classifier of an encoder; refuses one whose head is more than a linear layer."""
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}
    try:
        with quiet():
            model: PreTrainedModel = AutoModelForTokenClassification.from_pretrained(
                encoder.name, dtype=torch.float32, trust_remote_code=trust_remote_code, **names
            )
    except ValueError as error:
        raise MetaprimeError(f"{encoder.name} cannot be read as a token classifier: {error}") from None
    children = {name for name, part in model.named_children() if next(part.parameters(), None) is not None}
    if heads := children - {model.base_model_prefix}:
        _refuse_other_head(model, heads)
    return model


def _refuse_other_head(model: PreTrainedModel, heads: set[str]) -> None:
    """Refuses a model whose head is not one linear layer called `classifier`."""
    if heads != {"classifier"} or not isinstance(model.classifier, nn.Linear):
        raise MetaprimeError(
            f"{type(model).__name__} puts more than a linear layer on the encoder ({', '.join(sorted(heads))}), which our head "
            "does not fit: it cannot be exported, use the metaprime folder itself"
        )


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
        task_type="TOKEN_CLS",
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
        task_type="TOKEN_CLS",
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
    config = peft.PromptTuningConfig(task_type="TOKEN_CLS", num_virtual_tokens=method.length, token_dim=width)

    def tensors(wrapped: Any, layers: Sequence[str], values: Params) -> Tensors:
        yield wrapped.prompt_encoder[ADAPTER].embedding.weight, values["adapter.prompt.vectors"]

    return config, tensors


def _prefix(peft: Any, method: Any, layout: Layout, encoder: Encoder) -> Plan:
    """Makes the plan of a prefix."""
    config = peft.PrefixTuningConfig(task_type="TOKEN_CLS", num_virtual_tokens=method.length)

    def tensors(wrapped: Any, layers: Sequence[str], values: Params) -> Tensors:
        states_HPd = [values[f"adapter.{index}.{part}"] for index in range(len(layers)) for part in ("keys", "values")]
        # From (2 x layers, H, P, D / H).
        stored_P2LHd = torch.stack(states_HPd).permute(2, 0, 1, 3)
        yield wrapped.prompt_encoder[ADAPTER].embedding.weight, stored_P2LHd

    return config, tensors


def _hf(peft: Any, method: Any, layout: Layout, encoder: Encoder) -> Plan:
    """Makes the plan of a method that peft implements itself."""
    adapter = hf_peft.inject(resolve(copy.deepcopy(encoder.module), layout), method)
    config = hf_peft.peft_config(method, [path.replace(":", ".") for path in adapter], task_type="TOKEN_CLS")

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
