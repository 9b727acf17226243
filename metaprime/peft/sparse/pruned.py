"""Implements changes of all weights that become sparse, or stay near theta, in training.

    child_pruning  after every step the k largest |delta| stay and the others become zero (Fu et al. 2023,
                   as their code does; the Child-Tuning of Xu et al. 2021 is `fisher`, or a gradient
                   mask drawn anew at every step)
    diff_pruning   delta = z w with hard-concrete gates z (Louizos et al. 2018), which are open with
                   probability sigma(alpha) and cost lambda mean sigma(alpha); after a share
                   `burn_in` of the steps the gates of the k largest alpha stay open, the others
                   stay shut, and w is trained further (Guo et al. 2021; the burn-in is that of Fu
                   et al.'s code)
    mixout         in training each entry of delta is zero with probability p, and the others are
                   multiplied by 1 / (1 - p) (Lee et al. 2020)

The weights are theta + delta. k is the budget (`selected.py`). The first two are stored as a sparse
change: (indices, delta).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from metaprime.nn import Adapter
from metaprime.peft.method import Method, MethodConfig
from metaprime.peft.settings import (
    BudgetConfig,
    ChildPruningConfig,
    DiffPruningConfig,
    MixoutConfig,
    RandomMaskConfig,
)
from metaprime.peft.sparse.selected import FU, check_budget, largest
from metaprime.peft.sparse.weights import CHANGE, Weights, change_weights, changeable, weights_of
from metaprime.rng import Noise
from metaprime.types import Params, Sites

STRETCH = (-1.5, 1.5)
"""Range of the hard-concrete gates before they are clamped to 0 and 1. It is symmetric, so a gate
is open with probability sigma(alpha)."""

SHUT, OPEN = -1e4, 1e4
"""Values of alpha at which a gate no longer depends on its noise."""


class Dense(nn.Module):
    """A change of all m weights: delta, (m,)."""

    supports_one_pass = True

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.weights = weights
        self.delta = nn.Parameter(torch.zeros(weights.total))

    def forward(self) -> torch.Tensor:
        """Returns the change, (m,) or (T, m)."""
        return self.delta

    def initial(self, generator: torch.Generator) -> Params:
        """Returns a delta of zero."""
        return {"delta": torch.zeros(self.delta.shape)}


class Mixed(Dense):
    """A change whose entries are dropped at random in training."""

    noise: Noise | None

    def __init__(self, weights: Weights, config: MixoutConfig) -> None:
        super().__init__(weights)
        self.share, self.noise = config.mixout, None

    def forward(self) -> torch.Tensor:
        """Returns the change, (m,); in training with dropped entries."""
        if self.noise is None:
            return self.delta
        drawn = self.noise.rand(self.delta.shape).to(self.delta.device)
        return self.delta * (drawn >= self.share) / (1 - self.share)


class Gated(Dense):
    """A change delta = z w with hard-concrete gates z; the parameter `delta` is w, (m,)."""

    noise: Noise | None

    def __init__(self, weights: Weights, config: DiffPruningConfig) -> None:
        super().__init__(weights)
        self.start = config.start
        self.alpha = nn.Parameter(torch.zeros(weights.total))
        self.noise = None

    def forward(self) -> torch.Tensor:
        """Returns the change z w, (m,); in training with gates drawn at random."""
        logits: torch.Tensor = self.alpha
        if self.noise is not None:
            drawn = self.noise.rand(self.alpha.shape).clamp(1e-6, 1 - 1e-6)
            logits = logits + drawn.logit().to(logits.device)
        low, high = STRETCH
        return self.delta * (low + (high - low) * logits.sigmoid()).clamp(0, 1)

    def initial(self, generator: torch.Generator) -> Params:
        """Returns a w of zero and alpha at `start`."""
        return {"delta": torch.zeros(self.delta.shape), "alpha": torch.full(self.alpha.shape, self.start)}


def _weights(sites: Sites, config: Any) -> Weights:
    """Returns the weights that may change; checks the budget if there is one."""
    weights = changeable(sites, config.embeddings)
    if isinstance(config, BudgetConfig):
        check_budget(weights, config)
    return weights


def inject_dense(sites: Sites, config: Any) -> Adapter:
    """Hooks a change whose largest entries stay: `inject_dense(sites, ChildPruningConfig())`.

    Raises:
        MetaprimeError: the budget is less than one weight.
    """
    weights = _weights(sites, config)
    return LargestChanges(config, _change(sites, weights, Dense(weights)))


def inject_mixed(sites: Sites, config: Any) -> Adapter:
    """Hooks a change with entries dropped in training: `inject_mixed(sites, MixoutConfig())`."""
    weights = _weights(sites, config)
    return Adapter(config, _change(sites, weights, Mixed(weights, config)))


def inject_gated(sites: Sites, config: Any) -> Adapter:
    """Hooks a change behind gates: `inject_gated(sites, DiffPruningConfig())`.

    Raises:
        MetaprimeError: the budget is less than one weight.
    """
    weights = _weights(sites, config)
    return GatedChanges(config, _change(sites, weights, Gated(weights, config)))


def _change(sites: Sites, weights: Weights, change: Dense) -> dict[str, nn.Module]:
    """Hooks a change into the encoder and returns it as the adapter's one module."""
    change_weights(sites, weights, change)
    return {CHANGE: change}


