"""Implements sparse fine-tuning: theta + delta, with delta zero except at a share p of the weights.

Fu et al. 2023 (2211.15583). Delta is kept as (indices, delta) and not as a mask over gradients,
under which weight decay would still shrink masked weights. The k entries with the largest scores
are selected: k is floor(p n) in each tensor of n entries, or floor(p m) among all m together.

    method        score
    random_mask   random                   drawn with phi, the control
    magnitude     |theta|                  the largest are kept trainable
    sam           |sum of dL/dtheta|       second-order approximation method, one shot
    fisher        sum of (dL/dtheta)^2     Child-Tuning-D (Xu et al. 2021), FISH mask (Sung et al. 2021)

The sums are over batches of an episode's support sentences in priming, and of the K sentences in
transfer, with theta and the head at their start. The selection is not differentiated.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from metaprime.nn import Adapter
from metaprime.peft.method import Method
from metaprime.peft.settings import BudgetConfig, FisherConfig, MagnitudeConfig, RandomMaskConfig, SamConfig
from metaprime.peft.sparse.weights import CHANGE, Weights, change_weights, changeable, weights_of
from metaprime.types import Gradients, MetaprimeError, Params, Sites


def kept(weights: Weights, config: BudgetConfig) -> int:
    """Returns k, the number of entries in the budget: `kept(weights, SamConfig(budget=0.01))`."""
    if config.scope == "global":
        return _share(config.budget, weights.total)
    return sum(_share(config.budget, size) for size in weights.sizes)


def _share(budget: float, size: int) -> int:
    """Returns floor(p n)."""
    # The small number corrects for a p that is rounded down in binary.
    return math.floor(budget * size + 1e-6)


def largest(scores: torch.Tensor, weights: Weights, config: BudgetConfig) -> torch.Tensor:
    """Returns the flat places of the largest scores: `largest(scores, weights, SamConfig())`.

    Args:
        scores: (..., m).
        weights: the weights of the m entries.
        config: the budget.

    Returns:
        Places (..., k), in increasing order.
    """
    if config.scope == "global":
        return scores.topk(kept(weights, config)).indices.sort().values
    parts = zip(scores.split(weights.sizes, dim=-1), weights.sizes, weights.firsts, strict=True)
    places = [part.topk(_share(config.budget, size)).indices + first for part, size, first in parts]
    return torch.cat(places, dim=-1).sort().values


class Sparse(nn.Module):
    """A change of m weights that is zero except at k entries: `delta` (k,) at `indices` (k,)."""

    supports_one_pass = True

    def __init__(self, weights: Weights, config: BudgetConfig) -> None:
        super().__init__()
        self.weights, self.config = weights, config
        count = kept(weights, config)
        self.delta = nn.Parameter(torch.zeros(count))
        self.indices: torch.Tensor
        self.register_buffer("indices", torch.zeros(count, dtype=torch.long))

    def forward(self) -> torch.Tensor:
        """Returns the change, (m,) or (T, m)."""
        zeros = self.delta.new_zeros(*self.delta.shape[:-1], self.weights.total)
        return zeros.scatter(-1, self.indices, self.delta)

    def initial(self, generator: torch.Generator) -> Params:
        """Returns a delta of zero at random places, or evenly spaced ones if a score selects later."""
        if self.config.method == RandomMaskConfig().method:
            scores = torch.rand(self.weights.total, generator=generator)
            return {"delta": torch.zeros(self.delta.shape), "indices": largest(scores, self.weights, self.config)}
        count = len(self.delta)
        return {"delta": torch.zeros(count), "indices": torch.arange(count) * self.weights.total // count}


def check_budget(weights: Weights, config: BudgetConfig) -> None:
    """Checks that the budget allows at least one weight: `check_budget(weights, SamConfig())`.

    Raises:
        MetaprimeError: the budget is less than one weight.
    """
    if not kept(weights, config):
        most = weights.total if config.scope == "global" else max(weights.sizes)
        raise MetaprimeError(
            f"peft.budget {config.budget} with scope {config.scope} is less than one of this encoder's {most} weights: raise it"
        )


def inject(sites: Sites, config: Any) -> Adapter:
    """Hooks a sparse change of the weights: `inject(sites, SamConfig(budget=0.01))`.

    Raises:
        MetaprimeError: the budget is less than one weight.
    """
    weights = changeable(sites, config.embeddings)
    check_budget(weights, config)
    change = Sparse(weights, config)
    change_weights(sites, weights, change)
    kind = Adapter if config.method == RandomMaskConfig().method else SelectedWeights
    return kind(config, {CHANGE: change})


class SelectedWeights(Adapter):
    """A sparse change at the entries with the largest scores."""

    def select(self, backbone: Params, gradients: Gradients) -> Params:
        """Returns the flat places (k,) of the largest scores: `adapter.select(theta, gradients)`.

        Args:
            backbone: theta by full name, each in its own shape (...).
            gradients: yields gradients in named weights, batch after batch.
        """
        weights = weights_of(self)
        score = _score(self.config.method, weights, backbone, gradients)
        return {f"{CHANGE}.indices": largest(score, weights, self.config)}


def _score(name: str, weights: Weights, backbone: Params, gradients: Gradients) -> torch.Tensor:
    """Returns the scores (m,) of the method with a name."""

    def flat(values: Params) -> torch.Tensor:
        return torch.cat([values[name].detach().reshape(-1) for name in weights.names])

    if name == "magnitude":
        return flat(backbone).abs()
    score = torch.zeros(())
    for by_name in gradients(weights.names):
        flattened = flat(by_name)
        score = score.to(flattened) + (flattened.square() if name == "fisher" else flattened)
    return score.abs()


FU = "Fu et al. 2023, arXiv 2211.15583"
RANDOM = Method(RandomMaskConfig, inject, "theta + delta at floor(p n) random entries", FU)
MAGNITUDE = Method(MagnitudeConfig, inject, "theta + delta where |theta| is largest", FU)
SAM = Method(SamConfig, inject, "theta + delta where |sum of gradients| is largest", FU)
FISHER = Method(
    FisherConfig,
    inject,
    "theta + delta where the sum of squared gradients is largest",
    "Xu et al. 2021, arXiv 2109.05687",
)
