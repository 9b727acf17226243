"""The vocabulary every room shares: values without behaviour, and the one exception users see.

    backbone  theta   parameters of the pretrained encoder, under their plain Hugging Face names behind `backbone.`
    adapter   phi     PEFT parameters, behind `adapter.`
    head              the task's output layer, behind `head.`
    fast      phi'    adapter and head after the inner loop
    episode           one language's support and query batches;  meta-batch: T episodes
    inner_lr  alpha,  outer_lr  beta

Shape suffixes everywhere: T episodes, B sentences, L sub-words, C tags, D hidden, H attention heads.
This file imports no torch at run time, so that `metaprime --help` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import torch
    from torch import nn

Params: TypeAlias = "dict[str, torch.Tensor]"
"""Values by full name. Whole numbers among them are choices, such as which weights may change: nothing moves them."""

Batch: TypeAlias = "dict[str, torch.Tensor]"
"""`input_ids` (B, L) and `attention_mask` (B, L) int64, `labels` (B, L) int64 with IGNORE off the first sub-words. In training,
where something of the model is random, NOISE (B,) int64: the keys of its draws."""

NOISE = "noise"
"""Name of the keys in a batch, and attribute of a module that draws while it trains: a `noise.Noise` then, None otherwise."""

Loss: TypeAlias = "Callable[[Params, Params, Batch], torch.Tensor]"
"""`loss(backbone, fast, batch)`: scalar (), nats per labelled sub-word; reads parameters as values only."""

Gradients: TypeAlias = "Callable[[Sequence[str]], Iterable[Params]]"
"""From names in the backbone to the loss's gradients there, batch after batch."""

Select: TypeAlias = "Callable[[Params, Gradients], Params]"
"""From the backbone, and its gradients on some batches, to the choices that are made by them."""

Project: TypeAlias = "Callable[[Params, float], Params]"
"""From values, and the share of the steps done, to those of them that a constraint changes."""

IGNORE = -100
"""Label of a sub-word that carries none; the value `torch.nn.functional.cross_entropy` skips by default."""

PREFIX_SLOT = "metaprime_prefix"
"""Attribute of an attention module through which `peft` hands `models.attention` its prefix: a function of no
arguments giving (keys, values), each (H, P, D / H). Two rooms share the name, so it stands here."""


BESIDE_SLOT = "metaprime_beside"
"""Attribute of an attention module through which `peft` adds to what its heads give: a function of the queries
(B, H, L, D / H) of the same shape."""


class MetaprimeError(Exception):
    """A mistake that the user can correct: the message names the file, line, key or value, and the remedy.

    Commands print it and end with exit code 2.

    Example:
        >>> try:
        ...     metaprime.load_config(None, ["inner.stepz=3"])
        ... except metaprime.MetaprimeError as error:
        ...     print(error)
        config: unknown key inner.stepz; did you mean steps?
    """


class Section(BaseModel):
    """Base of every config section: immutable; an unknown key is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


HIDDEN = "hidden_BLD"
"""Name of an encoder's output (B, L, D) in a batch: where it is there, the encoder is not run again."""


def trainable(values: Params) -> Params:
    """Returns the values that training can move: integer tensors, such as selected indices, are never updated."""
    return {name: value for name, value in values.items() if value.is_floating_point()}


def strip_prefix(path: str, values: Params) -> Params:
    """Returns the values below a path by the rest of their names: the inverse of `add_prefix`.

    Example: `strip_prefix("head", {"head.bias": b, "adapter.x": x})` is `{"bias": b}`.
    """
    return {name.removeprefix(f"{path}."): value for name, value in values.items() if name.startswith(f"{path}.")}


def add_prefix(path: str, values: Params) -> Params:
    """Returns the values by their names below a path."""
    return {f"{path}.{name}": value for name, value in values.items()}


@runtime_checkable
class Drawn(Protocol):
    """A module that owns adapter or head parameters says how they start: a pure function of the generator."""

    def initial(self, generator: torch.Generator) -> Params:
        """Values for all its own parameters, or its submodules' too, by local name, on the CPU in float32."""
        ...


@dataclass(frozen=True)
class Episodes:
    """T episodes of one meta-step, stacked: each tensor of `support[s]` and `query` is (T, B, L).

    `indices` are the episodes' numbers within the whole meta-batch of `total` episodes: a process that holds a slice
    of it knows which, so that its sums divide by the whole. `lengths` are the sub-words of each episode's longest window,
    (T,) for each inner step and for the query, as numbers, which no device need be asked for; empty: not known.
    """

    languages: tuple[str, ...]
    indices: tuple[int, ...]
    total: int
    support: tuple[Batch, ...]
    query: Batch
    lengths: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class State:
    """Everything priming moves: theta, phi, the head and, where they are learned, the inner rates, by full parameter name."""

    backbone: Params
    adapter: Params
    head: Params
    rates: Params = field(default_factory=dict)


@dataclass(frozen=True)
class LayerSites:
    """The modules of one transformer layer at which PEFT methods tap or add (see `models/sites.py`).

    Query, key and value may be one and the same module: a fused projection whose output is the three, in this order and
    of equal width. `ffn_norm` is the layer norm after the feed-forward residual of a post-LN encoder, None in a pre-LN
    one; `layer` is the whole layer.
    """

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    attention_out: nn.Linear
    ffn_in: nn.Linear
    ffn_out: nn.Linear
    attention: nn.Module
    ffn_norm: nn.Module | None
    layer: nn.Module


@dataclass(frozen=True)
class Sites:
    """Where an encoder can be modified: its layers, D (`hidden`), H (`heads`) and D / H (`head_width`), all its modules that
    own parameters which reach its output, by path, the table of its `words`' embeddings, and itself.

    H counts the heads of keys and values, which in grouped-query attention are fewer than the queries'.
    """

    layers: tuple[LayerSites, ...]
    hidden: int
    heads: int
    head_width: int
    owners: dict[str, nn.Module]
    words: nn.Embedding
    encoder: nn.Module
