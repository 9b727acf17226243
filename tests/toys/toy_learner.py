"""A model of fourteen weights, its episodes, and inner loops of it by torch's own optimizers."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from inner_loops import changed
from torch import nn
from torch.func import functional_call

from metaprime.meta import LEARNERS, InnerLoop
from metaprime.meta.learner import GROUPS
from metaprime.types import IGNORE, Batch, Episodes, Loss, Params

T, STEPS, INNER_LR = 3, 3, 0.4


class Toy(nn.Module):
    """Two inputs, two hidden units, two classes; the adapter is a bottleneck of one beside the hidden units."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, 2, bias=False)
        self.adapter = nn.ModuleDict({"down": nn.Linear(2, 1, bias=False), "up": nn.Linear(1, 2, bias=False)})
        self.head = nn.Linear(2, 2)

    def forward(self, x_BL2: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.backbone(x_BL2))
        return self.head(hidden + self.adapter["up"](torch.tanh(self.adapter["down"](hidden))))


def measure(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def toy_model() -> Toy:
    """Returns the toy with weights drawn from a fixed seed."""
    model = Toy().double()
    for seed, parameter in enumerate(model.parameters()):
        parameter.data = draw(*parameter.shape, seed=seed)
    return model


def loss_of(toy: Toy) -> Loss:
    """Returns the toy's loss as a function of its parameters: `loss_of(toy)(theta, fast, batch)`."""

    def loss(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
        return measure(functional_call(toy, {**backbone, **fast}, (batch["x"],)), batch["labels"])

    return loss


def theta(toy: Toy) -> Params:
    return {name: p.detach() for name, p in toy.named_parameters() if name.startswith("backbone.")}


def starts(toy: Toy) -> Params:
    own = [(name, p) for name, p in toy.named_parameters() if not name.startswith("backbone.")]
    return {name: p.detach() + 0.3 * draw(T, *p.shape, seed=50 + place) for place, (name, p) in enumerate(own)}


def episodes() -> Episodes:
    """Support of five windows of three positions, a third of them without a label; query of four."""

    def batch(seed: int, windows: int) -> Batch:
        labels = (draw(T, windows, 3, seed=seed + 1) > 0).long()
        return {
            "x": draw(T, windows, 3, 2, seed=seed),
            "labels": labels.masked_fill(draw(T, windows, 3, seed=seed + 2) > 0.5, IGNORE),
        }

    return Episodes(
        ("qaa",) * T, tuple(range(T)), T, tuple(batch(100 + 10 * s, 5) for s in range(STEPS)), batch(900, 4)
    )


def one(values: Params, place: int) -> Params:
    return {name: value[place] for name, value in values.items()}


def settings_of(name: str, **changes: object) -> InnerLoop:
    outer = tuple(group for group in GROUPS if group in LEARNERS[name].outer or group != "backbone")
    return changed(InnerLoop(lr=INNER_LR, moves=LEARNERS[name].inner, outer=outer, carry=True), **changes)


def by_optimizer(
    toy: Toy,
    batch: Episodes,
    groups: tuple[str, ...],
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer] = lambda p: torch.optim.SGD(p, lr=INNER_LR),
    clip: float | None = None,
    query_too: bool = False,
) -> list[Toy]:
    """The reference: a copy of the model per episode whose chosen groups torch's own optimizer moves."""
    models = []
    for place in range(T):
        model = copy.deepcopy(toy)
        model.load_state_dict({**model.state_dict(), **one(starts(toy), place)})
        chosen = [p for name, p in model.named_parameters() if name.split(".")[0] in groups]
        optimizer = make(chosen)
        for support in (*batch.support, *((batch.query,) if query_too else ())):
            optimizer.zero_grad()
            tensors = one(support, place)
            measure(model(tensors["x"]), tensors["labels"]).backward()
            if clip:
                nn.utils.clip_grad_norm_(chosen, clip)
            optimizer.step()
        models.append(model)
    return models


def reference(toy: Toy, models: list[Toy], batch: Episodes) -> Params:
    """Gradient of the mean query loss at the adapted copies, by name."""
    for model in models:
        model.zero_grad()
    losses = [
        measure(model(batch.query["x"][place]), batch.query["labels"][place]) for place, model in enumerate(models)
    ]
    torch.stack(losses).mean().backward()
    parameters = [dict(model.named_parameters()) for model in models]
    return {name: torch.stack([own[name].grad for own in parameters]).sum(0) for name in parameters[0]}


def assert_close(found: Params, expected: Params, tolerance: float = 1e-10) -> None:
    assert set(found) == set(expected)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")
