"""Sparse fine-tuning: theta + delta, where delta has a share p of the weights' entries and is zero elsewhere (Fu et al. 2023).

It is kept as (indices, delta), not as a mask over gradients, under which weight decay still shrinks what is masked. Which
entries: k = floor(p n) of each tensor of n, or floor(p m) of all m together, by a score:

    random_mask   drawn with phi                      (the control)
    magnitude     |theta|                             the largest are kept trainable
    sam           |sum of dL/dtheta|                  second-order approximation method, one shot
    fisher        sum of (dL/dtheta)^2                Child-Tuning-D (Xu et al. 2021), FISH mask (Sung et al. 2021)

The sums are over batches: of an episode's support sentences in priming, of the K sentences in transfer, with theta and the head
as they are at the start. Nothing is differentiated through the choice.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from metaprime.nn import Adapter
from metaprime.peft.method import Method, MethodConfig
from metaprime.peft.sparse.weights import CHANGE, Weights, change_weights, changeable, weights_of
from metaprime.types import Gradients, MetaprimeError, Params, Sites

PositiveShare = Annotated[float, Field(gt=0, le=1)]


class BudgetConfig(MethodConfig):
    """Base: p = `budget`, of each tensor or of all weights together (`scope`); `embeddings` counts the words' among them."""

    budget: PositiveShare = 0.005
    scope: Literal["per_tensor", "global"] = "per_tensor"
    embeddings: bool = False


class RandomMaskConfig(BudgetConfig):
    """Entries drawn at random."""

    method: Literal["random_mask"] = "random_mask"


class MagnitudeConfig(BudgetConfig):
    """The largest entries."""

    method: Literal["magnitude"] = "magnitude"


class SamConfig(BudgetConfig):
    """Entries with the largest gradient, signs kept when batches are summed."""

    method: Literal["sam"] = "sam"


class FisherConfig(BudgetConfig):
    """Entries with the largest sum of squared gradients."""

    method: Literal["fisher"] = "fisher"


def kept(weights: Weights, config: BudgetConfig) -> int:
    """How many entries the budget allows."""
    if config.scope == "global":
        return _share(config.budget, weights.total)
    return sum(_share(config.budget, size) for size in weights.sizes)


def _share(budget: float, size: int) -> int:
    """floor(p n), and not one less where p in binary is a little less than it was written."""
    return math.floor(budget * size + 1e-6)


def largest(scores: torch.Tensor, weights: Weights, config: BudgetConfig) -> torch.Tensor:
    """Flat places of the entries with the largest scores, as many as the budget allows, in rising order.

    Args:
        scores: (..., m).
    """
    if config.scope == "global":
        return scores.topk(kept(weights, config)).indices.sort().values
    parts = zip(scores.split(weights.sizes, dim=-1), weights.sizes, weights.firsts, strict=True)
    found = [part.topk(_share(config.budget, size)).indices + first for part, size, first in parts]
    return torch.cat(found, dim=-1).sort().values


class Sparse(nn.Module):
    """Delta at the chosen entries, (k,), to the change of all m."""

    supports_one_pass = True

    def __init__(self, weights: Weights, config: BudgetConfig) -> None:
        super().__init__()
        self.weights, self.config = weights, config
        count = kept(weights, config)
        self.delta = nn.Parameter(torch.zeros(count))
        self.indices: torch.Tensor
        self.register_buffer("indices", torch.zeros(count, dtype=torch.long))

    def forward(self) -> torch.Tensor:
        nothing = self.delta.new_zeros(*self.delta.shape[:-1], self.weights.total)
        return nothing.scatter(-1, self.indices, self.delta)

    def initial(self, generator: torch.Generator) -> Params:
        """Zero, at entries drawn at random; where they are chosen by a score, at any, until they are."""
        if self.config.method == RandomMaskConfig().method:
            scores = torch.rand(self.weights.total, generator=generator)
            return {"delta": torch.zeros(self.delta.shape), "indices": largest(scores, self.weights, self.config)}
        count = len(self.delta)
        return {"delta": torch.zeros(count), "indices": torch.arange(count) * self.weights.total // count}


def check_budget(weights: Weights, config: BudgetConfig) -> None:
    """Refuses a budget that allows nothing.

    Raises:
        MetaprimeError: it does.
    """
    if not kept(weights, config):
        most = weights.total if config.scope == "global" else max(weights.sizes)
        raise MetaprimeError(
            f"peft.budget {config.budget} with scope {config.scope} is less than one of this encoder's {most} weights: raise it"
        )


def inject(sites: Sites, config: Any) -> Adapter:
    """Hooks every weight that may change."""
    weights = changeable(sites, config.embeddings)
    check_budget(weights, config)
    change = Sparse(weights, config)
    change_weights(sites, weights, change)
    kind = Adapter if config.method == RandomMaskConfig().method else SelectedWeights
    return kind(config, {CHANGE: change})


class SelectedWeights(Adapter):
    """A sparse change at the entries with the largest scores."""

    def select(self, backbone: Params, gradients: Gradients) -> Params:
        """Returns the flat places of the entries with the largest scores, as many as the budget allows."""
        weights = weights_of(self)
        score = _score(self.config.method, weights, backbone, gradients)
        return {f"{CHANGE}.indices": largest(score, weights, self.config)}


def _score(name: str, weights: Weights, backbone: Params, gradients: Gradients) -> torch.Tensor:
    """Returns the scores (m,) of the method with this name."""

    def flat(values: Params) -> torch.Tensor:
        return torch.cat([values[name].detach().reshape(-1) for name in weights.names])

    if name == "magnitude":
        return flat(backbone).abs()
    score = torch.zeros(())
    for found in gradients(weights.names):
        flattened = flat(found)
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
