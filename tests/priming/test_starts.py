"""What becomes of phi and head after a meta-step: the five rules, for each of the two."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from toy_config import Parts

from metaprime.config.sections import OuterConfig, Rule
from metaprime.meta import LEARNERS, Outcome
from metaprime.priming.starts import Starts, draw_initial, starting_rules

RULES: tuple[Rule, ...] = ("reset", "keep", "carry_one", "carry_mean", "meta")


def clones(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in values.items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def adapted(parts: Parts) -> Outcome:
    """An outcome whose last values are all 2 and whose mean values are all 3."""
    names = {**parts.state.adapter, **parts.state.head}
    filled = [{name: torch.full_like(value, fill) for name, value in names.items()} for fill in (3.0, 2.0)]
    return Outcome({}, filled[0], filled[1], torch.zeros(2), torch.zeros(2, 2))


def test_rules_are_the_configs_where_there_is_an_inner_loop() -> None:
    for adapter, head in product(RULES, RULES):
        outer = OuterConfig(adapter=adapter, head=head)
        assert starting_rules(LEARNERS["peft_maml"], outer) == {"adapter": adapter, "head": head}
        assert starting_rules(LEARNERS["multitask"], outer) == {"adapter": "keep", "head": "meta"}


@pytest.mark.parametrize("rule", RULES)
def test_each_episode_starts_from_the_state_or_from_its_own_draw(parts: Parts, rule: str) -> None:
    draw_initial(parts.model, 5, 0.1)
    for group, own in (("adapter", parts.state.adapter), ("head", parts.state.head)):
        rules = {"adapter": "keep", "head": "keep", group: rule}
        start = Starts(parts.model, parts.state, rules, seed=5).values(3, (0, 2))
        for name, value in own.items():
            assert start[name].shape == (2, *value.shape)
            assert not start[name].requires_grad
        from_state = [equal({n: start[n][place] for n in own}, clones(own)) for place in (0, 1)]
        assert from_state == ([False, False] if rule == "reset" else [True, True])


def test_a_reset_is_a_function_of_seed_step_and_episode(parts: Parts) -> None:
    rules = {"adapter": "reset", "head": "reset"}

    def start(seed: int, step: int, *indices: int) -> dict[str, torch.Tensor]:
        return Starts(parts.model, parts.state, rules, seed).values(step, indices)

    names = [name for name in start(0, 0, 0) if name.endswith(("down_weight", "head.weight"))]
    assert len(names) == 3
    whole = start(0, 1, 0, 1, 2, 3)
    assert all(torch.equal(start(0, 1, 1, 3)[name], whole[name][[1, 3]]) for name in names)
    for name in names:
        others = [start(0, 1, 1)[name], start(0, 2, 1)[name], start(1, 1, 1)[name]]
        assert not any(torch.equal(whole[name][:1], other) for other in others)


@pytest.mark.parametrize(("adapter", "head"), [*product(RULES, RULES)])
def test_only_carried_groups_move_to_adapted_values(parts: Parts, adapter: str, head: str) -> None:
    before = {"adapter": clones(parts.state.adapter), "head": clones(parts.state.head)}
    backbone = clones(parts.state.backbone)
    Starts(parts.model, parts.state, {"adapter": adapter, "head": head}, seed=0).carry(adapted(parts))
    fill = {"carry_one": 2.0, "carry_mean": 3.0}
    for group, rule in (("adapter", adapter), ("head", head)):
        now = getattr(parts.state, group)
        if rule in fill:
            assert all(bool((value == fill[rule]).all()) for value in now.values())
        else:
            assert equal(clones(now), before[group])
    assert equal(clones(parts.state.backbone), backbone)


def test_the_first_values_are_a_function_of_the_seed(parts: Parts) -> None:
    drawn = []
    for seed in (1, 1, 2):
        draw_initial(parts.model, seed, 0.1)
        drawn.append(clones({**parts.state.adapter, **parts.state.head}))
    assert equal(drawn[0], drawn[1])
    assert not equal(drawn[0], drawn[2])


def test_nothing_is_carried_from_an_outcome_without_values(parts: Parts) -> None:
    before = clones({**parts.state.adapter, **parts.state.head})
    starts = Starts(parts.model, parts.state, {"adapter": "meta", "head": "reset"}, seed=0)
    starts.carry(replace(adapted(parts), mean_fast={}, last_fast={}))
    assert equal(clones({**parts.state.adapter, **parts.state.head}), before)
