"""Injects a method into a toy encoder by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from metaprime.models.encoder import Encoder, load_encoder
from metaprime.models.sites import resolve
from metaprime.peft import METHODS


def injected(folder: Path, **settings: Any) -> tuple[Encoder, nn.ModuleDict, Any]:
    encoder = load_encoder(str(folder))
    config = METHODS[settings.pop("method", "sam")].config(**settings)
    return encoder, METHODS[config.method].inject(resolve(encoder.module, encoder.layout), config), config
