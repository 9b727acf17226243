"""`metaprime peft list` and `show`: which methods there are, how large on an encoder, and where they sit in it."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from metaprime.config import Config
from metaprime.data import synthetic
from metaprime.loops.build import build_model, build_task
from metaprime.models.encoder import Encoder, load_encoder
from metaprime.models.primable import partition
from metaprime.models.selfcheck import called_at
from metaprime.models.sites import resolve
from metaprime.peft import METHODS, Method, MethodConfig
from metaprime.types import MetaprimeError

HEADER = ("method", "formula", "source")
COUNTS = ("trained", "stored", "head")
SENTENCES = 4
"""As many as the self-check reads."""


@dataclass(frozen=True)
class Size:
    """Parameters that fine-tuning moves, those of them in its files, and the task head's, which come on top of both."""

    trained: int
    stored: int
    head: int


@dataclass(frozen=True)
class Module:
    """One PEFT module: its path below `adapter`, its parameters' shapes, and the encoder's module that calls it."""

    path: str
    shapes: dict[str, tuple[int, ...]]
    site: str


def list_rows(name: str | None, trust_remote_code: bool = False) -> list[list[str]]:
    """A row of HEADER for each method; of HEADER and COUNTS, if an encoder (hub id or folder) is given.

    Raises:
        MetaprimeError: the encoder cannot be used.
    """
    encoder = load_encoder(name, trust_remote_code=trust_remote_code) if name else None
    labels = 2 * len(Config().data.labels) + 1
    return [
        [method.name, method.formula, method.source, *(_counted(encoder, method, labels) if encoder else ())]
        for method in METHODS.values()
    ]


def show(config: Config) -> tuple[Size, list[Module]]:
    """The size of the config's method on its encoder and the place of each of its modules, self-checked.

    Raises:
        MetaprimeError: the encoder cannot be used, or the method is not connected to it as it should be.
    """
    wanted = config.encoder
    encoder = load_encoder(wanted.name, wanted.attention, wanted.sites, wanted.trust_remote_code)
    task = build_task(config, encoder)
    rows = task.encode(synthetic.read("", "qaa", "train")[:SENTENCES])
    model = build_model(encoder, task, config.peft, rows)
    places = called_at(model, task.collate(rows))
    modules = dict(model.adapter.named_modules())
    found = [
        Module(path, {name: tuple(value.shape) for name, value in modules[path].named_parameters(recurse=False)}, site)
        for path, site in places.items()
    ]
    head = sum(value.numel() for value in partition(model).head.values())
    return _size(model.backbone, model.adapter, METHODS[config.peft.method], config.peft, head), found


def _counted(encoder: Encoder, method: Method, labels: int) -> list[str]:
    """COUNTS of a method with its own settings, without a weight being copied; dashes where it does not fit the encoder."""
    weightless = copy.deepcopy(encoder.module)
    nn.Module.to(weightless, "meta")
    sites = resolve(weightless, encoder.layout)
    try:
        with torch.device("meta"):
            modules = method.inject(sites, method.config())
    except MetaprimeError:
        return ["–" for _ in COUNTS]
    size = _size(weightless, modules, method, method.config(), (sites.hidden + 1) * labels)
    return [f"{count:,}" for count in (size.trained, size.stored, size.head)]


def _size(backbone: nn.Module, adapter: nn.ModuleDict, method: Method, config: MethodConfig, head: int) -> Size:
    if method.moves_backbone:
        whole = sum(parameter.numel() for parameter in backbone.parameters())
        return Size(whole, whole, head)
    trained = dict(adapter.named_parameters())
    with torch.no_grad():
        _, stored = method.collapse(config, adapter, {name: value.detach() for name, value in trained.items()})
    return Size(sum(p.numel() for p in trained.values()), sum(v.numel() for v in stored.values()), head)
