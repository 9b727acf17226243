"""Layers that take one weight for each of T episodes, keyed dropout, initialisers, and the tree that a PEFT method leaves.

A module that reads its parameters through these functions takes weights with or without a leading T, and
says so by `supports_one_pass = True`. Others are batched by `torch.func.vmap`, which takes any module and
more time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from metaprime.rng import Noise
from metaprime.types import Gradients, Params, Section


class NotOnePass(RuntimeError):
    """An input that is not one of each sentence, such as a table of positions, cannot meet weights of each episode."""


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x (T * B, ..., in) by a weight (out, in), or each episode's sentences by its own of T: (T, out, in); bias likewise."""
    if weight.dim() == 2:
        return torch.nn.functional.linear(x, weight, bias)
    if len(x) % len(weight):
        raise NotOnePass(f"an input of {len(x)} rows for {len(weight)} episodes")
    x_TNi = x.reshape(len(weight), -1, x.shape[-1])
    y_TNo = torch.bmm(x_TNi, weight.mT) if bias is None else torch.baddbmm(bias[:, None], x_TNi, weight.mT)
    return y_TNo.view(*x.shape[:-1], -1)


def for_each(value: torch.Tensor, dims: int, sentences: int) -> torch.Tensor:
    """A value of so many dimensions, or one for each of T episodes, repeated for each of T * B sentences: (T * B, ...)."""
    if value.dim() == dims:
        return value.expand(sentences, *value.shape)
    return value.repeat_interleave(sentences // len(value), dim=0)


def broadcast_like(value: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A vector (D,), or one for each of T episodes, (T, D), in the shape that meets x (T * B, ..., D) element by element."""
    if value.dim() == 1:
        return value
    if len(x) % len(value):
        raise NotOnePass(f"an input of {len(x)} rows for {len(value)} episodes")
    repeated = value.repeat_interleave(len(x) // len(value), dim=0)
    return repeated.view(len(x), *(1 for _ in x.shape[1:-1]), -1)


def rows(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Rows of a table (V, D) by numbers ids (T * B, L), or each episode's sentences' of its own, (T, V, D): (T * B, L, D)."""
    if table.dim() == 2:
        return torch.nn.functional.embedding(ids, table)
    episodes, length, width = table.shape
    if len(ids) % episodes:
        raise NotOnePass(f"an input of {len(ids)} rows for {episodes} episodes")
    first = torch.arange(episodes, device=ids.device).repeat_interleave(len(ids) // episodes) * length
    return torch.nn.functional.embedding(ids + first[:, None], table.reshape(episodes * length, width))


def kaiming_uniform(rows: int, columns: int, *, generator: torch.Generator) -> torch.Tensor:
    """(rows, columns) uniform in +-1/sqrt(columns): `kaiming_uniform_(a=sqrt(5))`, the default of `nn.Linear`."""
    bound = 1 / math.sqrt(columns)
    return (torch.rand(rows, columns, generator=generator) * 2 - 1) * bound


def dropped(x: torch.Tensor, share: float, noise: Noise | None) -> torch.Tensor:
    """Dropout: each entry zero with probability `share`, the others grown by 1 / (1 - share). Without noise, x."""
    if noise is None:
        return x
    return x * (noise.rand_like(x) >= share).to(x) / (1 - share)


class Adapter(nn.ModuleDict):
    """What a PEFT method puts beside an encoder: phi's modules by path, and whatever else the method does.

    A method that is a function of its parameters and nothing else uses this class as it is: every
    behaviour below defaults to nothing. Names of values are those inside the adapter, without `adapter.`.

    Attributes:
        config: the method's settings.
    """

    def __init__(self, config: Section | None = None, modules: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__(dict(modules or {}))
        self.config: Any = config

    def select(self, backbone: Params, gradients: Gradients) -> Params:
        """Chooses which weights may move, once, before the first step.

        Args:
            backbone: theta by full name.
            gradients: the loss's gradients in named weights, batch after batch.

        Returns:
            The values (integer tensors) that hold the choice; none by default.
        """
        return {}

    def project(self, values: Params, done: float) -> Params:
        """Brings values back to where they may be, after each step.

        Args:
            values: phi, possibly with a leading T.
            done: share of all steps that is done, in (0, 1].

        Returns:
            The values that change; none by default.
        """
        return {}

    def penalty(self, values: Params) -> torch.Tensor | None:
        """Returns what training adds to the loss, () or (T,) in nats; None: nothing."""
        return None

    def collapse(self, values: Params) -> tuple[Any, Params]:
        """Returns what needs to be stored after the last step: a method's config, and values that give the same function."""
        return self.config, values

    @property
    def selects(self) -> bool:
        """Whether the method selects weights."""
        return type(self).select is not Adapter.select

    @property
    def projects(self) -> bool:
        """Whether the method constrains values after each step."""
        return type(self).project is not Adapter.project

    @property
    def penalised(self) -> bool:
        """Whether the method adds to the loss."""
        return type(self).penalty is not Adapter.penalty
