"""Decides where each episode's phi and head start, and what becomes of them after a meta-step (`outer.adapter`, `outer.head`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from metaprime.config.sections import OuterConfig
from metaprime.meta import Learner, Outcome
from metaprime.models.task_model import TaskModel, assign, initial_values
from metaprime.rng import torch_stream
from metaprime.types import Params, State


def starting_rules(learner: Learner, outer: OuterConfig) -> dict[str, str]:
    """Returns the rule of `adapter` and of `head`. Without an inner loop there is no phi, and the head is simply trained."""
    if learner.adapts:
        return {"adapter": outer.adapter, "head": outer.head}
    return {group: "meta" if group in learner.outer else "keep" for group in ("adapter", "head")}


def draw_initial(model: TaskModel, seed: int, inner_lr: float) -> None:
    """Gives the model's own phi, head and inner rates their first values."""
    for group in ("adapter", "head"):
        assign(model, initial_values(model, group, torch_stream(seed, group)))
    assign(model, {f"rates.{name}": torch.full((), inner_lr) for name, _ in model.rates.named_parameters()})


@dataclass(frozen=True)
class Starts:
    """Starting values of a run's episodes.

    Attributes:
        model: draws and holds phi and head.
        state: the model's own values.
        rules: of `adapter` and of `head`: `reset`, `keep`, `carry_one`, `carry_mean` or `meta`.
        seed: of the run.
    """

    model: TaskModel
    state: State
    rules: Mapping[str, str]
    seed: int

    def values(self, step: int, indices: Sequence[int]) -> Params:
        """Returns phi, head and learned rates for some episodes of a meta-step.

        Args:
            step: meta-step, counted from 0.
            indices: numbers of T episodes within the meta-step.

        Returns:
            Values with a leading T: a fresh draw for each episode, or the state's own, expanded.
        """
        values: Params = {}
        for group, own in (("adapter", self.state.adapter), ("head", self.state.head)):
            if self.rules[group] == "reset":
                drawn = [
                    initial_values(self.model, group, torch_stream(self.seed, group, step, index)) for index in indices
                ]
                values |= {name: torch.stack([one[name] for one in drawn]).to(own[name].device) for name in own}
            else:
                values |= {name: value.detach().expand(len(indices), *value.shape) for name, value in own.items()}
        return values | {name: value.detach().expand(len(indices)) for name, value in self.state.rates.items()}

    def carry(self, outcome: Outcome) -> None:
        """Moves the model's phi and head to adapted values where their rule says so."""
        for group, rule in self.rules.items():
            if rule in ("carry_one", "carry_mean"):
                adapted = outcome.last_fast if rule == "carry_one" else outcome.mean_fast
                assign(self.model, {n: value for n, value in adapted.items() if n.startswith(f"{group}.")})
