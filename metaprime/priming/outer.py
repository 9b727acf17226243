"""Takes the outer step: AdamW moves theta and all other meta-learned parameters.

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
    """The optimizer of the meta-learned parameters.

    Attributes:
        optimizer: AdamW with its schedule.
        learning: the model's own parameters that it moves, by full name, in shapes such as (D, D).
    """

    optimizer: ScheduledAdamW
    learning: Params

    @property
    def adamw(self) -> torch.optim.AdamW:
        """The torch optimizer, whose state is saved in checkpoints."""
        return self.optimizer.optimizer

    @property
    def names(self) -> dict[int, str]:
        """Map from the `id` of each parameter to its name, for checkpoints."""
        return {id(parameter): name for name, parameter in self.learning.items()}

    @property
    def rate(self) -> float:
        """Learning rate of the first parameter group at the last step."""
        return float(self.adamw.param_groups[0]["lr"])

    def step(self, step: int, gradients: Params, languages: Sequence[str], halvings: int) -> float:
        """Moves the parameters in place by one step of AdamW.

        Args:
            step: meta-step, counted from 0.
            gradients: gradient of every moved parameter by full name, in shapes such as (D, D).
            languages: languages of the meta-batch, for the error message.
            halvings: times that a rollback has halved the rates.

        Returns:
            The norm of the whole gradient before clipping.

        Raises:
            Diverged: the norm is not finite.
        """
        norm = torch.nn.utils.get_total_norm([gradients[name] for name in self.learning])
        # Checked before clipping, which would spread NaN over all parameters.
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
    """Returns AdamW over groups of the state, each at its own rate; only matrices decay.

    Args:
        state: the model's own parameters by group.
        config: the section `outer`.
        groups: groups that receive an outer gradient, such as `("backbone", "head")`.
    """
    group_rates = {"adapter": config.adapter_lr, "head": config.head_lr, "rates": config.rates_lr}
    learning: Params = {}
    parameter_groups = []
    for group in groups:
        parameters = trainable(getattr(state, group))
        learning |= parameters
        for matrix in (True, False):
            chosen = [value for value in parameters.values() if (value.dim() > 1) == matrix]
            decay = config.weight_decay if matrix else 0.0
            if chosen:
                peak = group_rates.get(group) or config.rate
                parameter_groups.append({"params": chosen, "peak": peak, "weight_decay": decay})
    optimizer = adamw(parameter_groups, epsilon=config.epsilon)
    return OuterLoop(ScheduledAdamW(optimizer, config.steps, config.warmup, config.clip), learning)
