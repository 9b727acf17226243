"""A meta-gradient against what shares no code with it: differences of the loss, torch's optimizer on copies, learn2learn.

And two ways of carrying it out against each other: episodes together and one by one. All errors are relative.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from metaprime.interop import learn2learn
from metaprime.meta import InnerLoop, Learner, Outcome, Way
from metaprime.meta.execution import episode
from metaprime.meta.learner import GROUPS, in_groups
from metaprime.rng import torch_stream
from metaprime.types import Batch, Episodes, Loss, MetaprimeError, Params, trainable

SIZES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
"""Step sizes of the differences, along directions of norm 1. Large ones cross kinks of ReLU, small ones drown in rounding:
the best counts.
"""


@dataclass(frozen=True)
class Check:
    """One line. `value` None: not computed, `remark` says why. `tolerance` None: information without a verdict."""

    what: str
    value: float | None = None
    tolerance: float | None = None
    remark: str = ""

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not checked"
        if self.tolerance is None:
            return "information"
        return "passed" if self.value <= self.tolerance else "failed"  # not a number: failed


@dataclass(frozen=True)
class Bench:
    """A meta-step's ingredients in float64.

    Attributes:
        learner: whose step it is; `name` is its own.
        start: phi and head of T episodes; with learned rates, these.
        inner: `outer` holds every group there is a gradient for; `execution.way` is how episodes share a pass.
        differences: largest error of a slope against its central difference.
        equality: largest distance of a gradient from its like.
    """

    name: str
    learner: Learner
    loss: Loss
    backbone: Params
    start: Params
    batch: Episodes
    inner: InnerLoop
    differences: float
    equality: float

    @property
    def orders(self) -> dict[bool, str]:
        """The values of `InnerLoop.second_order` that make a difference, and what the gradient is called."""
        if not self.learner.adapts:
            return {False: "gradient"}
        return {False: "first order", True: "second order"} if self.learner.second_order else {False: "displacement"}

    def outcome(self, **changes: Any) -> Outcome:
        """The meta-step under changed settings; `way` is one of them."""
        way = changes.pop("way", self.inner.execution.way)
        inner = replace(self.inner.executed(way=way), **changes)
        return self.learner.step(self.loss, self.backbone, self.start, self.batch, inner)

    def gradients(self, **changes: Any) -> Params:
        """Its gradients."""
        return self.outcome(**changes).gradients

    def moved(self, direction: Params, size: float) -> Bench:
        """The same from `size` further along a direction."""

        def moved(values: Params) -> Params:
            return {
                name: value + size * direction[name] if name in direction else value for name, value in values.items()
            }

        return replace(self, backbone=moved(self.backbone), start=moved(self.start))


def against_differences(bench: Bench) -> Iterator[Check]:
    """The gradient's slope along one direction in each group, against the loss itself a little to both sides.

    Of an inner loop that is differentiated through, this is the second order. A displacement is no slope of the adapted
    loss; that of one plain step is the slope of the loss before it.
    """
    second_order = True in bench.orders
    what = bench.orders[second_order]
    if what == "displacement":
        what, plain = "one inner step", replace(bench.inner, optimizer="sgd", clip=None)
        bench = replace(bench, batch=replace(bench.batch, support=(), lengths=bench.batch.lengths[-1:]), inner=plain)
    gradients = bench.gradients(second_order=second_order)
    groups = _groups(gradients)
    for group in bench.inner.outer:
        own = groups[group]
        direction = _direction(own)
        slope = _dot(own, direction)
        errors = {size: _error(bench, direction, slope, size) for size in SIZES}
        best = min(errors, key=lambda size: _or_infinite(errors[size]))
        remark = f"step size {best:g}, the best of {len(SIZES)}" if slope else "this gradient is zero"
        yield Check(f"{what} = central differences: {group}", errors[best], bench.differences, remark)


def against_optimizer(bench: Bench) -> Check:
    """The first-order gradient, or the displacement, against copies that `torch.optim.SGD` trains."""
    what = f"{bench.orders[False]} = torch.optim.SGD on copies"
    if bench.inner.optimizer != "sgd":
        return Check(what, remark=f"inner.optimizer {bench.inner.optimizer}: torch's has epsilon outside the root")
    parts = [_by_optimizer(bench, place) for place in range(bench.batch.total)]
    expected = {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}
    return Check(what, _distance(bench.gradients(outer=GROUPS), expected), bench.equality)


def against_learn2learn(bench: Bench, second_order: bool) -> Check:
    """The same meta-step by the reference backend, if it is there and knows it."""
    what = f"{bench.orders[second_order]} = learn2learn"
    if not learn2learn.installed():
        return Check(what, remark="not installed (`make learn2learn` does it)")
    inner = replace(bench.inner, second_order=second_order, outer=GROUPS)
    try:
        step = learn2learn.step_of(bench.name)
        expected = step(bench.loss, bench.backbone, _without_rates(bench.start), bench.batch, inner).gradients
    except MetaprimeError as error:
        return Check(what, remark=str(error))
    found = bench.gradients(second_order=second_order, outer=GROUPS)
    return Check(what, _distance(found, expected), bench.equality)


def batched_against_looped(bench: Bench, second_order: bool, reason: str) -> Check:
    """Episodes adapted together against one by one; `reason`: why they cannot be together."""
    what = f"{bench.orders[second_order]}: batched = looped"
    if reason:
        return Check(what, remark=f"cannot be batched: {reason}")
    batched = bench.gradients(second_order=second_order)
    looped = bench.gradients(second_order=second_order, way=Way.LOOP)
    return Check(what, _distance(batched, looped), bench.equality)


def between_orders(bench: Bench) -> Iterator[Check]:
    """What first order leaves out, by group."""
    first, second = (_groups(bench.gradients(second_order=order)) for order in (False, True))
    for group in bench.inner.outer:
        norms = _norm(first[group]) * _norm(second[group])
        cosine = _dot(first[group], second[group]) / norms if norms else math.nan
        yield Check(f"first against second order, cosine: {group}", cosine)
        yield Check(f"first against second order, distance: {group}", _distance(first[group], second[group]))


def _error(bench: Bench, direction: Params, slope: float, size: float) -> float:
    """Of the slope, against the difference of the mean query losses after adaptation (nats) from both sides."""
    up, down = (  # outer: the loss alone is wanted, and the head's gradient costs nothing
        bench.moved(direction, step).outcome(outer=("head",)).query_loss.mean().item() for step in (size, -size)
    )
    return abs((up - down) / (2 * size) - slope) / abs(slope) if slope else math.nan


def _direction(gradients: Params) -> Params:
    """Norm 1: half along the gradient, so that there is a slope, half at random, so that nothing can hide beside it."""
    random = {
        name: torch.randn(value.shape, generator=torch_stream(0, "direction", name), dtype=value.dtype).to(value.device)
        for name, value in gradients.items()
    }
    steep, odd = _norm(gradients) or 1.0, _norm(random)
    mixed = {name: gradients[name] / steep + random[name] / odd for name in gradients}
    length = _norm(mixed)
    return {name: value / length for name, value in mixed.items()}


def _by_optimizer(bench: Bench, place: int) -> Params:
    """One episode's part, by ordinary training of a copy: the query loss's gradient where the copy ends.

    Of a displacement: how far it went per unit of inner step, the query being its last step.
    """
    inner, batch = bench.inner, bench.batch
    before = {**bench.backbone, **_without_rates(episode(bench.start, place))}
    own = {name: value.detach().clone().requires_grad_(value.is_floating_point()) for name, value in before.items()}
    moving = [own[name] for name in in_groups(list(trainable(own)), inner.moves)]
    optimizer = torch.optim.SGD(moving, lr=inner.lr)

    def backward(tensors: Batch) -> None:
        for value in own.values():
            value.grad = None
        backbone = {name: own[name] for name in bench.backbone}
        fast = {name: own[name] for name in own if name not in bench.backbone}
        torch.autograd.backward(bench.loss(backbone, fast, episode(tensors, place)))

    steps = (*batch.support, batch.query) if bench.learner.adapts_on_query else batch.support
    for tensors in steps:
        backward(tensors)
        if inner.clip:
            torch.nn.utils.clip_grad_norm_(moving, inner.clip)
        optimizer.step()
    if not bench.learner.adapts_on_query:
        backward(batch.query)
        return {name: value.grad / batch.total for name, value in own.items() if value.grad is not None}
    travelled = inner.lr * len(steps) * batch.total
    return {name: (before[name] - value.detach()) / travelled for name, value in trainable(own).items()}


def _distance(found: Params, expected: Params) -> float:
    """|found - expected| / |expected| of the group where it is largest; not a number where what is expected is zero."""
    assert found.keys() == expected.keys()
    worst = 0.0
    for own in _groups(expected).values():
        apart, size = _norm({name: found[name] - own[name] for name in own}), _norm(own)
        worst = max(worst, apart / size if size else math.nan, key=_or_infinite)
    return worst


def _groups(values: Params) -> dict[str, Params]:
    names = dict.fromkeys(name.split(".", 1)[0] for name in values)
    return {group: {name: values[name] for name in in_groups(list(values), (group,))} for group in names}


def _or_infinite(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _dot(one: Params, other: Params) -> float:
    return float(sum((one[name] * other[name]).sum().item() for name in one))


def _norm(values: Params) -> float:
    return math.sqrt(_dot(values, values))


def _without_rates(values: Params) -> Params:
    """Learned rates start at `inner.lr`, which is what whoever knows no rates takes."""
    return {name: value for name, value in values.items() if not name.startswith("rates.")}
