"""Writes adapter and head in the format of AdapterHub's `adapters` package, as safetensors.

    model = adapters.AutoAdapterModel.from_pretrained(ENCODER)
    model.load_adapter(FOLDER, set_active=True, use_safetensors=True)

`benchmarks/adapterhub.py` loads such a folder with that package in a separate environment (the package
needs transformers 4) and compares logits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from metaprime.files import save_tensors, write_json
from metaprime.interop.classifier import Tuned, address, linear_head
from metaprime.interop.formats import Format
from metaprime.models.encoder import label_names
from metaprime.peft import MethodConfig
from metaprime.peft.settings import ComposedConfig, DesignConfig, PrefixConfig, TermsConfig
from metaprime.types import MetaprimeError, Params, strip_prefix

ADAPTER_NAME = "metaprime"
"""Name of the adapter and of its head in AdapterHub's model."""
VERSION = "adapters.1.3.0"
"""Version of the package whose format is written."""
ENCODERS = ("bert", "roberta", "xlm-roberta", "electra")
"""Model types that AdapterHub supports with the same module paths."""
BLOCKS = {"attention": "attention.output", "ffn": "output"}
ACTIVATION_NAMES = {"silu": "swish", "identity": "linear"}
PROJECTIONS = {
    "query": ("attn_matrices", "q", "attention.self.query"),
    "key": ("attn_matrices", "k", "attention.self.key"),
    "value": ("attn_matrices", "v", "attention.self.value"),
    "ffn_in": ("intermediate_lora", True, "intermediate.dense"),
    "ffn_out": ("output_lora", True, "output.dense"),
}
"""LoRA site -> key and value in AdapterHub's config that select it, and the path of its module."""

Written = tuple[dict[str, Any], Params]
"""A method's config and tensors, both with AdapterHub's names."""


def save_for_adapterhub(tuned: Tuned, folder: Path) -> None:
    """Writes `adapter_config.json`, `adapter.safetensors`, `head_config.json` and `model_head.safetensors`.

    Raises:
        MetaprimeError: AdapterHub cannot represent this method, or not on this encoder.

    Example: `save_for_adapterhub(Tuned(encoder, config.peft, labels, values), Path("export"))`
    """
    for name, content in adapterhub_files(tuned).items():
        if name.endswith(".json"):
            write_json(folder / name, content)
        else:
            save_tensors(content, folder / name)


def adapterhub_files(tuned: Tuned) -> dict[str, Any]:
    """Returns the content of each file in AdapterHub's format, JSON or tensors by name.

    Raises:
        MetaprimeError: AdapterHub cannot represent this method, or not on this encoder.

    Example: `adapterhub_files(tuned)["head_config.json"]`
    """
    module, head = tuned.encoder.module, linear_head(tuned)
    if tuned.plain.pooling:
        raise MetaprimeError(
            "metaprime writes only heads over words for AdapterHub, and this task has one answer for each text"
        )
    if module.config.model_type not in ENCODERS:
        raise MetaprimeError(
            f"AdapterHub does not support {type(module).__name__}, or names its modules differently: only "
            f"{', '.join(ENCODERS)} can be exported"
        )
    config, tensors = _written(tuned.method, strip_prefix("adapter", tuned.values), module.config)
    about = {
        "hidden_size": module.config.hidden_size,
        "model_class": type(module).__name__.removesuffix("Model") + "AdapterModel",
        "model_name": address(tuned.encoder.name),
        "model_type": module.config.model_type,
        "name": ADAPTER_NAME,
        "version": VERSION,
    }
    tagging = {
        # Activation of the layers before the last one; this head has none.
        "activation_function": "tanh",
        "dropout_prob": None,
        "head_type": "tagging",
        "label2id": label_names(tuned.labels)["label2id"],
        "layers": 1,
        "num_labels": len(tuned.labels),
    }
    return {
        "adapter.safetensors": {f"{module.base_model_prefix}.{name}": value for name, value in tensors.items()},
        "adapter_config.json": about | {"config": config},
        "model_head.safetensors": {f"heads.{ADAPTER_NAME}.1.{part}": value for part, value in head.items()},
        "head_config.json": about | {"config": tagging},
    }


def _written(method: MethodConfig, phi: Params, shape: Any) -> Written:
    """Converts a method; `shape` is the encoder's own config."""
    writer = next((writer for config, writer in WRITERS.items() if isinstance(method, config)), None)
    if writer is None:
        raise MetaprimeError(f"peft.method {method.method!r} has no equivalent in AdapterHub")
    return writer(method, phi, shape)


def _composed(method: Any, phi: Params, shape: Any) -> Written:
    """Converts a composition of methods to a union of their configs."""
    configs: list[dict[str, Any]] = []
    tensors: Params = {}
    for name, part in method.parts.items():
        config, written = _written(part, strip_prefix(name, phi), shape)
        configs.append(config)
        tensors |= written
    return {"architecture": "union", "configs": configs}, tensors


