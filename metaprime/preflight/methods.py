"""Lists PEFT methods with their sizes and places in an encoder (`metaprime peft list` and `show`)."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from metaprime.build.data import build_task
from metaprime.build.model import build_model
from metaprime.config.sections import Config
from metaprime.data.readers import synthetic
from metaprime.data.rows import Row
from metaprime.models.encoder import Encoder, load_encoder
from metaprime.models.injection_check import ROOT, called_at
from metaprime.models.sites import is_unused, resolve
from metaprime.nn import Adapter
from metaprime.peft import METHODS, Method, method_of
from metaprime.peft.no_adapter import HEAD
from metaprime.tasks import Task
from metaprime.types import MetaprimeError

METHOD_HEADER = ("method", "formula", "source")
"""Columns of the list of methods."""

COUNTS = ("trained", "stored", "head", "batches")
"""Further columns on an encoder: parameters trained, stored, and in the tag head; and whether batches are
packed, or padded for a reason."""

SENTENCES = 4
"""Number of sentences that the self-check reads."""


@dataclass(frozen=True)
class Size:
    """The size of a method on an encoder.

    Attributes:
        trained: number of parameters that fine-tuning moves, without the head's.
        stored: number of values in a transfer's files, without the head's.
        head: number of parameters of the task's head.
    """

    trained: int
    stored: int
    head: int


@dataclass(frozen=True)
class Module:
    """One PEFT module and its place in the encoder.

    Attributes:
        path: path of the module below `adapter`.
        shapes: parameter -> shape.
        site: path of the encoder's module that calls it.
    """

    path: str
    shapes: dict[str, tuple[int, ...]]
    site: str


def list_rows(name: str | None, trust_remote_code: bool = False) -> list[list[str]]:
    """Returns a row for each method: METHOD_HEADER, and COUNTS on an encoder.

    Args:
        name: hub id or folder of an encoder; None: no counts.
        trust_remote_code: True runs Python files that come with the encoder.

    Raises:
        MetaprimeError: the encoder cannot be used.

    Example: `list_rows("bert-base-multilingual-cased")`.
    """
    rows = [[method.name, method.formula, method.source] for method in METHODS.values()]
    if name is None:
        return rows
    encoder, defaults = load_encoder(name, trust_remote_code=trust_remote_code), Config()
    task = build_task(defaults.task, defaults.data, encoder, HEAD.config())
    batches = build_model(encoder, task, HEAD.config(), _rows(task)).batches
    nn.Module.to(encoder.module, "meta")
    return [
        [*row, *_counts_of(encoder, task, method, batches)] for row, method in zip(rows, METHODS.values(), strict=True)
    ]


def show(config: Config) -> tuple[Size, list[Module]]:
    """Returns the size of the config's method on its encoder, and its modules, after a self-check.

    Args:
        config: its sections encoder, peft, task and data are used.

    Raises:
        MetaprimeError: the encoder cannot be used, or a module of the method is not called or trained.

    Example: `size, modules = show(load_config(None, ["peft.method=lora"]))`.
    """
    settings = config.encoder
    encoder = load_encoder(
        settings.name,
        settings.attention,
        settings.sites,
        settings.trust_remote_code,
        spacing=settings.spacing,
        direction=settings.direction,
    )
    task = build_task(config.task, config.data, encoder, config.peft)

    # Building the model checks the method on a few sentences.
    rows = _rows(task)
    model = build_model(encoder, task, config.peft, rows)
    sites = called_at(model, task.collate(rows))
    modules = dict(model.adapter.named_modules())
    placed = [
        Module(
            path,
            {name: tuple(value.shape) for name, value in modules[path].named_parameters(recurse=False)},
            site or ROOT,
        )
        for path, site in sites.items()
    ]
    head = sum(value.numel() for value in model.head.parameters())
    return _size(encoder, model.adapter, method_of(config.peft), head), placed


def _rows(task: Task) -> list[Row]:
    """Returns a few sentences, without tags, on which a method is checked."""
    return task.encode([task.example(sentence.words) for sentence in synthetic.read("", "qaa", "train")[:SENTENCES]])


def _counts_of(encoder: Encoder, task: Task, method: Method, batches: str) -> list[str]:
    """Returns COUNTS of a method with its defaults; dashes if it does not fit the encoder."""
    sites = resolve(copy.deepcopy(encoder.module), encoder.layout)
    try:
        with torch.device("meta"):
            adapter, head = method.inject(sites, method.config()), task.new_head(sites)
    except MetaprimeError:
        return ["–" for _ in COUNTS]
    size = _size(encoder, adapter, method, sum(value.numel() for value in head.parameters()))
    return [*(f"{count:,}" for count in (size.trained, size.stored, size.head)), batches]


def _size(encoder: Encoder, adapter: Adapter, method: Method, head: int) -> Size:
    """Returns the size of a method; `head` is the number of the head's parameters."""
    if method.moves_backbone:
        counts = {name: value.numel() for name, value in encoder.module.named_parameters()}
        moved = [count for name, count in counts.items() if not is_unused(name, encoder.layout.unused)]
        return Size(sum(moved), sum(counts.values()), head)
    trained, choices = dict(adapter.named_parameters()), dict(adapter.named_buffers())
    with torch.no_grad():
        _, stored = adapter.collapse({name: value.detach() for name, value in trained.items()} | choices)
    return Size(sum(value.numel() for value in trained.values()), sum(value.numel() for value in stored.values()), head)
