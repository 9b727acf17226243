"""Defines a meta-step of each peer over the plain model, as the peer's documentation shows.

Each returns the mean query loss, and its first-order gradient in the encoder's weights at the
adapted phi and head.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from problem import INNER_LR, Plain, Problem, is_fast
from torch.func import functional_call

from metaprime.interop.learn2learn import _functions
from metaprime.types import Batch, Params

Step = Callable[[], tuple[torch.Tensor, Params]]
"""Returns the mean query loss (), and its gradient by the plain model's names."""


def episode(tensors: Batch, place: int) -> Batch:
    """Returns one episode (B, L) of stacked batches (T, B, L)."""
    return {name: value[place] for name, value in tensors.items()}


class Sum:
    """Sums of gradients and losses over T episodes."""

    def __init__(self, problem: Problem) -> None:
        self.episodes = problem.shape.episodes
        self.gradients: Params = {}
        self.losses: list[torch.Tensor] = []

    def add(self, loss: torch.Tensor, leaves: dict[str, Any]) -> None:
        """Adds an episode's query loss (), and its gradient in the leaves, divided by T."""
        self.losses.append(loss.detach())
        found = torch.autograd.grad(loss / self.episodes, list(leaves.values()))
        for name, gradient in zip(leaves, found, strict=True):
            self.gradients[name] = self.gradients[name] + gradient if name in self.gradients else gradient

    def result(self) -> tuple[torch.Tensor, Params]:
        """Returns the mean loss () and the summed gradients."""
        return torch.stack(self.losses).mean(), self.gradients


def deepcopy_loop(problem: Problem) -> Step:
    """Adapts a copy of the model for each episode by torch's own SGD."""

    def step() -> tuple[torch.Tensor, Params]:
        total = Sum(problem)
        for place in range(problem.shape.episodes):
            model = copy.deepcopy(problem.plain)
            optimizer = torch.optim.SGD(model.fast.values(), lr=INNER_LR)
            for parameter in model.slow.values():
                parameter.requires_grad_(False)
            for tensors in problem.batch.support:
                optimizer.zero_grad()
                model(episode(tensors, place)).backward()
                optimizer.step()
            for parameter in model.slow.values():
                parameter.requires_grad_(True)
            total.add(model(episode(problem.batch.query, place)), model.slow)
        return total.result()

    return step


def learn2learn_idiom(problem: Problem) -> Step:
    """Adapts phi and head by learn2learn's `clone_module` and `maml_update`."""
    clone_module, maml_update = _functions()

    def step() -> tuple[torch.Tensor, Params]:
        total = Sum(problem)
        for place in range(problem.shape.episodes):
            learner = clone_module(problem.plain)
            for tensors in problem.batch.support:
                names = [name for name, _ in learner.named_parameters()]
                fast = {name: value for name, value in learner.named_parameters() if is_fast(name)}
                loss = learner(episode(tensors, place))
                found = dict(zip(fast, torch.autograd.grad(loss, list(fast.values())), strict=True))
                learner = maml_update(learner, INNER_LR, [found.get(name) for name in names])
            query = learner(episode(problem.batch.query, place))
            total.add(query, problem.plain.slow)
        return total.result()

    return step


def learn2learn_class(problem: Problem) -> Step:
    """Adapts everything by learn2learn's `MAML(model, lr, first_order=True)`, the encoder too."""
    maml = _functions()[1].__globals__["MAML"](problem.plain, lr=INNER_LR, first_order=True)

    def step() -> tuple[torch.Tensor, Params]:
        total = Sum(problem)
        for place in range(problem.shape.episodes):
            learner = maml.clone()
            for tensors in problem.batch.support:
                learner.adapt(learner(episode(tensors, place)))
            total.add(learner(episode(problem.batch.query, place)), problem.plain.slow)
        return total.result()

    return step


def torchopt_functional(problem: Problem) -> Step:
    """Adapts phi and head by `torchopt.FuncOptimizer`, and passes them to `functional_call`."""
    import torchopt

    model, slow = problem.plain, problem.plain.slow

    def step() -> tuple[torch.Tensor, Params]:
        total = Sum(problem)
        for place in range(problem.shape.episodes):
            fast: Any = {name: value.detach().requires_grad_() for name, value in model.fast.items()}
            still = {name: value.detach() for name, value in slow.items()}
            optimizer = torchopt.FuncOptimizer(torchopt.sgd(lr=INNER_LR))
            for tensors in problem.batch.support:
                loss = functional_call(model, {**still, **fast}, (episode(tensors, place),))
                fast = optimizer.step(loss, fast)
                fast = {name: value.detach().requires_grad_() for name, value in fast.items()}
            total.add(functional_call(model, {**slow, **fast}, (episode(problem.batch.query, place),)), slow)
        return total.result()

    return step


def higher_loop(problem: Problem) -> Step:
    """Adapts phi and head within `higher.innerloop_ctx`, first order."""
    import higher

    model = copy.deepcopy(problem.plain)

    def step() -> tuple[torch.Tensor, Params]:
        total = Sum(problem)
        optimizer = torch.optim.SGD(model.fast.values(), lr=INNER_LR)
        for place in range(problem.shape.episodes):
            with higher.innerloop_ctx(model, optimizer, track_higher_grads=False, copy_initial_weights=False) as (
                inner,
                moved,
            ):
                for tensors in problem.batch.support:
                    moved.step(inner(episode(tensors, place)))
                names = [name for name, _ in model.named_parameters()]
                slow = {n: p for n, p in zip(names, inner.parameters(), strict=True) if not is_fast(n)}
                total.add(inner(episode(problem.batch.query, place)), slow)
        return total.result()

    return step


def floor(problem: Problem) -> Step:
    """Does the bare work, with T episodes in one batch and one shared phi and head.

    That is n passes with gradients of phi and head, then one with those of the encoder.
    """
    model = problem.plain

    def flat(tensors: Batch) -> Batch:
        return {name: value.flatten(0, 1) for name, value in tensors.items()}

    def step() -> tuple[torch.Tensor, Params]:
        support, query = [flat(tensors) for tensors in problem.batch.support], flat(problem.batch.query)
        _ask(model, fast=True)
        for tensors in support:
            torch.autograd.grad(model(tensors), list(model.fast.values()))
        _ask(model, fast=False)
        loss = model(query)
        slow = model.slow
        found = torch.autograd.grad(loss, list(slow.values()))
        _ask(model, None)
        return loss.detach(), dict(zip(slow, found, strict=True))

    return step


def _ask(model: Plain, fast: bool | None) -> None:
    """Requires gradients of phi and head if `fast`, of the encoder if not, of everything if None."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(fast is None or is_fast(name) == fast)


PEERS: dict[str, Callable[[Problem], Step]] = {
    "deepcopy loop": deepcopy_loop,
    "learn2learn, clone and update": learn2learn_idiom,
    "learn2learn, MAML class": learn2learn_class,
    "TorchOpt, functional": torchopt_functional,
    "higher": higher_loop,
}
