"""What stays after pruning by sorting; gates by the formulas of their distribution; mixout by counting."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from dense_bert import hidden, randomised
from pydantic import ValidationError
from torch import nn
from toy_injection import injected

from metaprime.models.encoder import load_encoder
from metaprime.models.sites import resolve
from metaprime.peft import METHODS
from metaprime.peft.sparse import pruned
from metaprime.peft.sparse.weights import Weights
from metaprime.rng import Noise, torch_stream
from metaprime.types import MetaprimeError, Params

TOY = Weights(("backbone.a", "backbone.b"), (torch.Size((3, 4)), torch.Size((5,))))


def values_of(change: nn.Module, **values: torch.Tensor) -> Params:
    return {f"change.{name}": value for name, value in values.items()}


def test_child_pruning_keeps_the_largest_changes(toy_bert: Path) -> None:
    _, modules, _ = injected(toy_bert, method="child_pruning", budget=0.1)
    weights = modules["change"].weights
    delta = torch.randn(2, weights.total, generator=torch_stream(0, "delta"))  # of two episodes
    kept = modules.project(values_of(modules, delta=delta), 0.1)["change.delta"]
    for one, before in zip(kept, delta, strict=True):
        for part, whole in zip(one.split(weights.sizes), before.split(weights.sizes), strict=True):
            count = int(0.1 * len(whole))
            limit = whole.abs().sort(descending=True).values[count - 1] if count else math.inf
            assert torch.equal(part, torch.where(whole.abs() >= limit, whole, 0.0))
    stored, values = modules.collapse(values_of(modules, delta=kept[0]))
    whole = torch.zeros(weights.total).scatter(0, values["change.indices"], values["change.delta"])
    assert torch.equal(whole, kept[0])
    assert stored == METHODS["random_mask"].config(budget=0.1)


def test_gates_open_as_often_as_the_hard_concrete_distribution_says(toy_bert: Path) -> None:
    _, modules, _ = injected(toy_bert, method="diff_pruning", budget=0.1)
    change = modules["change"]
    low, high = -1.5, 1.5
    for alpha in (-1.0, 0.0, 2.0):
        change.delta.data.fill_(1.0)
        change.alpha.data.fill_(alpha)
        change.noise = Noise(torch.tensor([3]))
        z = change().detach()
        change.noise = None
        for found, expected in (
            ((z == 0).double().mean(), 1 / (1 + math.exp(alpha - math.log(-low / high)))),
            ((z == 1).double().mean(), 1 / (1 + math.exp(-alpha + math.log((1 - low) / (high - 1))))),
        ):
            spread = 4 * math.sqrt(expected * (1 - expected) / len(z))
            assert abs(found.item() - expected) < spread
        exact = min(1.0, max(0.0, low + (high - low) / (1 + math.exp(-alpha))))
        torch.testing.assert_close(change().detach(), torch.full_like(z, exact))


def test_gates_are_fixed_after_the_burn_in_and_stay_so(toy_bert: Path) -> None:
    encoder, modules, _ = injected(toy_bert, method="diff_pruning", budget=0.1, burn_in=0.5)
    change = modules["change"]
    draw = torch_stream(0, "alpha")
    alpha, delta = (torch.randn(change.weights.total, generator=draw) for _ in range(2))
    assert modules.project(values_of(modules, alpha=alpha), 0.49) == {}
    fixed = modules.project(values_of(modules, alpha=alpha), 0.5)["change.alpha"]
    again = modules.project(values_of(modules, alpha=fixed + torch.randn(len(fixed))), 0.6)
    assert torch.equal(again["change.alpha"], fixed)
    change.alpha.data, change.delta.data = fixed, 0.1 * delta
    for noise in (None, Noise(torch.tensor([3]))):
        change.noise = noise
        open_gates = change().nonzero().flatten()
        assert len(open_gates) == sum(int(0.1 * n) for n in change.weights.sizes)
        assert torch.equal(change()[open_gates], change.delta[open_gates])
    change.noise = None
    stored, values = modules.collapse({f"change.{k}": v.data for k, v in change.named_parameters()})
    plain = load_encoder(encoder.name)
    modules = METHODS[stored.method].inject(resolve(plain.module, plain.layout), stored)
    modules["change"].delta.data = values["change.delta"]
    modules["change"].indices.copy_(values["change.indices"])
    assert torch.equal(hidden(plain.module), hidden(encoder.module))


def test_open_gates_have_their_price() -> None:
    config = METHODS["diff_pruning"].config(price=3.0)
    alpha = torch.tensor([[0.0, 0.0], [math.log(3), -math.log(3)]])
    torch.testing.assert_close(pruned.GatedChanges(config).penalty({"change.alpha": alpha}), torch.tensor([1.5, 1.5]))


def test_mixout_leaves_out_a_share_and_keeps_the_mean(toy_bert: Path) -> None:
    _, modules, _ = injected(toy_bert, method="mixout", mixout=0.75)
    change = modules["change"]
    change.delta.data.fill_(2.0)
    assert torch.equal(change().detach(), change.delta.data)
    change.noise = Noise(torch.tensor([3]))
    mixed = change().detach()
    assert set(mixed.unique().tolist()) == {0.0, 8.0}
    assert abs((mixed == 0).double().mean().item() - 0.75) < 4 * math.sqrt(0.75 * 0.25 / len(mixed))


def gated(budget: float, scope: str = "per_tensor") -> pruned.GatedChanges:
    config = pruned.DiffPruningConfig(budget=budget, scope=scope, burn_in=0.5)
    return pruned.GatedChanges(config, {"change": pruned.Gated(TOY, config)})


@pytest.mark.parametrize("scope", ["per_tensor", "global"])
def test_each_episode_fixes_its_own_gates(scope: str) -> None:
    alpha = torch.randn(2, TOY.total, generator=torch_stream(0, "alpha"))
    fixed = gated(0.4, scope).project({"change.alpha": alpha}, 0.5)["change.alpha"]
    for row, before in zip(fixed, alpha, strict=True):
        if scope == "global":
            expected = before.argsort(descending=True)[:6].tolist()
        else:
            expected = [*before[:12].argsort(descending=True)[:4].tolist()]
            expected += [12 + place for place in before[12:].argsort(descending=True)[:2].tolist()]
        assert (row == pruned.OPEN).nonzero().flatten().tolist() == sorted(expected)
        assert set(row.tolist()) == {pruned.OPEN, pruned.SHUT}


def test_the_slope_of_the_price_is_that_of_the_logistic_function() -> None:
    adapter = pruned.GatedChanges(pruned.DiffPruningConfig(price=2.0))
    alpha = torch.tensor([-1.0, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    adapter.penalty({"change.alpha": alpha}).backward()
    open_with = 1 / (1 + (-alpha.detach()).exp())
    torch.testing.assert_close(alpha.grad, 2.0 * open_with * (1 - open_with) / 3, rtol=0, atol=1e-12)


def test_what_is_behind_the_most_open_gates_is_stored() -> None:
    alpha = torch.arange(TOY.total, dtype=torch.float32)
    stored, values = gated(0.4).collapse({"change.alpha": alpha, "change.delta": 10 * alpha})
    assert values["change.indices"].tolist() == [8, 9, 10, 11, 15, 16]
    assert values["change.delta"].tolist() == [80.0, 90.0, 100.0, 110.0, 150.0, 160.0]
    assert stored == METHODS["random_mask"].config(budget=0.4)


def test_settings_of_the_budget_are_stored_with_the_change() -> None:
    config = pruned.ChildPruningConfig(budget=0.4, scope="global", embeddings=True)
    adapter = pruned.LargestChanges(config, {"change": pruned.Dense(TOY)})
    delta = torch.linspace(-1.0, 0.5, TOY.total)
    stored, values = adapter.collapse({"change.delta": delta})
    assert stored == METHODS["random_mask"].config(budget=0.4, scope="global", embeddings=True)
    assert values["change.indices"].tolist() == list(range(6))


@pytest.mark.parametrize("method", ["child_pruning", "diff_pruning"])
def test_a_budget_of_less_than_one_weight_is_refused(toy_bert: Path, method: str) -> None:
    with pytest.raises(MetaprimeError, match=r"peft\.budget 1e-05 with scope per_tensor is less than one .* raise it"):
        injected(toy_bert, method=method, budget=1e-5)


@pytest.mark.parametrize("method", ["child_pruning", "diff_pruning", "mixout"])
def test_the_encoder_is_unchanged_at_the_start(toy_bert: Path, method: str) -> None:
    encoder, modules, _ = injected(toy_bert, method=method)
    change = modules["change"]
    for name, value in change.initial(torch_stream(0, "phi")).items():
        getattr(change, name).data = value
    plain = load_encoder(str(toy_bert))
    assert torch.equal(hidden(encoder.module), hidden(plain.module))
    randomised(modules)
    assert not torch.allclose(hidden(encoder.module), hidden(plain.module))


def test_gates_start_between_open_and_shut() -> None:
    change = pruned.Gated(TOY, pruned.DiffPruningConfig(start=0.8))
    drawn = change.initial(torch_stream(0, "phi"))
    assert torch.equal(drawn["alpha"], torch.full((TOY.total,), 0.8))
    assert not drawn["delta"].any()
    low, high = pruned.STRETCH
    assert 0 < low + (high - low) / (1 + math.exp(-0.8)) < 1


@pytest.mark.parametrize("make", [pruned.MixoutConfig, pruned.DiffPruningConfig])
def test_noise_is_of_its_key(make: type[pruned.MixoutConfig | pruned.DiffPruningConfig]) -> None:
    config = make()
    change = pruned.Mixed(TOY, config) if isinstance(config, pruned.MixoutConfig) else pruned.Gated(TOY, config)
    change.delta.data.fill_(1.0)
    found = []
    for key in (3, 3, 4):
        change.noise = Noise(torch.tensor([key]))
        found.append(change().detach())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (pruned.MixoutConfig, {"mixout": 1.0}),
        (pruned.DiffPruningConfig, {"price": -0.1}),
        (pruned.DiffPruningConfig, {"burn_in": 0.0}),
        (pruned.ChildPruningConfig, {"budget": 1.5}),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(make: type, settings: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(settings))):
        make(**settings)
