"""`metaprime peft list` and `show`: which methods there are, how large on an encoder, and where they sit in it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import nn

from metaprime.build.data import build_task
from metaprime.build.model import build_model
from metaprime.config.sections import Config, DataConfig
from metaprime.data.readers import synthetic
from metaprime.models.encoder import Encoder, load_encoder
from metaprime.models.injection_check import ROOT, called_at
from metaprime.models.sites import resolve
from metaprime.models.task_model import partition
from metaprime.nn import Adapter
from metaprime.peft import METHODS, Method, method_of
from metaprime.types import MetaprimeError

HEADER = ("method", "formula", "source")
COUNTS = ("trained", "stored", "head")
SENTENCES = 4
"""As many as the self-check reads."""
TAGS = 2 * len(DataConfig().labels) + 1
"""Of the head that is counted."""


@dataclass(frozen=True)
class Size:
    """Parameters that fine-tuning moves, those in a transfer's files, and the task head's, which come on top of both."""

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
    rows = [[method.name, method.formula, method.source] for method in METHODS.values()]
    if name is None:
        return rows
    encoder = load_encoder(name, trust_remote_code=trust_remote_code)
    nn.Module.to(encoder.module, "meta")
    return [[*row, *_counted(encoder, method)] for row, method in zip(rows, METHODS.values(), strict=True)]


def show(config: Config) -> tuple[Size, list[Module]]:
    """The size of the config's method on its encoder and the place of each of its modules, self-checked.

    Raises:
        MetaprimeError: the encoder cannot be used, or the method is not connected to it as it should be.
    """
    wanted = config.encoder
    encoder = load_encoder(wanted.name, wanted.attention, wanted.sites, wanted.trust_remote_code)
    task = build_task(config, encoder)
    text = synthetic.read("", "qaa", "train")[:SENTENCES]
    rows = task.encode([replace(sentence, tags=("O",) * len(sentence.words)) for sentence in text])
    model = build_model(encoder, task, config.peft, rows)
    places = called_at(model, task.collate(rows))
    modules = dict(model.adapter.named_modules())
    found = [
        Module(
            path,
            {name: tuple(value.shape) for name, value in modules[path].named_parameters(recurse=False)},
            site or ROOT,
        )
        for path, site in places.items()
    ]
    head = sum(value.numel() for value in partition(model).head.values())
    return _size(encoder, model.adapter, method_of(config.peft), head), found


def _counted(encoder: Encoder, method: Method) -> list[str]:
    """COUNTS of a method with its own settings in an encoder without weights; dashes where it does not fit the encoder."""
    sites = resolve(copy.deepcopy(encoder.module), encoder.layout)
    try:
        with torch.device("meta"):
            modules = method.inject(sites, method.config())
    except MetaprimeError:
        return ["–" for _ in COUNTS]
    size = _size(encoder, modules, method, (sites.hidden + 1) * TAGS)
    return [f"{count:,}" for count in (size.trained, size.stored, size.head)]


def _size(encoder: Encoder, adapter: Adapter, method: Method, head: int) -> Size:
    if method.moves_backbone:
        counts = {name: value.numel() for name, value in encoder.module.named_parameters()}
        moved = [count for name, count in counts.items() if not name.startswith(encoder.layout.unused or ("\0",))]
        return Size(sum(moved), sum(counts.values()), head)
    trained, choices = dict(adapter.named_parameters()), dict(adapter.named_buffers())
    with torch.no_grad():
        _, stored = adapter.collapse({name: value.detach() for name, value in trained.items()} | choices)
    return Size(sum(p.numel() for p in trained.values()), sum(v.numel() for v in stored.values()), head)