def _bottleneck(method: Any, phi: Params, shape: Any) -> Written:
    """Converts bottleneck adapters."""
    if method.insertion == "parallel" and "attention" in method.at:
        raise MetaprimeError("AdapterHub inserts a parallel adapter after W_o, ours is before it: another function")
    if method.composition == "gated":
        raise MetaprimeError("AdapterHub's gate depends on the sentence, ours is one number: another function")
    if method.layer_norm != "none" and method.insertion == "pfeiffer":
        raise MetaprimeError("a second layer norm inside a Pfeiffer adapter cannot be exported to AdapterHub")
    config = {
        "adapter_residual_before_ln": False,
        "architecture": None,
        "init_weights": "mam_adapter" if method.init == "lora" else "bert",
        "is_parallel": method.insertion == "parallel",
        "ln_after": False,
        "ln_before": method.layer_norm == "in",
        "mh_adapter": "attention" in method.at,
        "non_linearity": ACTIVATION_NAMES.get(method.activation, method.activation),
        "original_ln_after": True,
        "original_ln_before": method.insertion == "pfeiffer",
        "output_adapter": "ffn" in method.at,
        "reduction_factor": _factor(shape.hidden_size, method.bottleneck),
        "residual_before_ln": True,
        "scaling": "learned" if method.composition == "learned" else method.scale,
        "use_gating": False,
    }
    # AdapterHub stores the down projection in a sequence that a norm may precede; the norm has two names.
    down = 1 if method.layer_norm == "in" else 0
    names = {
        "norm_weight": ("adapter_norm_before.weight", "adapter_down.0.weight"),
        "norm_bias": ("adapter_norm_before.bias", "adapter_down.0.bias"),
        "down_weight": (f"adapter_down.{down}.weight",),
        "down_bias": (f"adapter_down.{down}.bias",),
        "up_weight": ("adapter_up.weight",),
        "up_bias": ("adapter_up.bias",),
        "scale": ("scaling",),
    }
    tensors = {}
    for path, value in phi.items():
        index, at, part = path.split(".")
        for name in names[part]:
            tensors[f"encoder.layer.{index}.{BLOCKS[at]}.adapters.{ADAPTER_NAME}.{name}"] = value
    return config, tensors


def _factor(hidden: int, width: int) -> float:
    """Returns a reduction factor f such that the floor of hidden / f is the width."""
    exact = hidden / width
    return exact if int(hidden // exact) == width else hidden / (width + 0.5)


def _lora(method: Any, phi: Params, shape: Any) -> Written:
    """Converts LoRA."""
    if unsupported := set(method.sites) - set(PROJECTIONS):
        raise MetaprimeError(f"AdapterHub has no LoRA at {', '.join(sorted(unsupported))}")
    projections = [PROJECTIONS[site] for site in method.sites]
    matrices = [value for key, value, _ in projections if key == "attn_matrices"]
    config = {
        "alpha": method.alpha,
        "architecture": "lora",
        "attn_matrices": matrices,
        "composition_mode": "add",
        "dropout": 0.0,
        "init_weights": "lora",
        "intermediate_lora": "ffn_in" in method.sites,
        "output_lora": "ffn_out" in method.sites,
        "r": method.rank,
        "selfattn_lora": bool(matrices),
        "use_gating": False,
    }
    tensors = {}
    for path, value in phi.items():
        index, site, part = path.split(".")
        tensors[f"encoder.layer.{index}.{PROJECTIONS[site][2]}.loras.{ADAPTER_NAME}.{part}"] = value
    return config, tensors


def _prefix(method: Any, phi: Params, shape: Any) -> Written:
    """Converts a prefix; its keys and values, each (H, P, D / H) for a layer, become one vector."""
    if method.shift_positions:
        raise MetaprimeError("AdapterHub numbers the words' positions without the prefix, here they begin after it")
    if method.mlp:
        raise MetaprimeError(
            "this prefix still comes out of its MLP: export the folder of a transfer, which holds the computed prefix"
        )
    config = {
        "architecture": "prefix_tuning",
        "cross_prefix": True,
        "dropout": 0.0,
        "encoder_prefix": True,
        "flat": True,
        "prefix_length": method.length,
        "use_gating": False,
    }
    states_HPd = [phi[f"{index}.{part}"] for index in range(shape.num_hidden_layers) for part in ("keys", "values")]
    joined_P2LHd = torch.stack([state.transpose(0, 1) for state in states_HPd], dim=1)
    return config, {f"prefix_tuning.prefix_tunings.{ADAPTER_NAME}.self_prefix.control_trans": joined_P2LHd.flatten()}


WRITERS: dict[type[MethodConfig], Callable[[Any, Params, Any], Written]] = {
    DesignConfig: _bottleneck,
    TermsConfig: _lora,
    PrefixConfig: _prefix,
    ComposedConfig: _composed,
}
"""A method's config class -> the function that converts it."""


ADAPTERHUB = Format(adapterhub_files, save_for_adapterhub)
