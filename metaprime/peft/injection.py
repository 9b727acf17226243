"""Hooks by which every method modifies an encoder: tap an input or output of a site, add to an output or input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from metaprime.types import LayerSites

FUSED = ("query", "key", "value")
"""In the order in which a fused projection holds them."""


def rows_of(layer: LayerSites, name: str) -> range:
    """The rows of the weight that make up this site: all, or a third of a fused query, key and value projection."""
    rows = range(getattr(layer, name).out_features)
    if name not in FUSED or layer.query is not layer.key:
        return rows
    width, place = len(rows) // len(FUSED), FUSED.index(name)
    return rows[place * width : (place + 1) * width]


Compose = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""What becomes of h and its change."""


def add_to_output(site: nn.Module, delta: nn.Module, of_output: bool, compose: Compose = torch.add) -> None:
    """From now on the site's output is `output + delta(x)`, x being its output or its input.

    Of several outputs, as some architectures' layers have them, this is the first.
    """

    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> Any:
        if isinstance(output, tuple):
            return (hook(module, inputs, output[0]), *output[1:])
        return compose(output, cast(torch.Tensor, delta(output if of_output else inputs[0])))

    site.register_forward_hook(hook)


def add_between(tap: nn.Linear, delta: nn.Module, site: nn.Linear, before: bool, compose: Compose = torch.add) -> None:
    """From now on `delta(x)`, x being the input of `tap`, is added to the output of `site`, or `before` it to its input."""
    waiting: list[
        torch.Tensor
    ] = []  # one result, from tap to site; a pass that failed in between leaves its own behind

    def take(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        waiting[:] = [delta(inputs[0])]

    def give_before(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (compose(inputs[0], waiting.pop()), *inputs[1:])

    def give_after(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return compose(output, waiting.pop())

    tap.register_forward_pre_hook(take)
    if before:
        site.register_forward_pre_hook(give_before)
    else:
        site.register_forward_hook(give_after)
