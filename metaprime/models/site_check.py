"""Checks that the sites query, key and value are what their names say, by what a change of each does.

A change at one position of the input of the attention reaches the output of the heads

    as a query   at that position alone
    as a key     at others too, and not in proportion: a softmax stands between
    as a value   at others too, in proportion

Only what contradicts a name is an error: attention of other kinds than the usual one may show nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import nn

from metaprime.rng import torch_stream
from metaprime.types import Batch, LayerSites, MetaprimeError, Sites

PLACE = 1
"""Position that is changed, behind the special token at the start."""

SIZE = 1e3
"""Size of the change, relative to what the projection gives: large enough for any softmax to saturate."""

NEGLIGIBLE = 1e-5
"""Largest change, relative to the largest one, that counts as none."""


class Effect(NamedTuple):
    """The effect of a change of some rows of a projection at one position.

    Attributes:
        elsewhere: whether the output of the heads changes at other positions too.
        proportional: whether twice the change has twice the effect.
    """

    elsewhere: bool
    proportional: bool


VALUE = Effect(elsewhere=True, proportional=True)


class _HeadsDone(Exception):
    """Ends a pass as soon as the output of the heads is known."""


@torch.no_grad()
def checked(sites: Sites, batch: Batch) -> Sites:
    """Returns the sites, each layer with whether its fused projection is in thirds.

    Args:
        sites: the sites of an encoder without an adapter, in evaluation mode.
        batch: tensors `(B, L)`; the first sentence is used.

    Raises:
        MetaprimeError: query or key acts as a value does, or query and key are exchanged.

    Example: `checked(resolve(module, layout), batch).layers[0].thirds`
    """
    layer, length = sites.layers[0], int(batch["attention_mask"][0].sum())
    if length < PLACE + 2:
        return sites
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch]
    trial = _Trial(sites.encoder, layer, {name: batch[name][:1, :length] for name in names})
    if layer.query is layer.key:
        width = layer.query.out_features // 3
        first, last = trial.effect(layer.query, range(width)), trial.effect(layer.query, range(2 * width, 3 * width))
        thirds = not (first and last) or (not first.elsewhere and last.proportional)
        return replace(sites, layers=tuple(replace(one, thirds=thirds) for one in sites.layers))
    found = {name: trial.effect(getattr(layer, name)) for name in ("query", "key", "value")}
    query, key, value = found.values()
    if not (query and key and value):
        return sites
    wrong = [name for name in ("query", "key") if found[name] == VALUE] if not value.proportional else []
    if query.elsewhere and not key.elsewhere:
        wrong = ["query", "key"]
    if wrong:
        raise MetaprimeError(
            f"encoder.sites: {' and '.join(wrong)} of this {type(sites.encoder).__name__} do not act as their names say (a "
            "query changes the output at its own position alone, a value changes it in proportion): see whether query, key "
            "and value are exchanged"
        )
    return sites


@dataclass(frozen=True)
class _Trial:
    """Passes of one sentence up to the output of the first layer's heads.

    Attributes:
        encoder: the encoder.
        layer: its first layer.
        inputs: what the encoder is called with, tensors `(1, L)`.
    """

    encoder: nn.Module
    layer: LayerSites
    inputs: Batch

    def effect(self, projection: nn.Linear, rows: range | None = None) -> Effect | None:
        """Returns the effect of a change of some rows' output; None if it cannot be seen."""
        rows = rows or range(projection.out_features)
        bare = self._heads(projection, rows, 0.0)
        once, twice = (self._heads(projection, rows, times * SIZE) for times in (1.0, 2.0))
        if bare is None or once is None or twice is None:
            return None
        once, twice = once - bare, twice - bare
        largest = float(twice.abs().max())
        if not largest or not torch.isfinite(twice).all():
            return None
        others = torch.cat([twice[:PLACE], twice[PLACE + 1 :]])
        off = float((twice - 2 * once).abs().max())
        return Effect(float(others.abs().max()) > NEGLIGIBLE * largest, off < 1e-3 * largest)

    def _heads(self, projection: nn.Linear, rows: range, size: float) -> torch.Tensor | None:
        """Returns the output of the heads (L, I) with a change of that size; None if it has another shape."""
        length, seen = self.inputs["input_ids"].shape[1], list[torch.Tensor]()
        done: list[bool] = []

        def change(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            # Further calls, as DeBERTa's with a table of positions, are not of the sentence.
            if done or output.dim() < 2 or output.shape[-2] != length:
                return output
            done.append(True)
            noise = torch.randn(len(rows), generator=torch_stream(0, "site check")).to(output)
            changed = output.clone()
            changed[..., PLACE, rows.start : rows.stop] += size * output.std() * noise
            return changed

        def take(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            seen.append(inputs[0])
            raise _HeadsDone

        handles = [projection.register_forward_hook(change), self.layer.attention_out.register_forward_pre_hook(take)]
        try:
            self.encoder(**self.inputs)
        except _HeadsDone:
            pass
        finally:
            for handle in handles:
                handle.remove()
        flat = seen[0].reshape(-1, seen[0].shape[-1]) if seen else None
        return flat if done and flat is not None and len(flat) == length else None
