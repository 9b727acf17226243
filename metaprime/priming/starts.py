"""Where each episode's phi and head start, and what becomes of them after a meta-step (`outer.adapter`, `outer.head`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from metaprime.config.sections import Config
from metaprime.meta import LEARNERS, Outcome
from metaprime.models.task_model import TaskModel, assign, initial_values
from metaprime.rng import torch_stream
from metaprime.types import Params, State


def rules_of(config: Config) -> dict[str, str]:
    """The rule of `adapter` and of `head`. Without an inner loop there is no phi, and the head is simply trained."""
    learner = LEARNERS[config.learner.name]
    if learner.adapts:
        return {"adapter": config.outer.adapter, "head": config.outer.head}
    return {group: "meta" if group in learner.outer else "keep" for group in ("adapter", "head")}


def draw_initial(model: TaskModel, seed: int, inner_lr: float) -> None:
    """Gives the model's own phi, head and inner rates their first values."""
    for group in ("adapter", "head"):
        assign(model, initial_values(model, group, torch_stream(seed, group)))
    assign(model, {f"rates.{name}": torch.full((), inner_lr) for name, _ in model.rates.named_parameters()})


def starting_values(
    model: TaskModel, state: State, rules: dict[str, str], seed: int, step: int, indices: Sequence[int]
) -> Params:
    """Phi and head for each of the episodes, stacked on a leading dimension: a fresh draw each, or the state's."""
    values: Params = {}
    for group, own in (("adapter", state.adapter), ("head", state.head)):
        if rules[group] == "reset":
            drawn = [initial_values(model, group, torch_stream(seed, group, step, index)) for index in indices]
            values |= {name: torch.stack([one[name] for one in drawn]).to(own[name].device) for name in own}
        else:
            values |= {name: value.detach().expand(len(indices), *value.shape) for name, value in own.items()}
    return values | {name: value.detach().expand(len(indices)) for name, value in state.rates.items()}


def carry(model: TaskModel, outcome: Outcome, rules: dict[str, str]) -> None:
    """Moves the model's phi and head to adapted values where their rule says so."""
    for group, rule in rules.items():
        if rule in ("carry_one", "carry_mean"):
            adapted = outcome.last_fast if rule == "carry_one" else outcome.mean_fast
            assign(model, {name: value for name, value in adapted.items() if name.startswith(f"{group}.")})
