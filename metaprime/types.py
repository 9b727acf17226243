"""The vocabulary of all rooms: types, shared constants, and the one exception that users see.

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

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Protocol,
    TypeAlias,
    Union,
    get_args,
    get_origin,
    runtime_checkable,
)

from pydantic import BaseModel, ConfigDict, model_validator

if TYPE_CHECKING:
    import torch
    from torch import nn

Params: TypeAlias = "dict[str, torch.Tensor]"
"""Tensors by full parameter name. Integer tensors, such as selected indices, are never updated."""

Batch: TypeAlias = "dict[str, torch.Tensor]"
"""The tensors of B windows, all int64: `input_ids`, `attention_mask` and `labels` (B, L); `labels` is
IGNORE everywhere but at first sub-words. Batches to train a model with dropout on also have NOISE
(B,), the keys of its random draws."""

NOISE = "noise"
"""Key of the random keys (B,) in a batch; also the attribute of a module with dropout that holds an
`rng.Noise` during a training pass and None otherwise."""

Loss: TypeAlias = "Callable[[Params, Params, Batch], torch.Tensor]"
"""`loss(backbone, fast, batch)` returns the loss () in nats per labelled sub-word and writes nothing."""

Gradients: TypeAlias = "Callable[[Sequence[str]], Iterable[Params]]"
"""`gradients(names)` yields, batch by batch, the loss's gradients at these backbone parameters."""

Select: TypeAlias = "Callable[[Params, Gradients], Params]"
"""`select(backbone, gradients)` returns integer tensors that say which weights may move."""

Project: TypeAlias = "Callable[[Params, float], Params]"
"""`project(values, done)` returns the values that a constraint changes after the share `done` of
all steps, in (0, 1]."""

Spacing = Literal["auto", "space", "none"]
"""Whether a space is put before each word: where running text shows that it belongs there, always, or never."""

Direction = Literal["both", "causal"]
"""Whether a word's state must depend on the words behind it (`both`), or need not (`causal`)."""

IGNORE = -100
"""Label of a sub-word without a label; `torch.nn.functional.cross_entropy` skips it by default."""

PREFIX_SLOT = "metaprime_prefix"
"""Attribute of an attention module that holds its prefix, set by `peft` and read by `models.attention`:
a function without arguments that returns (keys, values), each (H, P, D / H)."""

BESIDE_SLOT = "metaprime_beside"
"""Attribute of an attention module whose value `models.attention` adds to the output of the heads: a
function from queries (B, H, L, D / H) to a term of the same shape."""


class MetaprimeError(Exception):
    """A mistake that the user can correct; the message names file, line, key or value, and the remedy.

    Commands print it and end with exit code 2.

    Example:
        >>> try:
        ...     metaprime.load_config(None, ["inner.stepz=3"])
        ... except metaprime.MetaprimeError as error:
        ...     print(error)
        config: unknown key inner.stepz; did you mean steps?
    """


@dataclass(frozen=True, eq=False)
class Scalar:
    """A value of a config file that is written without quotes and may be text or not.

    A `Section` settles it: a key that wants text takes the text, any other key the value. It equals
    its value.

    Attributes:
        text: the value as it is written, such as `010`, `1e-4` or `null`.
        value: a number, bool or None.

    Example: `Scalar("1e-4", 0.0001).value`.
    """

    text: str
    value: float | bool | None

    def __eq__(self, other: object) -> bool:
        """Returns True for an equal value, written in whatever way."""
        return bool(self.value == (other.value if isinstance(other, Scalar) else other))

    def __hash__(self) -> int:
        """Returns the hash of the value."""
        return hash(self.value)

    def __repr__(self) -> str:
        """Returns the text, for messages."""
        return self.text


class Section(BaseModel):
    """Base class of all config sections: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _settled(cls, values: Any) -> Any:
        """Settles each `Scalar` by the type of its key."""
        if not isinstance(values, dict):
            return values
        fields = cls.model_fields
        return {
            key: settle_scalars(value, fields[key].annotation if key in fields else Any)
            for key, value in values.items()
        }


def settle_scalars(value: Any, wanted: Any) -> Any:
    """Returns a value of a config file with each `Scalar` as text or as its value.

    Args:
        value: a Scalar, a list or a mapping; anything else is returned as it is.
        wanted: type of its key; the mappings of sections, and what wants Scalars, are left alone.

    Example: `settle_scalars([Scalar("010", 10)], tuple[str, ...])` is `["010"]`.
    """
    kinds = list(_kinds(wanted))
    if Scalar in kinds:
        return value
    if isinstance(value, Scalar):
        # An empty value is no text.
        as_text = value.text and str in kinds and type(value.value) not in kinds
        return value.text if as_text else value.value
    if not isinstance(value, list | dict) or any(
        isinstance(kind, type) and issubclass(kind, Section) for kind in kinds
    ):
        return value
    inside = [get_args(kind)[-2:] for kind in kinds if get_origin(kind) in (tuple, dict)]
    if isinstance(value, dict):
        return {key: settle_scalars(item, inside[0][1] if inside else Any) for key, item in value.items()}
    return [settle_scalars(item, inside[0][0] if inside else Any) for item in value]


def _kinds(annotation: Any) -> Iterator[Any]:
    """Yields the members of a union, and what `Annotated` adds to them."""
    if get_origin(annotation) in (Annotated, Union, UnionType):
        for member in get_args(annotation):
            yield from _kinds(member)
    else:
        yield annotation


def is_number(value: object) -> bool:
    """Returns True for a whole number from 1: `is_number(True)` is False."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


