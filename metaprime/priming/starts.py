"""Chooses the phi and head that each episode starts from, by `outer.adapter` and `outer.head`."""

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
    """Returns `adapter` and `head` -> rule; without an inner loop, outer groups have `meta`."""
    if learner.adapts:
        return {"adapter": outer.adapter, "head": outer.head}
    return {group: "meta" if group in learner.outer else "keep" for group in ("adapter", "head")}


def draw_initial(model: TaskModel, seed: int, inner_lr: float) -> None:
    """Initializes the model's phi and head by draws of `seed`, learned rates to `inner_lr`."""
    for group in ("adapter", "head"):
        assign(model, initial_values(model, group, torch_stream(seed, group)))
    assign(model, {f"rates.{name}": torch.full((), inner_lr) for name, _ in model.rates.named_parameters()})


@dataclass(frozen=True)
class Starts:
    """Starting values of the episodes of a run.

    Attributes:
        model: holds phi and head, and draws fresh ones.
        state: the model's own parameters by group.
        rules: `adapter` and `head` -> `reset`, `keep`, `carry_one`, `carry_mean` or `meta`.
        seed: seed of the run.
    """

    model: TaskModel
    state: State
    rules: Mapping[str, str]
    seed: int

    def values(self, step: int, indices: Sequence[int]) -> Params:
        """Returns starting values for some episodes of a meta-step: `starts.values(0, (0, 1))`.

        Args:
            step: meta-step, counted from 0.
            indices: numbers of T episodes within the meta-step.

        Returns:
            Phi, head and learned rates by full name, each (T, ...): a fresh draw for each episode
            (`reset`), or the model's own values, expanded.
        """
        values: Params = {}
        for group, current in (("adapter", self.state.adapter), ("head", self.state.head)):
            if self.rules[group] == "reset":
                drawn = [
                    initial_values(self.model, group, torch_stream(self.seed, group, step, index)) for index in indices
                ]
                values |= {
                    name: torch.stack([draw[name] for draw in drawn]).to(value.device)
                    for name, value in current.items()
                }
            else:
                values |= {name: value.detach().expand(len(indices), *value.shape) for name, value in current.items()}
        return values | {name: value.detach().expand(len(indices)) for name, value in self.state.rates.items()}

    def carry(self, outcome: Outcome) -> None:
        """Assigns phi' and head' to the model where the rule is `carry_one` or `carry_mean`."""
        for group, rule in self.rules.items():
            if rule in ("carry_one", "carry_mean"):
                adapted = outcome.last_fast if rule == "carry_one" else outcome.mean_fast
                assign(self.model, {n: value for n, value in adapted.items() if n.startswith(f"{group}.")})
