"""A change of the encoder's weights themselves, theta + delta, as one flat vector over all weights that may change.

The weights stay where they are: a linear map, a norm and an embedding are linear in theirs, so that each module's output gets
the output that delta alone would give. Delta costs a second product in every linear map, and each episode can have its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from metaprime.nn import broadcast_like, linear, rows
from metaprime.types import Sites

CHANGE = "change"
"""The one module of a change of weights, by its name in the adapter."""


@dataclass(frozen=True)
class Weights:
    """The weights that may change, in the order in which a flat vector holds them. `names` as in `types.Params`."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    @cached_property
    def sizes(self) -> list[int]:
        """Entries of each."""
        return [shape.numel() for shape in self.shapes]

    @cached_property
    def total(self) -> int:
        """m: entries of all."""
        return sum(self.sizes)

    @cached_property
    def firsts(self) -> list[int]:
        """Where each begins in the flat vector."""
        return [end - size for end, size in zip(accumulate(self.sizes), self.sizes, strict=True)]


def weights_of(adapter: nn.ModuleDict) -> Weights:
    """Returns the weights that an adapter's one change is of."""
    weights: Weights = adapter.get_submodule(CHANGE).weights  # type: ignore[assignment]  # a module's attribute is any
    return weights


def changeable(sites: Sites, embeddings: bool) -> Weights:
    """Weights and biases of all linear maps and norms that reach the output; with `embeddings`, those of the words too."""
    named = {
        f"backbone.{path}.{name}": parameter.shape
        for path, module in sites.owners.items()
        if isinstance(module, nn.Linear) or _is_norm(module) or (embeddings and module is sites.words)
        for name, parameter in module.named_parameters(recurse=False)
    }
    return Weights(tuple(named), tuple(named.values()))


def change_weights(sites: Sites, weights: Weights, change: Callable[[], torch.Tensor]) -> None:
    """From now on the encoder works with theta + `change()`, which is (m,), or (T, m) for T episodes, once each pass."""
    given: dict[str, torch.Tensor] = {}  # of this pass, by name

    def begin(module: nn.Module, inputs: Any) -> None:
        parts = change().split(weights.sizes, dim=-1)  # one split: its gradient is one concatenation
        for name, shape, part in zip(weights.names, weights.shapes, parts, strict=True):
            given[name] = part.reshape(*part.shape[:-1], *shape)

    def end(module: nn.Module, inputs: Any, output: Any) -> None:
        given.clear()

    sites.encoder.register_forward_pre_hook(begin)
    sites.encoder.register_forward_hook(end)
    for path, module in sites.owners.items():
        if f"backbone.{path}.weight" in weights.names:

            def add(
                module: nn.Module, inputs: Any, output: torch.Tensor, path: str = f"backbone.{path}"
            ) -> torch.Tensor:
                return output + _alone(module, inputs[0], given[f"{path}.weight"], given.get(f"{path}.bias"))

            module.register_forward_hook(add)


def _alone(module: nn.Module, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """What the module gives for x with these weights in place of its own."""
    if isinstance(module, nn.Linear):
        return linear(x, weight, bias)
    if isinstance(module, nn.Embedding):
        return rows(weight, x)
    scaled = _normalised(module, x) * broadcast_like(weight, x)
    return scaled if bias is None else scaled + broadcast_like(bias, x)


def _normalised(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    if isinstance(norm, nn.LayerNorm):
        return nn.functional.layer_norm(x, norm.normalized_shape, eps=norm.eps)
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + norm.variance_epsilon)).to(x.dtype)  # type: ignore[operator]


def _is_norm(module: nn.Module) -> bool:
    """A layer norm, or a root-mean-square norm as transformers writes them."""
    return isinstance(module, nn.LayerNorm) or hasattr(module, "variance_epsilon")
