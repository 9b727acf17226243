"""Reads the weights of an encoder's folder or hub id: safetensors only, and none made up."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from transformers import MODEL_MAPPING, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from metaprime.types import MetaprimeError

WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts of a name that `torch.compile`, data parallelism and checkpointing put between others."""


def encoder_class(config: PretrainedConfig) -> type[PreTrainedModel] | None:
    """Returns the class that config.json names if it is the encoder of an encoder-decoder alone, else None.

    Args:
        config: the config; `architectures` names the class whose weights were saved.

    Example: `encoder_class(config)` is `MT5EncoderModel` for its own checkpoint.
    """
    whole: Any = MODEL_MAPPING.get(type(config), None)
    named = next(iter(getattr(config, "architectures", None) or ()), "")
    if whole is None or not named.endswith(("EncoderModel", "Encoder")):
        return None
    found = getattr(sys.modules[whole.__module__], named, None)
    return found if isinstance(found, type) and issubclass(found, PreTrainedModel) else None


def own_encoder(config: PretrainedConfig) -> str | None:
    """Returns the name of the class that is the encoder of an encoder-decoder alone; None if there is none.

    Args:
        config: the config of the whole model.

    Example: `own_encoder(config)` is `"T5EncoderModel"` for a T5.
    """
    whole: Any = MODEL_MAPPING.get(type(config), None)
    if whole is None:
        return None
    name = f"{whole.__name__.removesuffix('Model')}EncoderModel"
    return name if hasattr(sys.modules[whole.__module__], name) else None


def load_weights(name: str, config: PretrainedConfig, trust_remote_code: bool) -> PreTrainedModel:
    """Loads the backbone; refuses missing weights, which transformers would initialise at random.

    Only a pooler may be missing. It is then removed, so that random weights are not saved as trained ones.

    Args:
        name: a folder or a hub id.
        config: its config, with the attention to use.
        trust_remote_code: whether Python files that come with the checkpoint may be run.

    Raises:
        MetaprimeError: weights are missing or of another shape.

    Example: `load_weights(name, AutoConfig.from_pretrained(name), False)`
    """
    kind: Any = encoder_class(config)
    options: dict[str, Any] = {} if kind else {"trust_remote_code": trust_remote_code}
    module, info = (kind or AutoModel).from_pretrained(
        name,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        # Mismatched sizes are refused below.
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **options,
    )
    wrong = {key: f"{tuple(stored)}, not {tuple(expected)}" for key, stored, expected in info["mismatched_keys"]}
    wrong |= {key: "missing" for key in info["missing_keys"] if not key.startswith("pooler.")}
    if wrong:
        raise _misfit(name, module, wrong, sorted(info["unexpected_keys"]))
    _freeze_fixed(module)
    if info["missing_keys"]:
        module.pooler = None
    return cast(PreTrainedModel, module)


def _freeze_fixed(module: PreTrainedModel) -> None:
    """Takes those parameters out of training that the class does, as RoFormer its table: loading forgets it."""
    with torch.device("meta"), no_init_weights():
        fresh = type(module)(module.config)
    for name, parameter in fresh.named_parameters():
        if not parameter.requires_grad:
            module.get_parameter(name).requires_grad_(False)


def _misfit(name: str, module: Any, wrong: Mapping[str, str], others: Collection[str]) -> MetaprimeError:
    """Returns the error about weights that do not fit, and what is known of the others."""
    if set(wrong.values()) == {"missing"} and (added := _added(wrong, others, module.base_model_prefix)):
        part, example = added
        return MetaprimeError(
            f"encoder.name {name!r}: names of its weights have {part!r} in them (for example {example}), which names of "
            f"{type(module).__name__} have not. {_renaming(name, part)}"
        )
    key = min(wrong)
    text = (
        f"encoder.name {name!r}: {len(wrong)} weights of its checkpoint do not fit its config.json, for example {key} "
        f"({wrong[key]})"
    )
    if others:
        text += f"; {len(others)} others in it are not of {type(module).__name__}, for example {min(others)}"
    alone = own_encoder(module.config)
    if alone and all(key.startswith("decoder.") for key in wrong):
        return MetaprimeError(
            f"{text}. Only the decoder is not there: set architectures in its config.json to [{alone!r}], the class of its "
            "encoder alone"
        )
    return MetaprimeError(f"{text}. Give a config.json and weights that were saved together")


def _added(missing: Collection[str], others: Collection[str], base: str) -> tuple[str, str] | None:
    """Returns what names in the checkpoint have in addition, such as `_orig_mod.`, and one of them.

    Returns None unless every missing weight is there under a name with the same addition.
    """
    found = [part for part in WRAPPERS if any(part in key.split(".") for key in others)]
    bare = {".".join(part for part in key.split(".") if part not in found): key for key in others}
    first = min(missing)
    for key, whole in bare.items():
        front = key.removesuffix(first)
        if key.endswith(first) and all(front + wanted in bare for wanted in missing):
            added = found or [part for part in front.split(".") if part and part != base]
            return (f"{'.'.join(added)}.", whole) if added else None
    return None


def _renaming(name: str, part: str) -> str:
    """Returns the remedy that takes a part out of the names of all weights in a folder."""
    folder = name if Path(name).exists() else "FOLDER"
    first = "" if Path(name).exists() else f"Download it (hf download {name} --local-dir FOLDER), then take"
    pattern = "|".join(re.escape(one) for one in part.removesuffix(".").split("."))
    return (
        f'{first or "Take"} that out once: python -c "import pathlib, re; from safetensors.torch import load_file, save_file; '
        f"[save_file({{re.sub(r'(^|(?<=\\.))({pattern})\\.', '', k): v for k, v in load_file(f).items()}}, f, "
        f"metadata={{'format': 'pt'}}) for f in pathlib.Path('{folder}').glob('*.safetensors')]\""
    )