class LargestChanges(Adapter):
    """A dense change of which only the k largest entries stay after each step."""

    def project(self, values: Params, done: float) -> Params:
        """Returns the change with only the k largest entries kept: `adapter.project(phi, 0.5)`.

        Args:
            values: phi; the change is (m,) or (T, m).
            done: share of the steps that is done, in (0, 1].
        """
        delta = values[f"{CHANGE}.delta"]
        return {f"{CHANGE}.delta": delta * _at_largest(delta.abs(), self)}

    def collapse(self, values: Params) -> tuple[Any, Params]:
        """Returns config and values of a sparse change that holds the k largest entries.

        Args:
            values: phi; the change is (m,) or (T, m).
        """
        delta = values[f"{CHANGE}.delta"]
        return _as_sparse(self.config, largest(delta.abs(), weights_of(self), self.config), delta)


class GatedChanges(Adapter):
    """A dense change behind hard-concrete gates, which are fixed after the burn-in."""

    def project(self, values: Params, done: float) -> Params:
        """Returns alphas that fix gates after the burn-in: open at the k largest, shut elsewhere.

        Later calls fix the same gates, because their alphas stay the largest.

        Args:
            values: phi; alpha is (m,) or (T, m).
            done: share of the steps that is done, in (0, 1].

        Returns:
            Alphas, (m,) or (T, m); nothing before the burn-in is over.
        """
        if done < self.config.burn_in:
            return {}
        alpha = values[f"{CHANGE}.alpha"]
        kept = _at_largest(alpha, self)
        return {f"{CHANGE}.alpha": torch.where(kept, alpha.new_tensor(OPEN), alpha.new_tensor(SHUT))}

    def penalty(self, values: Params) -> torch.Tensor:
        """Returns the price of the open gates in nats, () or (T,): `price` if all are open.

        Args:
            values: phi; alpha is (m,) or (T, m).
        """
        open_share: torch.Tensor = values[f"{CHANGE}.alpha"].sigmoid().mean(-1)
        return float(self.config.price) * open_share

    def collapse(self, values: Params) -> tuple[Any, Params]:
        """Returns config and values of a sparse change that holds w at the k most open gates.

        Args:
            values: phi; alpha and w are (m,) or (T, m).
        """
        alpha, delta = values[f"{CHANGE}.alpha"], values[f"{CHANGE}.delta"]
        return _as_sparse(self.config, largest(alpha, weights_of(self), self.config), delta)


def _at_largest(scores: torch.Tensor, adapter: Adapter) -> torch.Tensor:
    """Returns True at the places of the k largest scores (..., m), False elsewhere."""
    places = largest(scores.detach(), weights_of(adapter), adapter.config)
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, places, True)


def _as_sparse(config: BudgetConfig, indices: torch.Tensor, delta: torch.Tensor) -> tuple[MethodConfig, Params]:
    """Returns config and values of a sparse change: entries of delta (..., m) at indices (..., k)."""
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
