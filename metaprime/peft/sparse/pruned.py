"""A change of all weights, theta + delta, that training itself makes sparse, or holds near theta.

    child_pruning  after every step only the k largest |delta| stay, the rest is zero again (Fu et al. 2023, as their code has it;
                   the Child-Tuning of Xu et al. 2021 is `fisher`, or a gradient mask drawn anew at every step)
    diff_pruning   delta = z w with hard-concrete gates z (Louizos et al. 2018), open with probability sigma(alpha) and priced by
                   lambda mean sigma(alpha); after a share `burn_in` of the steps the k largest alpha stay open for good, the
                   others are shut, and w trains on (Guo et al. 2021; the burn-in is that of Fu et al.'s code)
    mixout         in training each entry of delta is zero with probability p, the others grow by 1 / (1 - p) (Lee et al. 2020)

k is the budget of `sparse`. The first two are stored as what they have become: (indices, delta).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat
from torch import nn

from metaprime.nn import Adapter
from metaprime.peft.method import Method, MethodConfig
from metaprime.peft.sparse.selected import FU, BudgetConfig, PositiveShare, RandomMaskConfig, check_budget, largest
from metaprime.peft.sparse.weights import CHANGE, Weights, change_weights, changeable, weights_of
from metaprime.rng import Noise
from metaprime.types import Params, Sites

STRETCH = (-1.5, 1.5)
"""Of the hard-concrete gates, before they are cut off at 0 and 1. As it is even, a gate is open with probability sigma(alpha)."""
SHUT, OPEN = -1e4, 1e4
"""Alphas at which a gate no longer depends on its noise."""


class ChildPruningConfig(BudgetConfig):
    """All weights move, the largest changes stay."""

    method: Literal["child_pruning"] = "child_pruning"


class DiffPruningConfig(BudgetConfig):
    """`price` is lambda, nats for gates that are all open; alpha starts as `start`, where gates are neither open nor shut;
    `burn_in` is the share of the steps after which they are fixed.
    """

    method: Literal["diff_pruning"] = "diff_pruning"
    start: float = 0.8
    price: NonNegativeFloat = 1.0
    burn_in: PositiveShare = 0.5


class MixoutConfig(MethodConfig):
    """p = `mixout`, the probability that an entry is theta's own; `embeddings` moves the words' too."""

    method: Literal["mixout"] = "mixout"
    mixout: Annotated[float, Field(ge=0, lt=1)] = 0.9
    embeddings: bool = False


class Dense(nn.Module):
    """Delta itself, (m,)."""

    supports_one_pass = True

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.weights = weights
        self.delta = nn.Parameter(torch.zeros(weights.total))

    def forward(self) -> torch.Tensor:
        return self.delta

    def initial(self, generator: torch.Generator) -> Params:
        return {"delta": torch.zeros(self.delta.shape)}


class Mixed(Dense):
    """Delta with entries left out while it trains."""

    noise: Noise | None

    def __init__(self, weights: Weights, config: MixoutConfig) -> None:
        super().__init__(weights)
        self.share, self.noise = config.mixout, None

    def forward(self) -> torch.Tensor:
        if self.noise is None:
            return self.delta
        drawn = self.noise.rand(self.delta.shape).to(self.delta.device)
        return self.delta * (drawn >= self.share) / (1 - self.share)


class Gated(Dense):
    """w behind gates."""

    noise: Noise | None

    def __init__(self, weights: Weights, config: DiffPruningConfig) -> None:
        super().__init__(weights)
        self.start = config.start
        self.alpha = nn.Parameter(torch.zeros(weights.total))
        self.noise = None

    def forward(self) -> torch.Tensor:
        logits: torch.Tensor = self.alpha
        if self.noise is not None:
            drawn = self.noise.rand(self.alpha.shape).clamp(1e-6, 1 - 1e-6)
            logits = logits + drawn.logit().to(logits.device)
        low, high = STRETCH
        return self.delta * (low + (high - low) * logits.sigmoid()).clamp(0, 1)

    def initial(self, generator: torch.Generator) -> Params:
        return {"delta": torch.zeros(self.delta.shape), "alpha": torch.full(self.alpha.shape, self.start)}


def _weights(sites: Sites, config: Any) -> Weights:
    weights = changeable(sites, config.embeddings)
    if isinstance(config, BudgetConfig):
        check_budget(weights, config)
    return weights


def inject_dense(sites: Sites, config: Any) -> Adapter:
    """Hooks a change of every weight, of which the largest entries stay."""
    weights = _weights(sites, config)
    return LargestChanges(config, _change(sites, weights, Dense(weights)))


def inject_mixed(sites: Sites, config: Any) -> Adapter:
    """Hooks a change of every weight that is partly left out in training."""
    weights = _weights(sites, config)
    return Adapter(config, _change(sites, weights, Mixed(weights, config)))


def inject_gated(sites: Sites, config: Any) -> Adapter:
    """Hooks a change of every weight behind gates."""
    weights = _weights(sites, config)
    return GatedChanges(config, _change(sites, weights, Gated(weights, config)))


def _change(sites: Sites, weights: Weights, change: Dense) -> dict[str, nn.Module]:
    change_weights(sites, weights, change)
    return {CHANGE: change}


class LargestChanges(Adapter):
    """A dense change of which only the k largest entries stay after each step."""

    def project(self, values: Params, done: float) -> Params:
        """Returns the change with zeros but for the k largest entries."""
        delta = values[f"{CHANGE}.delta"]
        return {f"{CHANGE}.delta": delta * _at_largest(delta.abs(), self)}

    def collapse(self, values: Params) -> tuple[Any, Params]:
        """Returns the k largest entries as a sparse change."""
        delta = values[f"{CHANGE}.delta"]
        return _as_sparse(self.config, largest(delta.abs(), weights_of(self), self.config), delta)


class GatedChanges(Adapter):
    """A dense change behind hard-concrete gates, which are fixed after the burn-in."""

    def project(self, values: Params, done: float) -> Params:
        """Returns, after the burn-in, open gates at the k largest alphas and shut ones elsewhere.

        Once fixed, the same alphas are the largest again.
        """
        if done < self.config.burn_in:
            return {}
        alpha = values[f"{CHANGE}.alpha"]
        kept = _at_largest(alpha, self)
        return {f"{CHANGE}.alpha": torch.where(kept, alpha.new_tensor(OPEN), alpha.new_tensor(SHUT))}

    def penalty(self, values: Params) -> torch.Tensor:
        """Returns the price of the open gates, () or (T,) in nats: `price` for gates that are all open."""
        open_share: torch.Tensor = values[f"{CHANGE}.alpha"].sigmoid().mean(-1)
        return float(self.config.price) * open_share

    def collapse(self, values: Params) -> tuple[Any, Params]:
        """Returns what lies behind the gates that stayed open, as a sparse change."""
        alpha, delta = values[f"{CHANGE}.alpha"], values[f"{CHANGE}.delta"]
        return _as_sparse(self.config, largest(alpha, weights_of(self), self.config), delta)


def _at_largest(scores: torch.Tensor, adapter: Adapter) -> torch.Tensor:
    """Returns True at the places of the k largest scores (..., m)."""
    chosen = largest(scores.detach(), weights_of(adapter), adapter.config)
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, chosen, True)


def _as_sparse(config: BudgetConfig, indices: torch.Tensor, delta: torch.Tensor) -> tuple[MethodConfig, Params]:
    stored = RandomMaskConfig(budget=config.budget, scope=config.scope, embeddings=config.embeddings)
    return stored, {f"{CHANGE}.indices": indices, f"{CHANGE}.delta": delta.gather(-1, indices)}


CHILD = Method(ChildPruningConfig, inject_dense, "theta + delta, only the largest |delta| kept after every step", FU)
DIFF = Method(
    DiffPruningConfig,
    inject_gated,
    "theta + z w, gates z priced, the most open kept",
    "Guo et al. 2021, arXiv 2012.07463",
)
MIXOUT = Method(
    MixoutConfig,
    inject_mixed,
    "theta + mask delta / (1 - p) in training, theta + delta after",
    "Lee et al. 2020, arXiv 1909.11299",
)
