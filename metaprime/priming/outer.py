"""Takes the outer step: moves theta, and whatever else is meta-learned, by AdamW.

theta <- theta - beta * AdamW(dL_query(theta, phi') / dtheta)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from metaprime.config.sections import OuterConfig
from metaprime.optim import ScheduledAdamW, adamw
from metaprime.priming.guards import REMEDY, Diverged, not_finite
from metaprime.types import Params, State, trainable


@dataclass(frozen=True)
class OuterLoop:
    """The optimizer over the parameters that learn.

    Attributes:
        optimizer: AdamW with its schedule.
        learning: the model's own parameters that it moves, by name.
    """

    optimizer: ScheduledAdamW
    learning: Params

    @property
    def adamw(self) -> torch.optim.AdamW:
        """torch's optimizer, whose state checkpoints hold."""
        return self.optimizer.optimizer

    @property
    def names(self) -> dict[int, str]:
        """Parameter names by `id`, for checkpoints."""
        return {id(parameter): name for name, parameter in self.learning.items()}

    @property
    def rate(self) -> float:
        """The rate of the last step, that of the first group."""
        return float(self.adamw.param_groups[0]["lr"])

    def step(self, step: int, gradients: Params, languages: Sequence[str], halvings: int) -> float:
        """Moves the parameters in place.

        Args:
            step: meta-step, counted from 0.
            gradients: of every parameter that learns.
            languages: of the meta-batch, for the message.
            halvings: times that a rollback has halved the rates.

        Returns:
            The norm of the gradient before clipping.

        Raises:
            Diverged: it is not finite.
        """
        norm = torch.nn.utils.get_total_norm([gradients[name] for name in self.learning])
        # Before clipping spreads it over all parameters.
        if not torch.isfinite(norm):
            where = not_finite({name: gradients[name] for name in self.learning}) or "none alone, only their sum"
            raise Diverged(
                f"step {step + 1}: the outer gradient's norm is {norm.item()}; {REMEDY}; not finite: {where}; languages of "
                f"this meta-batch: {', '.join(sorted(set(languages)))}"
            )
        for name, parameter in self.learning.items():
            parameter.grad = gradients[name]
        self.optimizer.step(step, norm, slowdown=2**halvings)
        return norm.item()


def outer_loop(state: State, config: OuterConfig, groups: Sequence[str]) -> OuterLoop:
    """Returns AdamW over the named groups of the state, each at its own rate; weight decay spares biases and norms."""
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
                peak = own_rates.get(group) or config.lr
                parameter_groups.append({"params": chosen, "peak": peak, "weight_decay": decay})
    optimizer = adamw(parameter_groups, epsilon=config.epsilon)
    return OuterLoop(ScheduledAdamW(optimizer, config.steps, config.warmup, config.clip), learning)
