"""Writes bottleneck adapters and the head as AdapterHub's `adapters` keeps them, in safetensors.

    model = adapters.AutoAdapterModel.from_pretrained(ENCODER)
    model.load_adapter(FOLDER, set_active=True, use_safetensors=True)

`benchmarks/adapterhub.py` loads what is written here with that package, in an environment of its own (it needs transformers
4), and compares logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from metaprime.files import save_tensors, write_json
from metaprime.models.encoder import Encoder
from metaprime.peft import MethodConfig
from metaprime.peft.bottleneck import DesignConfig
from metaprime.types import MetaprimeError, Params

NAME = "metaprime"
"""What the adapter and its head are called there."""
VERSION = "adapters.1.3.0"
"""Whose format this is."""
BLOCKS = {"attention": "attention.output", "ffn": "output"}
ACTIVATIONS = {"silu": "swish", "identity": "linear"}


def save_for_adapterhub(
    encoder: Encoder, method: MethodConfig, labels: Sequence[str], values: Params, folder: Path
) -> None:
    """Writes `adapter_config.json`, `adapter.safetensors`, `head_config.json` and `model_head.safetensors`.

    Raises:
        MetaprimeError: AdapterHub has no equal for this method on this encoder.
    """
    config = encoder.module.config
    _refuse(encoder, method)
    assert isinstance(method, DesignConfig)
    about = {
        "hidden_size": config.hidden_size,
        "model_class": type(encoder.module).__name__.removesuffix("Model") + "AdapterModel",
        "model_name": encoder.name,
        "model_type": config.model_type,
        "name": NAME,
        "version": VERSION,
    }
    tagging = {
        "activation_function": "tanh",  # of the layers before the last, of which there are none
        "dropout_prob": None,
        "head_type": "tagging",
        "label2id": {label: index for index, label in enumerate(labels)},
        "layers": 1,
        "num_labels": len(labels),
    }
    base = encoder.module.base_model_prefix
    tensors = {f"{base}.{name}": value for name, value in _tensors(encoder, method, values)}
    save_tensors(tensors, folder / "adapter.safetensors")
    write_json(folder / "adapter_config.json", about | {"config": _config(method, config.hidden_size)})
    head = {f"heads.{NAME}.1.{part}": values[f"head.{part}"] for part in ("weight", "bias")}
    save_tensors(head, folder / "model_head.safetensors")
    write_json(folder / "head_config.json", about | {"config": tagging})


def _refuse(encoder: Encoder, method: MethodConfig) -> None:
    name = type(encoder.module).__name__
    if encoder.layout.layers != "encoder.layer" or encoder.layout.ffn_norm is None:
        raise MetaprimeError(f"{name} is laid out otherwise in AdapterHub: only BERT and its like can be given to it")
    if not isinstance(method, DesignConfig):
        raise MetaprimeError(
            "only bottleneck adapters are written for AdapterHub (houlsby, pfeiffer, parallel, scaled_parallel), "
            f"not {method.method!r}"
        )
    if method.insertion == "parallel" and "attention" in method.at:
        raise MetaprimeError("AdapterHub adds a parallel adapter after W_o, ours is before it: another function")
    if method.composition == "gated":
        raise MetaprimeError("AdapterHub's gate looks at the sentence, ours is one number: another function")
    if method.layer_norm != "none" and method.insertion == "pfeiffer":
        raise MetaprimeError("a second layer norm inside a Pfeiffer adapter is not written for AdapterHub")


def _config(method: DesignConfig, hidden: int) -> dict[str, Any]:
    """The fields that differ from AdapterHub's defaults, and those whose meaning hangs on them."""
    return {
        "adapter_residual_before_ln": False,
        "init_weights": "mam_adapter" if method.init == "lora" else "bert",
        "is_parallel": method.insertion == "parallel",
        "ln_after": False,
        "ln_before": method.layer_norm == "in",
        "mh_adapter": "attention" in method.at,
        "non_linearity": ACTIVATIONS.get(method.activation, method.activation),
        "original_ln_after": True,
        "original_ln_before": method.insertion == "pfeiffer",
        "output_adapter": "ffn" in method.at,
        "reduction_factor": _factor(hidden, method.bottleneck),
        "residual_before_ln": True,
        "scaling": "learned" if method.composition == "learned" else method.scale,
        "use_gating": False,
    }


def _factor(hidden: int, width: int) -> float:
    """A factor f for which the floor of hidden / f is the width."""
    exact = hidden / width
    return exact if int(hidden // exact) == width else hidden / (width + 0.5)


def _tensors(encoder: Encoder, method: DesignConfig, values: Params) -> Iterator[tuple[str, Any]]:
    for index in range(encoder.module.config.num_hidden_layers):
        for at in method.at:
            ours = f"adapter.{index}.{at}"
            theirs = f"encoder.layer.{index}.{BLOCKS[at]}.adapters.{NAME}"
            down = 0
            if method.layer_norm == "in":
                down = 1
                for part in ("weight", "bias"):  # it stands there under two names
                    for place in ("adapter_norm_before", "adapter_down.0"):
                        yield f"{theirs}.{place}.{part}", values[f"{ours}.norm_{part}"]
            for part in ("weight", "bias"):
                yield f"{theirs}.adapter_down.{down}.{part}", values[f"{ours}.down_{part}"]
                yield f"{theirs}.adapter_up.{part}", values[f"{ours}.up_{part}"]
            if method.composition == "learned":
                yield f"{theirs}.scaling", values[f"{ours}.scale"]
