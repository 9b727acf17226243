"""Refuses the folder of an encoder by the files in it. Nothing here loads torch, so that commands ask first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from metaprime.files import check_readable
from metaprime.types import MetaprimeError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Extensions of weight files that can run code when they are read."""


def is_hub_id(name: str) -> bool:
    """Tells whether an encoder's name stands for one on the hub: there is no such folder, and it looks like no path.

    Example: `is_hub_id("bert-base-multilingual-cased")`
    """
    return not (Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") > 1)


def refuse_missing(name: str) -> None:
    """Refuses a folder that is missing or may not be read; hub ids pass.

    Raises:
        MetaprimeError: there is no such folder, or no permission to read it.

    Example: `refuse_missing("runs/demo/base")`
    """
    check_readable(Path(name))
    if not (is_hub_id(name) or Path(name).exists()):
        raise MetaprimeError(f"encoder.name: there is no folder {name!r}")


def hub_config(name: str) -> dict[str, Any]:
    """Returns the config.json of a hub id, which is downloaded unless it is already there.

    Args:
        name: the hub id.

    Raises:
        MetaprimeError: there is no such file, or it cannot be reached or read.

    Example: `hub_config("bert-base-multilingual-cased")["hidden_size"]`
    """
    # Imported here: a folder needs no client of the hub.
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    try:
        kept = try_to_load_from_cache(name, "config.json")
        file = kept if isinstance(kept, str) else hf_hub_download(name, "config.json")
        values = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise not_loaded(name, str(error)) from None
    return values if isinstance(values, dict) else {}


def not_loaded(name: str, error: str) -> MetaprimeError:
    """Returns the error of an encoder that cannot be loaded: `not_loaded("gone", "no such repository")`.

    Args:
        name: folder or hub id.
        error: what a library said; its first line is quoted.
    """
    absent = "" if Path(name).exists() else "there is no folder of that name here, and as a hub id: "
    reason = error.strip().split("\n")[0]
    return MetaprimeError(
        f"encoder.name {name!r} cannot be loaded: {absent}{reason}. Give a folder with config.json, model.safetensors and "
        "tokenizer files, or a hub id that is reachable or already downloaded"
    )


def refuse_bad_encoder(name: str) -> None:
    """Refuses a folder as `refuse_bad_folder` does, and a hub id without a config.json: `refuse_bad_encoder("gone")`.

    Raises:
        MetaprimeError: the folder is not one to load, or the hub id cannot be reached and was not downloaded.
    """
    refuse_bad_folder(name)
    if is_hub_id(name):
        hub_config(name)


def refuse_bad_folder(name: str) -> None:
    """Refuses a folder that is missing, or without a config or safetensors weights; hub ids pass.

    Raises:
        MetaprimeError: the folder is not one to load; the message says what it lacks.

    Example: `refuse_bad_folder("runs/demo/base")`
    """
    refuse_missing(name)
    folder = Path(name)
    if not folder.exists():
        return
    if not (folder / "config.json").is_file():
        raise MetaprimeError(f"encoder.name: folder {name!r} holds no config.json")
    for index in folder.glob("*.safetensors.index.json"):
        _refuse_bad_index(index)
    if not any(folder.glob("*.safetensors")):
        pickled = next((file for file in sorted(folder.iterdir()) if file.suffix in PICKLES), None)
        if pickled:
            raise MetaprimeError(
                f"encoder.name: {pickled} is a pickle, which can run code when read. Convert it once, where you trust "
                f'it: python -c "import torch; from safetensors.torch import save_file; '
                f"save_file({{k: v.clone() for k, v in torch.load('{pickled}', weights_only=True).items()}}, "
                f"'{folder}/model.safetensors', metadata={{'format': 'pt'}})\""
            )
        raise MetaprimeError(f"encoder.name: folder {name!r} holds no *.safetensors")


def _refuse_bad_index(index: Path) -> None:
    """Refuses an index whose shards are not safetensors files in its own folder."""
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MetaprimeError(
            f"encoder.name: {index} is damaged ({error!r}): copy the checkpoint again, or save it unsharded"
        ) from None
    for shard in sorted(map(str, shards)):
        if Path(shard).name != shard or "\\" in shard or not shard.endswith(".safetensors"):
            raise MetaprimeError(
                f"encoder.name: {index} names the shard {shard!r}, which is not a *.safetensors file in its own folder: "
                "copy the shards there and name them by file name"
            )
