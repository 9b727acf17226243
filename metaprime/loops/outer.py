"""The outer step: sum the processes' parts, check them, move theta (and what is meta-learned) by AdamW."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import Accelerator

from metaprime.config import OuterConfig
from metaprime.loops.schedule import warmup_decay
from metaprime.meta import Outcome
from metaprime.types import MetaprimeError, Params, State


@dataclass(frozen=True)
class Outer:
    """The optimizer over the parameters that learn, by name."""

    optimizer: torch.optim.AdamW
    learning: Params
    config: OuterConfig

    @property
    def names(self) -> dict[int, str]:
        """Parameter names by `id`, for checkpoints."""
        return {id(parameter): name for name, parameter in self.learning.items()}

    def step(self, step: int, gradients: Params) -> float:
        """Moves the parameters in place; returns the gradient norm before clipping.

        Raises:
            MetaprimeError: it is not finite.
        """
        for name, parameter in self.learning.items():
            parameter.grad = gradients[name]
        limit = self.config.clip or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.learning.values(), limit).item()
        if norm != norm or norm == float("inf"):
            raise MetaprimeError(f"step {step + 1}: the outer gradient's norm is {norm}; {REMEDY}")
        factor = warmup_decay(step, self.config.steps, self.config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm


REMEDY = "lower outer.lr or inner.lr, or set outer.clip; the last checkpoint is kept"


def make_outer(state: State, config: OuterConfig, groups: tuple[str, ...]) -> Outer:
    """AdamW over the named groups of the state, each at its own rate; weight decay spares biases and norms."""
    rates = {"backbone": config.lr, "adapter": config.adapter_lr or config.lr, "head": config.head_lr or config.lr}
    learning: Params = {}
    parameter_groups = []
    for group in groups:
        own: Params = getattr(state, group)
        learning |= own
        for matrix in (True, False):
            chosen = [value for value in own.values() if (value.dim() > 1) == matrix]
            decay = config.weight_decay if matrix else 0.0
            if chosen:
                parameter_groups.append({"params": chosen, "peak": rates[group], "weight_decay": decay})
    return Outer(torch.optim.AdamW(parameter_groups, lr=config.lr, eps=config.epsilon), learning, config)


def summed(outcome: Outcome, accelerator: Accelerator) -> Outcome:
    """The whole meta-batch's outcome out of each process's part. One flat vector: one message, not hundreds."""
    if accelerator.num_processes == 1:
        return outcome
    tensors = [*outcome.gradients.values(), *outcome.mean_fast.values(), *outcome.last_fast.values()]
    tensors += [outcome.query_loss, outcome.support_loss]
    flat: torch.Tensor = accelerator.reduce(torch.cat([tensor.reshape(-1) for tensor in tensors]), reduction="sum")
    pieces = flat.split([tensor.numel() for tensor in tensors])
    whole = iter([piece.view(tensor.shape) for piece, tensor in zip(pieces, tensors, strict=True)])
    return Outcome(  # taken up in the order they were put in
        gradients={name: next(whole) for name in outcome.gradients},
        mean_fast={name: next(whole) for name in outcome.mean_fast},
        last_fast={name: next(whole) for name in outcome.last_fast},
        query_loss=next(whole),
        support_loss=next(whole),
    )


def check_finite(outcome: Outcome, step: int, languages: list[str]) -> None:
    """Refuses a meta-batch whose losses are not finite.

    Raises:
        MetaprimeError: naming step and languages.
    """
    bad_T = ~(torch.isfinite(outcome.query_loss) & torch.isfinite(outcome.support_loss).all(-1))
    if bad_T.any():
        names = sorted({language for language, bad in zip(languages, bad_T.tolist(), strict=True) if bad})
        raise MetaprimeError(f"step {step + 1}: the loss of language {', '.join(names)} is not finite; {REMEDY}")
