"""Layers with one weight for each of T episodes, keyed dropout, an initialiser, and the adapter base class.

A module that uses its parameters only through these functions works with and without a leading T and
declares `supports_one_pass = True`. Other modules are batched by `torch.func.vmap`, which is slower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from metaprime.packing import by_episode
from metaprime.rng import Noise
from metaprime.types import Gradients, Params, Section


class NotOnePass(RuntimeError):
    """An input that is not one row for each sentence, such as a position table, met per-episode weights."""


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Returns the linear map of x by one weight, or of each episode's rows by that episode's weight.

    Args:
        x: `(T * B, ..., i)`, episodes one after another.
        weight: `(o, i)`, or `(T, o, i)`.
        bias: `(o,)` or `(T, o)`, with a leading T exactly if `weight` has one.

    Returns:
        `(T * B, ..., o)`.

    Raises:
        NotOnePass: the rows of x are not a multiple of T.

    Example: `linear(x, weight_Toi)`
    """
    if weight.dim() == 2:
        return torch.nn.functional.linear(x, weight, bias)
    if (parts := by_episode(x, len(weight))) is not None:
        biases = [None] * len(weight) if bias is None else bias.unbind()
        each = zip(parts, weight.unbind(), biases, strict=True)
        return torch.cat([torch.nn.functional.linear(*one) for one in each])[None]
    if len(x) % len(weight):
        raise NotOnePass(f"an input of {len(x)} rows for {len(weight)} episodes")
    x_TNi = x.reshape(len(weight), -1, x.shape[-1])
    y_TNo = torch.bmm(x_TNi, weight.mT) if bias is None else torch.baddbmm(bias[:, None], x_TNi, weight.mT)
    return y_TNo.view(*x.shape[:-1], -1)


def for_each(value: torch.Tensor, dims: int, sentences: int) -> torch.Tensor:
    """Repeats a value, or each episode's value, for every sentence.

    Args:
        value: a tensor of `dims` dimensions `(...,)`, or `(T, ...)` with one more.
        dims: dimensions of the value of one episode.
        sentences: T * B.

    Returns:
        `(T * B, ...)`.

    Example: `for_each(keys_HPd, 3, sentences=8)` is `(8, H, P, d)`.
    """
    if value.dim() == dims:
        return value.expand(sentences, *value.shape)
    return value.repeat_interleave(sentences // len(value), dim=0)


def broadcast_like(value: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Returns a vector, or one vector for each episode, in a shape that broadcasts against x.

    Args:
        value: `(D,)`, or `(T, D)`.
        x: `(T * B, ..., D)`, episodes one after another.

    Returns:
        `(D,)`, or `(T * B, 1, ..., D)` with as many dimensions as x.

    Raises:
        NotOnePass: the rows of x are not a multiple of T.

    Example: `x * broadcast_like(factors_TD, x)`
    """
    if value.dim() == 1:
        return value
    if (parts := by_episode(x, len(value))) is not None:
        each = zip(parts, value.unbind(), strict=True)
        return torch.cat([one_D.expand(len(part), -1) for part, one_D in each])[None]
    if len(x) % len(value):
        raise NotOnePass(f"an input of {len(x)} rows for {len(value)} episodes")
    repeated = value.repeat_interleave(len(x) // len(value), dim=0)
    return repeated.view(len(x), *(1 for _ in x.shape[1:-1]), -1)


def rows(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Looks up rows of one table, or of each episode's table.

    Args:
        table: `(V, D)`, or `(T, V, D)`.
        ids: `(T * B, L)` int64 in [0, V), episodes one after another.

    Returns:
        `(T * B, L, D)`.

    Raises:
        NotOnePass: the rows of `ids` are not a multiple of T.

    Example: `rows(embedding_VD, batch["input_ids"])`
    """
    if table.dim() == 2:
        return torch.nn.functional.embedding(ids, table)
    episodes, length, width = table.shape
    if (parts := by_episode(ids, episodes)) is not None:
        each = zip(parts, table.unbind(), strict=True)
        return torch.cat([torch.nn.functional.embedding(*one) for one in each])[None]
    if len(ids) % episodes:
        raise NotOnePass(f"an input of {len(ids)} rows for {episodes} episodes")
    first = torch.arange(episodes, device=ids.device).repeat_interleave(len(ids) // episodes) * length
    return torch.nn.functional.embedding(ids + first[:, None], table.reshape(episodes * length, width))


def kaiming_uniform(rows: int, columns: int, *, generator: torch.Generator) -> torch.Tensor:
    """Draws a matrix (rows, columns), uniform in +-1/sqrt(columns), as `nn.Linear` does by default.

    This is `torch.nn.init.kaiming_uniform_(a=sqrt(5))` (He et al. 2015).
    """
    bound = 1 / math.sqrt(columns)
    return (torch.rand(rows, columns, generator=generator) * 2 - 1) * bound


def dropped(x: torch.Tensor, share: float, noise: Noise | None) -> torch.Tensor:
    """Applies inverted dropout with keyed noise.

    Args:
        x: `(B, ..., D)`, one row for each key of `noise`.
        share: probability in [0, 1) that an entry becomes zero; the others are divided by 1 - share.
        noise: source of the draws; None switches dropout off.

    Example: `dropped(hidden_BLD, 0.1, Noise(batch[NOISE]))`
    """
    if noise is None:
        return x
    return x * (noise.rand_like(x) >= share).to(x) / (1 - share)


class Adapter(nn.ModuleDict):
    """The modules that a PEFT method adds to an encoder, and the method's special behaviour.

    The methods below default to no effect; a PEFT method with a selection, a constraint or a penalty
    overrides them. Names of values are local: without `adapter.`.

    Attributes:
        config: the method's settings.
    """

    def __init__(self, config: Section | None = None, modules: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__(dict(modules or {}))
        self.config: Any = config

    def select(self, backbone: Params, gradients: Gradients) -> Params:
        """Selects the weights that may move, once, before the first step.

        Args:
            backbone: theta by full name, in the shapes of the encoder's parameters, such as `(D, D)`.
            gradients: yields the loss's gradients at named weights, batch by batch.

        Returns:
            Integer tensors that hold the selection; none by default.
        """
        return {}

    def project(self, values: Params, done: float) -> Params:
        """Projects values onto the method's constraint after each step.

        Args:
            values: phi, each `(...,)` or `(T, ...)`.
            done: share of all steps that is done, in (0, 1].

        Returns:
            The values that change, in the same shapes; none by default.
        """
        return {}

    def penalty(self, values: Params) -> torch.Tensor | None:
        """Returns the term that training adds to the loss.

        Args:
            values: phi, each `(...,)` or `(T, ...)`.

        Returns:
            `()` or `(T,)` in nats; None, the default, adds nothing.
        """
        return None

    def collapse(self, values: Params) -> tuple[Any, Params]:
        """Returns a config and values, possibly fewer, that compute the same function after training.

        Args:
            values: phi after the last step, each `(...,)`.

        Returns:
            The config and values to store; by default those of the adapter, unchanged.
        """
        return self.config, values

    @property
    def selects(self) -> bool:
        """Returns True if the method selects weights."""
        return type(self).select is not Adapter.select

    @property
    def projects(self) -> bool:
        """Returns True if the method constrains values after each step."""
        return type(self).project is not Adapter.project

    @property
    def penalised(self) -> bool:
        """Returns True if the method adds a term to the loss."""
        return type(self).penalty is not Adapter.penalty
