"""Changes the encoder's weights to theta + delta; delta is one flat vector over all of them.

The weights themselves stay as they are. A linear map, a norm and an embedding are linear in their
weights, so a hook adds the output that the module would have with delta as its weights. That costs
a second product in every linear map, and lets each episode have its own delta.
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
"""Name of the adapter's one module in a change of weights."""


@dataclass(frozen=True)
class Weights:
    """The weights that may change, in the order of their entries in a flat vector.

    Attributes:
        names: full names, such as `backbone.encoder.layer.0.output.dense.weight`.
        shapes: their shapes.
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    @cached_property
    def sizes(self) -> list[int]:
        """Number of entries of each weight."""
        return [shape.numel() for shape in self.shapes]

    @cached_property
    def total(self) -> int:
        """m, the number of entries of all weights."""
        return sum(self.sizes)

    @cached_property
    def firsts(self) -> list[int]:
        """Place of each weight's first entry in the flat vector."""
        return [end - size for end, size in zip(accumulate(self.sizes), self.sizes, strict=True)]


def weights_of(adapter: nn.ModuleDict) -> Weights:
    """Returns the weights that an adapter changes: `weights_of(adapter).total` is m."""
    # To mypy a module's attribute is a tensor or a module.
    weights: Weights = adapter.get_submodule(CHANGE).weights  # type: ignore[assignment]
    return weights


def changeable(sites: Sites, embeddings: bool) -> Weights:
    """Returns weights and biases of linear maps and norms: `changeable(sites, embeddings=False)`.

    Args:
        sites: the encoder; modules that do not reach its output are left out.
        embeddings: whether the word embeddings are included.
    """
    named = {
        f"backbone.{path}.{name}": parameter.shape
        for path, module in sites.owners.items()
        if isinstance(module, nn.Linear) or _is_norm(module) or (embeddings and module is sites.words)
        for name, parameter in module.named_parameters(recurse=False)
    }
    return Weights(tuple(named), tuple(named.values()))


def change_weights(sites: Sites, weights: Weights, change: Callable[[], torch.Tensor]) -> None:
    """Adds hooks by which the encoder computes with theta + `change()`.

    Example: `change_weights(sites, weights, Sparse(weights, config))`.

    Args:
        sites: the encoder.
        weights: the weights of the m entries.
        change: returns the change, (m,) or (T, m) for T episodes; called once a pass.
    """
    # Changes of the weights during a pass of the encoder, by name; empty otherwise.
    deltas: dict[str, torch.Tensor] = {}

    def begin(module: nn.Module, inputs: Any) -> None:
        # A single split, because its gradient is a single concatenation.
        parts = change().split(weights.sizes, dim=-1)
        for name, shape, part in zip(weights.names, weights.shapes, parts, strict=True):
            deltas[name] = part.reshape(*part.shape[:-1], *shape)

    def end(module: nn.Module, inputs: Any, output: Any) -> None:
        deltas.clear()

    sites.encoder.register_forward_pre_hook(begin)
    sites.encoder.register_forward_hook(end)
    for path, module in sites.owners.items():
        if f"backbone.{path}.weight" in weights.names:

            def add(
                module: nn.Module, inputs: Any, output: torch.Tensor, path: str = f"backbone.{path}"
            ) -> torch.Tensor:
                return output + _alone(module, inputs[0], deltas[f"{path}.weight"], deltas.get(f"{path}.bias"))

            module.register_forward_hook(add)


def _alone(module: nn.Module, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Returns the module's output for x with other weights."""
    if isinstance(module, nn.Linear):
        return linear(x, weight, bias)
    if isinstance(module, nn.Embedding):
        return rows(weight, x)
    scaled = _normalised(module, x) * broadcast_like(weight, x)
    return scaled if bias is None else scaled + broadcast_like(bias, x)


def _normalised(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Returns the output of a norm without its weights."""
    if isinstance(norm, nn.LayerNorm):
        return nn.functional.layer_norm(x, norm.normalized_shape, eps=norm.eps)
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + norm.variance_epsilon)).to(x.dtype)  # type: ignore[operator]


def _is_norm(module: nn.Module) -> bool:
    """Returns True for a layer norm, or a root-mean-square norm of transformers."""
    return isinstance(module, nn.LayerNorm) or hasattr(module, "variance_epsilon")
