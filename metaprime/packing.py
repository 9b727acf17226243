"""Puts the sub-words of a batch in one row, without padding, for everything in an encoder but attention.

    (B, L, D)   padded: B windows of L positions
    (1, N, D)   packed: the N real sub-words, window after window, each with its position

Linear maps, norms and adapters read one sub-word at a time, so that a row of sub-words is all they need.
Attention alone looks at a whole window: `models/attention.py` finds the windows by the packing of the
row at hand (`current`). `packed_calls` makes an encoder work in this way; `metaprime.nn` gives each of T
episodes its segment of the row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from metaprime.types import Batch

PACKED = "packed"
"""Argument by which a call of an encoder is packed; see `packed_calls`."""

NEARLY_FULL = 0.9
"""Share of real sub-words from which a batch stays padded: measured in benchmarks/notes.md."""

WINDOW_COST = 5000
"""Fixed cost on a CPU of attention for one window, in products of a query and a key: measured in
benchmarks/notes.md."""

PER_SUBWORD = ("input_ids", "inputs_embeds", "token_type_ids")
"""Arguments of an encoder that have a value for each sub-word."""


class NotPackable(RuntimeError):
    """A part of an encoder does not work on a row of sub-words."""


@dataclass(frozen=True, eq=False)
class Packing:
    """The places of a batch's real sub-words.

    Attributes:
        mask: `(B, L)` int64, 1 at real sub-words.
        places: `(N,)`, their numbers among the B x L positions.
    """

    mask: torch.Tensor
    places: torch.Tensor

    @classmethod
    def of(cls, mask_BL: torch.Tensor) -> Packing:
        """Returns the packing of a batch: `Packing.of(batch["attention_mask"])`.

        Args:
            mask_BL: `(B, L)`, not zero at real sub-words.
        """
        return cls(mask_BL, mask_BL.flatten().nonzero().squeeze(1))

    @cached_property
    def lengths(self) -> list[int]:
        """Number of real sub-words of each window."""
        lengths: list[int] = self.mask.ne(0).sum(1).tolist()
        return lengths

    @property
    def positions(self) -> torch.Tensor:
        """Position of each sub-word in its window, `(1, N)`."""
        return (self.places % self.mask.shape[1])[None]

    def segments(self, episodes: int) -> list[int]:
        """Returns the sub-words of each of T episodes, which have equally many windows.

        Args:
            episodes: T, a divisor of B.
        """
        size = len(self.lengths) // episodes
        return [sum(self.lengths[at * size : (at + 1) * size]) for at in range(episodes)]

    def window_by_window(self, query_BHLd: torch.Tensor) -> bool:
        """Returns True if attention is faster for one window after another than for the padded batch.

        A CPU saves what padding costs, a GPU would wait for many small kernels.

        Args:
            query_BHLd: queries of the row, `(1, H, N, D / H)`.
        """
        padded = len(self.lengths) * self.mask.shape[1] ** 2
        saved = padded - sum(length**2 for length in self.lengths)
        return query_BHLd.device.type == "cpu" and saved * query_BHLd.shape[1] > WINDOW_COST * len(self.lengths)

    def pack(self, padded: torch.Tensor) -> torch.Tensor:
        """Returns the real sub-words' values.

        Args:
            padded: `(B, L, ...)`.

        Returns:
            `(1, N, ...)`.
        """
        return padded.flatten(0, 1).index_select(0, self.places)[None]

    def pad(self, packed: torch.Tensor) -> torch.Tensor:
        """Returns values at their places, and zero at padding.

        Args:
            packed: `(1, N, ...)`.

        Returns:
            `(B, L, ...)`.
        """
        empty = packed.new_zeros(self.mask.numel(), *packed.shape[2:])
        return empty.index_copy(0, self.places, packed[0]).view(*self.mask.shape, *packed.shape[2:])


_ALLOWED: ContextVar[bool] = ContextVar("allowed", default=True)
_ROW: ContextVar[Packing | None] = ContextVar("row", default=None)


def current() -> Packing | None:
    """Returns the packing of the row that the encoder works on at the moment; None if its batch is padded."""
    # A compiler cannot trace the lengths of windows, nor context variables: what is compiled is padded.
    return None if torch.compiler.is_compiling() else _ROW.get()


def packed_calls(encoder: nn.Module, first_position: int = 0) -> None:
    """Adds hooks by which a call of an encoder with `packed=True` works on a row of sub-words.

    Arguments and result are as in a padded call, but that the result is zero at padding. A batch with
    little padding stays padded. Hooks that other code has added before see padded arguments and results.

    Args:
        encoder: a Hugging Face encoder whose attention is that of `models/attention.py`.
        first_position: number of the first position in the encoder's embeddings.

    Example: `packed_calls(module); module(input_ids=ids_BL, attention_mask=mask_BL, packed=True)`
    """

    def before(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        wanted = kwargs.pop(PACKED, False) and not torch.compiler.is_compiling() and _ALLOWED.get()
        mask_BL = kwargs["attention_mask"] if wanted else None
        row = None if mask_BL is None else Packing.of(mask_BL)
        if row is None or len(row.places) >= NEARLY_FULL * row.mask.numel():
            return args, kwargs
        _ROW.set(row)
        per_subword = {name: row.pack(kwargs[name]) for name in PER_SUBWORD if name in kwargs}
        return args, {**kwargs, **per_subword, "position_ids": row.positions + first_position}

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        row = current()
        if row is not None:
            _ROW.set(None)
            # There is no output after an error.
            if output is not None:
                output.last_hidden_state = row.pad(output.last_hidden_state)
        return output

    encoder.register_forward_pre_hook(before, with_kwargs=True)
    # The first hook, so that others see padded states; called after an error too, which must leave no row behind.
    encoder.register_forward_hook(after, prepend=True, always_call=True)


@contextmanager
def padded_calls() -> Iterator[None]:
    """Keeps all batches padded inside a `with`.

    A packed call reads the lengths of windows, which is impossible under `torch.func.vmap`.

    Example: `with padded_calls(): vmap(loss)(fast, batch)`
    """
    token = _ALLOWED.set(False)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def positions(batch: Batch, packed: bool) -> int:
    """Returns the positions of a batch that pass through the encoder.

    Args:
        batch: tensors `(B, L)`, or `(T, B, L)`.
        packed: whether its calls are packed.

    Example: `positions(batch, model.packed)`
    """
    whole = batch["attention_mask"].numel()
    real = int(batch["attention_mask"].count_nonzero()) if packed else whole
    return real if real < NEARLY_FULL * whole else whole


def by_episode(x: torch.Tensor, episodes: int) -> Sequence[torch.Tensor] | None:
    """Returns each episode's sub-words of a packed row; None for a padded batch.

    Args:
        x: `(1, N, ...)` if it is packed, `(T * B, ...)` otherwise.
        episodes: T.

    Returns:
        T tensors `(N_t, ...)`.

    Example: `by_episode(hidden_1ND, len(weight_Toi))`
    """
    row = current()
    if row is None or len(x) != 1 or episodes == 1:
        return None
    parts: Sequence[torch.Tensor] = x[0].split(row.segments(episodes))
    return parts
