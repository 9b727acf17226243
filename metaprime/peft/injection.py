"""Adds hooks to an encoder: they tap one site, and change the output or input of a site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from metaprime.types import LayerSites, MetaprimeError

FUSED = ("query", "key", "value")
"""Sites of a fused projection, in the order of its rows."""


def rows_of(layer: LayerSites, name: str) -> range:
    """Returns the rows of a projection's weight that belong to a site: `rows_of(layer, "key")`.

    These are all rows, or a third of them in a fused query, key and value projection.

    Raises:
        MetaprimeError: the rows of a fused projection are mixed.
    """
    rows = range(getattr(layer, name).out_features)
    if name not in FUSED or layer.query is not layer.key:
        return rows
    if not layer.thirds:
        raise MetaprimeError(
            f"this encoder computes query, key and value by one projection, whose rows are not all queries, then all keys, then "
            f"all values (DeBERTa v1 has them head by head), so that no block of rows is the {name}: give peft.sites among "
            "attention_out, ffn_in and ffn_out, or choose a method that changes none of the three"
        )
    width, place = len(rows) // len(FUSED), FUSED.index(name)
    return rows[place * width : (place + 1) * width]


Compose = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""`compose(h, change)` returns the new h; both are (..., D)."""


def add_to_output(site: nn.Module, delta: nn.Module, of_output: bool, compose: Compose = torch.add) -> None:
    """Adds a hook by which a site returns `compose(output, delta(x))`.

    If the site returns a tuple, as layers of some architectures do, its first element is changed.
    Example: `add_to_output(layer.query, term, of_output=False)`.

    Args:
        site: module of the encoder.
        delta: maps x (..., I) to a change (..., O).
        of_output: whether x is the site's output; otherwise it is its input.
        compose: combines output and change; by default their sum.
    """

    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> Any:
        if isinstance(output, tuple):
            return (hook(module, inputs, output[0]), *output[1:])
        return compose(output, cast(torch.Tensor, delta(output if of_output else inputs[0])))

    site.register_forward_hook(hook)


def add_between(tap: nn.Linear, delta: nn.Module, site: nn.Linear, before: bool, compose: Compose = torch.add) -> None:
    """Adds hooks by which `delta(x)` of one site's input changes another site's output or input.

    Example: `add_between(layer.ffn_in, adapter, layer.ffn_out, before=False)`.

    Args:
        tap: module whose input is x, (..., I).
        delta: maps x to a change (..., O).
        site: module that runs after `tap` and is changed.
        before: whether the input of `site` is changed; otherwise its output.
        compose: combines the input or output with the change; by default their sum.
    """
    # Holds the change from tap to site. `take` also replaces a change left by a pass that failed.
    waiting: list[torch.Tensor] = []

    def take(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        waiting[:] = [delta(inputs[0])]

    def change_input(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (compose(inputs[0], waiting.pop()), *inputs[1:])

    def change_output(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return compose(output, waiting.pop())

    tap.register_forward_pre_hook(take)
    if before:
        site.register_forward_pre_hook(change_input)
    else:
        site.register_forward_hook(change_output)
