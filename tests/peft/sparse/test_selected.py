"""Changes of weights against an encoder whose weights are changed by hand; budgets by counting; scores by brute force."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
import torch
from dense_bert import hidden, randomised
from torch import nn
from toy_injection import injected

from metaprime.models.encoder import Encoder, load_encoder
from metaprime.models.sites import LAYOUTS
from metaprime.peft import METHODS
from metaprime.peft.sparse import selected
from metaprime.peft.sparse.weights import Weights
from metaprime.rng import torch_stream
from metaprime.types import MetaprimeError, Params

SCORED = ("random_mask", "magnitude", "sam", "fisher")


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
