"""Writes adapter and head as Hugging Face peft saves them: `peft.PeftModel.from_pretrained` reads the folder without metaprime.

peft itself builds the model and writes the files; here its tensors get our values. What is saved belongs to the
`AutoModelForTokenClassification` of the same encoder, whose classifier must be the linear layer that our head is.
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
from metaprime.peft.hf_peft import HfConfig
from metaprime.peft.ia3 import Ia3Config
from metaprime.peft.injection import FUSED
from metaprime.peft.lora import TermsConfig
from metaprime.peft.prefix import PrefixConfig
from metaprime.peft.prompt import PromptConfig
from metaprime.types import MetaprimeError, Params

ADAPTER = "default"
"""What peft calls the one adapter there is."""

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

    With a prompt, peft's model gives logits at the prompt's positions too, before those of the words.

    Raises:
        MetaprimeError: peft is not installed, or has no equal for this method on this encoder.
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
    """Finds how peft computes the function of a method, or says why it cannot."""
    plan = next((plan for config, plan in PLANS.items() if isinstance(method, config)), None)
    if plan is None:
        raise MetaprimeError(
            f"Hugging Face's peft has nothing that is the function of {method.method!r}: it has lora, ffn_lora, ia3, prompt, and "
            "prefix with shift_positions: try --format adapterhub"
        )
    if isinstance(method, PrefixConfig) and not method.shift_positions:
        raise MetaprimeError(
            "with Hugging Face's peft the words' positions begin after the prefix, here they did not: fine-tune with "
            "peft.shift_positions: true, or use --format adapterhub"
        )
    if isinstance(method, PrefixConfig) and method.mlp:
        raise MetaprimeError(
            "this prefix still comes out of its MLP: give the folder of a transfer, which holds what it gives"
        )
    sites = {*FUSED} & {*getattr(method, "sites", ())}
    fused = encoder.layout.query == encoder.layout.key and not isinstance(method, HfConfig)
    if fused and (isinstance(method, Ia3Config) or sites):
        raise MetaprimeError(
            f"the queries, keys and values of this {type(encoder.module).__name__} are one projection, which peft can only "
            "change as a whole: keep this folder"
        )
    return plan


def _classifier_of(encoder: Encoder, labels: Sequence[str], trust_remote_code: bool) -> PreTrainedModel:
    """Loads the token classifier of an encoder; its head must be one linear layer, as ours is."""
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}
    try:
        with quiet():
            model: PreTrainedModel = AutoModelForTokenClassification.from_pretrained(
                encoder.name, dtype=torch.float32, trust_remote_code=trust_remote_code, **names
            )
    except ValueError as error:
        raise MetaprimeError(f"{encoder.name} cannot be read as a token classifier: {error}") from None
    found = {name for name, part in model.named_children() if next(part.parameters(), None) is not None}
    if heads := found - {model.base_model_prefix}:
        _refuse_other_head(model, heads)
    return model


def _refuse_other_head(model: PreTrainedModel, found: set[str]) -> None:
    if found != {"classifier"} or not isinstance(model.classifier, nn.Linear):
        raise MetaprimeError(
            f"{type(model).__name__} puts more than a linear layer on the encoder ({', '.join(sorted(found))}): our head is none"
        )


def _package() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MetaprimeError(f"Hugging Face's peft cannot be imported ({error}): pip install peft") from None
    return peft


def _lora(peft: Any, method: Any, layout: Layout, encoder: Encoder) -> Plan:
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
    # In ELECTRA this is not the hidden size.
    width = cast(nn.Embedding, encoder.module.get_input_embeddings()).embedding_dim
    config = peft.PromptTuningConfig(task_type="TOKEN_CLS", num_virtual_tokens=method.length, token_dim=width)

    def tensors(wrapped: Any, layers: Sequence[str], values: Params) -> Tensors:
        yield wrapped.prompt_encoder[ADAPTER].embedding.weight, values["adapter.prompt.vectors"]

    return config, tensors


def _prefix(peft: Any, method: Any, layout: Layout, encoder: Encoder) -> Plan:
    config = peft.PrefixTuningConfig(task_type="TOKEN_CLS", num_virtual_tokens=method.length)

    def tensors(wrapped: Any, layers: Sequence[str], values: Params) -> Tensors:
        both = [values[f"adapter.{index}.{part}"] for index in range(len(layers)) for part in ("keys", "values")]
        stored_P2LHd = torch.stack(both).permute(2, 0, 1, 3)  # from (2 x layers, H, P, D / H)
        yield wrapped.prompt_encoder[ADAPTER].embedding.weight, stored_P2LHd

    return config, tensors


def _own(peft: Any, method: Any, layout: Layout, encoder: Encoder) -> Plan:
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
    """A pattern for these modules of every layer and no others: `output.dense` alone is the attention's too."""
    inside = "|".join(re.escape(path) for path in paths)
    return rf".*\.{re.escape(layout.layers)}\.\d+\.({inside})"


PLANS: dict[type[MethodConfig], MakePlan] = {
    TermsConfig: _lora,
    Ia3Config: _ia3,
    PromptConfig: _prompt,
    PrefixConfig: _prefix,
    HfConfig: _own,
}
