"""Changes of weights against an encoder whose weights are changed by hand; budgets by counting; scores by brute force."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from dense_bert import hidden, randomised
from torch import nn

from metaprime.models.encoder import Encoder, load_encoder
from metaprime.models.sites import LAYOUTS, resolve
from metaprime.peft import METHODS
from metaprime.peft.sparse import pruned, selected
from metaprime.peft.sparse.weights import Weights
from metaprime.rng import Noise, torch_stream
from metaprime.types import MetaprimeError, Params

SCORED = ("random_mask", "magnitude", "sam", "fisher")


def injected(folder: Path, **settings: Any) -> tuple[Encoder, nn.ModuleDict, Any]:
    encoder = load_encoder(str(folder))
    config = METHODS[settings.pop("method", "sam")].config(**settings)
    return encoder, METHODS[config.method].inject(resolve(encoder.module, encoder.layout), config), config


def moved_by_hand(encoder: Encoder, weights: Weights, change: torch.Tensor) -> torch.Tensor:
    """What the encoder gives with its own weights overwritten."""
    own = dict(encoder.module.named_parameters())
    for name, part in zip(weights.names, change.split(weights.sizes), strict=True):
        parameter = own[name.removeprefix("backbone.")]
        parameter.data += part.view(parameter.shape)
    return hidden(encoder.module)


@pytest.mark.parametrize("embeddings", [False, True])
@pytest.mark.parametrize("model_type", LAYOUTS)
def test_a_change_of_every_weight_is_the_encoder_with_other_weights(
    toy_encoder: Callable[[str], Path], model_type: str, embeddings: bool
) -> None:
    encoder, modules, _ = injected(toy_encoder(model_type), method="mixout", embeddings=embeddings)
    change = modules["change"]
    change.delta.data = 0.05 * torch.randn(change.delta.shape, generator=torch_stream(0, "delta"))
    expected = moved_by_hand(load_encoder(str(toy_encoder(model_type))), change.weights, change.delta.data)
    torch.testing.assert_close(hidden(encoder.module), expected, rtol=0, atol=1e-5)
    linear = {f"backbone.{p}.weight" for p, m in encoder.module.named_modules() if isinstance(m, nn.Linear)}
    assert {name for name in linear if ".pooler." not in name} <= set(change.weights.names)
    words = [name for name in change.weights.names if "embed" in name and "orm" not in name and "proj" not in name]
    assert len(words) == embeddings


@pytest.mark.parametrize("scope", ["per_tensor", "global"])
@pytest.mark.parametrize("method", SCORED)
def test_what_changes_lies_within_what_was_chosen_and_that_is_the_budget(
    toy_bert: Path, method: str, scope: str
) -> None:
    encoder, modules, _ = injected(toy_bert, method=method, budget=0.03, scope=scope)
    change = randomised(modules)["change"]
    drawn = change.initial(torch_stream(1, "phi"))
    change.indices.copy_(drawn["indices"])
    names = dict(encoder.module.named_parameters())
    sizes = [names[name.removeprefix("backbone.")].numel() for name in change.weights.names]
    wanted = sum(math.floor(0.03 * n) for n in sizes) if scope == "per_tensor" else math.floor(0.03 * sum(sizes))
    assert len(change.indices) == len(change.delta) == wanted == len(set(change.indices.tolist()))
    assert change.indices.min() >= 0
    assert change.indices.max() < sum(sizes)
    moved = change().detach().nonzero().flatten()
    assert set(moved.tolist()) == set(change.indices.tolist())
    expected = moved_by_hand(load_encoder(str(toy_bert)), change.weights, change().detach())
    torch.testing.assert_close(hidden(encoder.module), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scope", ["per_tensor", "global"])
@pytest.mark.parametrize("method", SCORED[1:])
def test_choices_are_those_of_brute_force(method: str, scope: str) -> None:
    weights = Weights(("backbone.a", "backbone.b"), (torch.Size((3, 4)), torch.Size((5,))))
    config = METHODS[method].config(budget=0.4, scope=scope)
    adapter = selected.SelectedWeights(config, {"change": selected.Sparse(weights, config)})
    draw = torch_stream(0, "toy")
    theta = {
        name: torch.randn(shape, generator=draw) for name, shape in zip(weights.names, weights.shapes, strict=True)
    }
    batches = [{name: torch.randn(v.shape, generator=draw) for name, v in theta.items()} for _ in range(3)]

    def gradients(names: Sequence[str]) -> Iterable[Params]:
        assert tuple(names) == weights.names
        return iter(batches)

    found = adapter.select(theta, gradients)["change.indices"].tolist()
    score = {
        "magnitude": lambda name, i: abs(theta[name].flatten()[i].item()),
        "sam": lambda name, i: abs(sum(g[name].flatten()[i].item() for g in batches)),
        "fisher": lambda name, i: sum(g[name].flatten()[i].item() ** 2 for g in batches),
    }[method]
    scored = [
        (score(name, i), first + i)
        for name, n, first in (("backbone.a", 12, 0), ("backbone.b", 5, 12))
        for i in range(n)
    ]
    if scope == "global":
        expected = sorted(scored, reverse=True)[:6]
    else:
        expected = sorted(scored[:12], reverse=True)[:4] + sorted(scored[12:], reverse=True)[:2]
    assert found == sorted(place for _, place in expected)


def test_a_budget_of_less_than_one_weight_is_refused(toy_bert: Path) -> None:
    with pytest.raises(MetaprimeError, match=r"peft\.budget 1e-05 with scope per_tensor is less than one .* raise it"):
        injected(toy_bert, method="sam", budget=1e-5)
    assert len(injected(toy_bert, method="sam", budget=1e-4, scope="global")[1]["change"].delta) == 1


def test_the_random_mask_is_drawn_with_phi_and_spread(toy_bert: Path) -> None:
    _, modules, _ = injected(toy_bert, method="random_mask", budget=0.1)
    change = modules["change"]
    one, same, other = (change.initial(torch_stream(seed, "phi"))["indices"] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    shared = len(set(one.tolist()) & set(other.tolist())) / len(one)
    assert 0.05 < shared < 0.15  # of two independent tenths, a tenth of each


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
