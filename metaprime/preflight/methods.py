"""Lists PEFT methods, their size on an encoder and their places in it: `metaprime peft list` and `show`."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from metaprime.build.data import build_task
from metaprime.build.model import build_model
from metaprime.config.sections import Config
from metaprime.data.readers import synthetic
from metaprime.models.encoder import Encoder, load_encoder
from metaprime.models.injection_check import ROOT, called_at
from metaprime.models.sites import resolve
from metaprime.nn import Adapter
from metaprime.peft import METHODS, Method, method_of
from metaprime.peft.no_adapter import HEAD
from metaprime.tasks import Task
from metaprime.types import MetaprimeError

METHOD_HEADER = ("method", "formula", "source")
COUNTS = ("trained", "stored", "head")
SENTENCES = 4
"""As many as the self-check reads."""


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
    """Returns a row of METHOD_HEADER for each method, with COUNTS behind it if an encoder is given.

    Args:
        name: hub id or folder of an encoder; None: nothing is counted.
        trust_remote_code: whether Python files that come with the encoder may be run.

    Raises:
        MetaprimeError: the encoder cannot be used.
    """
    rows = [[method.name, method.formula, method.source] for method in METHODS.values()]
    if name is None:
        return rows
    encoder = load_encoder(name, trust_remote_code=trust_remote_code)
    nn.Module.to(encoder.module, "meta")
    defaults = Config()
    task = build_task(defaults.task, defaults.data, encoder, HEAD.config())
    return [[*row, *_counts_of(encoder, task, method)] for row, method in zip(rows, METHODS.values(), strict=True)]


def show(config: Config) -> tuple[Size, list[Module]]:
    """Returns the size of the config's method on its encoder and the place of each of its modules, self-checked.

    Raises:
        MetaprimeError: the encoder cannot be used, or the method is not connected to it as it should be.
    """
    wanted = config.encoder
    encoder = load_encoder(wanted.name, wanted.attention, wanted.sites, wanted.trust_remote_code)
    task = build_task(config.task, config.data, encoder, config.peft)
    rows = task.encode([task.example(one.words) for one in synthetic.read("", "qaa", "train")[:SENTENCES]])
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
    head = sum(value.numel() for value in model.head.parameters())
    return _size(encoder, model.adapter, method_of(config.peft), head), found


def _counts_of(encoder: Encoder, task: Task, method: Method) -> list[str]:
    """Returns COUNTS of a method with its defaults in an encoder without weights; dashes where it does not fit."""
    sites = resolve(copy.deepcopy(encoder.module), encoder.layout)
    try:
        with torch.device("meta"):
            adapter, head = method.inject(sites, method.config()), task.new_head(sites)
    except MetaprimeError:
        return ["–" for _ in COUNTS]
    size = _size(encoder, adapter, method, sum(value.numel() for value in head.parameters()))
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