HIDDEN = "hidden_BLD"
"""Key of a precomputed encoder output (B, L, D) in a batch; with it the encoder is not run."""


def trainable(values: Params) -> Params:
    """Returns the floating-point values; integer tensors, such as selected indices, are never updated.

    Args:
        values: tensors of any shape `(...,)` by name.

    Example: `trainable({"weight": torch.ones(2), "index": torch.arange(2)})` has only `weight`.
    """
    return {name: value for name, value in values.items() if value.is_floating_point()}


def strip_prefix(path: str, values: Params) -> Params:
    """Returns the values whose names start with a path, without that path; inverse of `add_prefix`.

    Args:
        path: dotted path without a final dot.
        values: tensors of any shape `(...,)` by full name.

    Example: `strip_prefix("head", {"head.bias": b, "adapter.x": x})` is `{"bias": b}`.
    """
    return {name.removeprefix(f"{path}."): value for name, value in values.items() if name.startswith(f"{path}.")}


def add_prefix(path: str, values: Params) -> Params:
    """Returns the values with a path in front of their names; inverse of `strip_prefix`.

    Args:
        path: dotted path without a final dot.
        values: tensors of any shape `(...,)` by local name.

    Example: `add_prefix("head", {"bias": b})` is `{"head.bias": b}`.
    """
    return {f"{path}.{name}": value for name, value in values.items()}


@runtime_checkable
class Drawn(Protocol):
    """A module that owns adapter or head parameters and draws their initial values."""

    def initial(self, generator: torch.Generator) -> Params:
        """Returns initial values by local name, on the CPU in float32, as a pure function of `generator`.

        They cover the module's own parameters, or those of its submodules too.
        """
        ...


@dataclass(frozen=True)
class Episodes:
    """T stacked episodes of one meta-step, or one process's slice of them.

    Attributes:
        languages: language of each episode.
        indices: each episode's number in the whole meta-batch.
        total: episodes of the whole meta-batch, by which sums are divided.
        support: one batch for each inner step, tensors (T, B, L).
        query: tensors (T, B, L).
        lengths: sub-words of each episode's longest window, T numbers for each inner step and then
            for the query; kept on the CPU to avoid device synchronisation. Empty if unknown.
        subwords: sub-words of all windows of each episode, in the same order. Empty if unknown.
    """

    languages: tuple[str, ...]
    indices: tuple[int, ...]
    total: int
    support: tuple[Batch, ...]
    query: Batch
    lengths: tuple[tuple[int, ...], ...] = ()
    subwords: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class State:
    """The values that priming trains, by full parameter name.

    Attributes:
        backbone: theta, in the shapes of the encoder's parameters, such as `(D, D)`.
        adapter: phi, in the shapes that the method defines.
        head: the task's output layer, such as `(C, D)` and `(C,)`.
        rates: learned inner rates, each `()`; empty if they are not learned.
    """

    backbone: Params
    adapter: Params
    head: Params
    rates: Params = field(default_factory=dict)


@dataclass(frozen=True)
class LayerSites:
    """The modules of one transformer layer that PEFT methods read or modify (see `models/sites.py`).

    Attributes:
        query, key, value: projections. A fused projection is the same module three times; its output
            is query, key and value, of equal width.
        attention_out: projection of the heads' output.
        ffn_in: first projection of the feed-forward block.
        ffn_out: second projection of the feed-forward block.
        attention: the self-attention module, which calls the attention function.
        ffn_norm: layer norm after the feed-forward residual in a post-LN encoder; None in a pre-LN one.
        layer: the whole layer.
        thirds: whether the rows of a fused projection are all queries, then all keys, then all values.
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
    thirds: bool = True


@dataclass(frozen=True)
class Sites:
    """The places of an encoder that PEFT methods can modify.

    Attributes:
        layers: the transformer layers, first to last.
        hidden: D, the hidden size.
        heads: H, the heads of keys and values; grouped-query attention has more query heads.
        head_width: D / H, the width of one head.
        owners: by path, the modules that own parameters on which the output depends.
        words: the table of word embeddings.
        encoder: the whole encoder.
    """

    layers: tuple[LayerSites, ...]
    hidden: int
    heads: int
    head_width: int
    owners: dict[str, nn.Module]
    words: nn.Embedding
    encoder: nn.Module
