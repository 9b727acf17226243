"""The outer step: sum the processes' parts, move theta (and what is meta-learned) by AdamW."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from metaprime.config.sections import OuterConfig
from metaprime.meta import Outcome
from metaprime.optim import warmup_decay
from metaprime.priming.guards import REMEDY, Diverged, not_finite
from metaprime.types import Params, State, trainable


@dataclass
class Outer:
    """The optimizer over the parameters that learn, by name. `halvings`: times that a rollback has halved its rates."""

    optimizer: torch.optim.AdamW
    learning: Params
    config: OuterConfig
    halvings: int = 0

    @property
    def names(self) -> dict[int, str]:
        """Parameter names by `id`, for checkpoints."""
        return {id(parameter): name for name, parameter in self.learning.items()}

    def step(self, step: int, gradients: Params) -> float:
        """Moves the parameters in place; returns the gradient norm before clipping.

        Raises:
            Diverged: it is not finite.
        """
        norm_ = torch.nn.utils.get_total_norm([gradients[name] for name in self.learning])
        norm = norm_.item()
        if norm != norm or norm == float("inf"):  # told before clipping spreads it over all parameters
            where = not_finite({name: gradients[name] for name in self.learning}) or "none alone, only their sum"
            raise Diverged(f"step {step + 1}: the outer gradient's norm is {norm}; {REMEDY}; not finite: {where}")
        for name, parameter in self.learning.items():
            parameter.grad = gradients[name]
        torch.nn.utils.clip_grads_with_norm_(self.learning.values(), self.config.clip or float("inf"), norm_)
        factor = warmup_decay(step, self.config.steps, self.config.warmup) / 2**self.halvings
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm


def make_outer(state: State, config: OuterConfig, groups: tuple[str, ...]) -> Outer:
    """AdamW over the named groups of the state, each at its own rate; weight decay spares biases and norms."""
    own_rates = {"adapter": config.adapter_lr, "head": config.head_lr, "rates": config.rates_lr}
    learning: Params = {}
    parameter_groups = []
    for group in groups:
        own = trainable(getattr(state, group))
        learning |= own
        for matrix in (True, False):
            chosen = [value for value in own.values() if (value.dim() > 1) == matrix]
            decay = config.weight_decay if matrix else 0.0
            if chosen:
                parameter_groups.append(
                    {"params": chosen, "peak": own_rates.get(group) or config.lr, "weight_decay": decay}
                )
    return Outer(torch.optim.AdamW(parameter_groups, lr=config.lr, eps=config.epsilon, fused=True), learning, config)


def outer_step(outer: Outer, step: int, outcome: Outcome, languages: Sequence[str]) -> float:
    """The step; a gradient that is not finite is a sum over the meta-batch, whose languages are named."""
    try:
        return outer.step(step, outcome.gradients)
    except Diverged as error:
        raise Diverged(f"{error}; languages of this meta-batch: {', '.join(sorted(set(languages)))}") from None
