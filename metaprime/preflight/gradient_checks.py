"""Checks meta-gradients against references: central differences, torch.optim on copies, learn2learn.

Episodes adapted together are checked against episodes one by one. All errors are relative.
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
from metaprime.preflight.constants import Constants
from metaprime.rng import torch_stream
from metaprime.types import Batch, Episodes, Loss, MetaprimeError, Params, trainable

SIZES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
"""Step sizes of central differences, along directions of norm 1; the best one counts.

Large steps cross kinks of ReLU, small ones are lost in rounding.
"""


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        what: name of the check.
        value: relative error, or a measure; None: not computed.
        tolerance: largest passing value; None: no verdict, for information only.
        remark: details, such as the reason that nothing was computed.
    """

    what: str
    value: float | None = None
    tolerance: float | None = None
    remark: str = ""

    @property
    def verdict(self) -> str:
        """One of `passed`, `failed` (NaN, too), `not checked` and `information`."""
        if self.value is None:
            return "not checked"
        if self.tolerance is None:
            return "information"
        # This comparison is false for a value that is not a number.
        return "passed" if self.value <= self.tolerance else "failed"


@dataclass(frozen=True)
class Bench:
    """The inputs of one meta-step in float64.

    Attributes:
        name: name of the learner.
        learner: learner of the meta-step.
        loss: returns an episode's loss () in nats per unit.
        backbone: theta, by parameter name, with the shapes of the parameters.
        start: (T, ...) phi, head and learned rates of T episodes, by parameter name.
        batch: support and query batches (T, B, L).
        inner: the inner loop; `outer` lists all groups with a gradient.
        differences: largest relative error of a slope against central differences.
        equality: largest relative distance between two gradients that should be equal.
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
        """The learner's values of `InnerLoop.second_order`, each with a name for the gradient."""
        if not self.learner.adapts:
            return {False: "gradient"}
        return {False: "first order", True: "second order"} if self.learner.second_order else {False: "displacement"}

    def outcome(self, **changes: Any) -> Outcome:
        """Returns the outcome with changed fields of `inner` or another `way`: `bench.outcome(clip=None)`."""
        way = changes.pop("way", self.inner.execution.way)
        inner = replace(self.inner.executed(way=way), **changes)
        return self.learner.step(self.loss, self.backbone, self.start, self.batch, inner)

    def gradients(self, **changes: Any) -> Params:
        """Returns the gradients of `outcome`: `bench.gradients(second_order=True)`."""
        return self.outcome(**changes).gradients

    def moved(self, direction: Params, size: float) -> Bench:
        """Returns a copy whose backbone and start are moved along a direction.

        Args:
            direction: tensors by parameter name, with the shapes of the parameters; the T episodes of a
                start (T, ...) are moved alike.
            size: multiple of the direction.

        Example: `bench.moved(direction, 1e-4).outcome().query_loss`.
        """

        def shifted(values: Params) -> Params:
            """Returns values with those in `direction` moved."""
            return {
                name: value + size * direction[name] if name in direction else value for name, value in values.items()
            }

        return replace(self, backbone=shifted(self.backbone), start=shifted(self.start))


def against_differences(bench: Bench) -> Iterator[Check]:
    """Compares the gradient's slope along one direction in each group with central differences of the loss.

    For a learner of second order, the gradient is that of second order. A displacement is no slope of the
    loss after adaptation; the displacement of one plain SGD step is the slope of the loss before it. Parts
    that the forward pass detaches keep their values in the differences.

    Args:
        bench: inputs of the meta-step.

    Yields:
        One check for each group with a gradient.

    Example: `all(check.verdict == "passed" for check in against_differences(bench))`.
    """
    second_order = True in bench.orders
    what = bench.orders[second_order]
    if what == "displacement":
        what, plain = "one inner step", replace(bench.inner, optimizer="sgd", clip=None)
        bench = replace(bench, batch=replace(bench.batch, support=(), lengths=(), subwords=()), inner=plain)
    gradients = bench.gradients(second_order=second_order)
    groups = _groups(gradients)
    bench, held = _holding_constants(bench)
    for group in bench.inner.outer:
        gradient = groups[group]
        direction = _direction(gradient)
        slope = _dot(gradient, direction)
        errors = {size: _error(bench, direction, slope, size) for size in SIZES}
        best = min(errors, key=lambda size: _or_infinite(errors[size]))
        remark = f"step size {best:g}, the best of {len(SIZES)}{held}" if slope else "this gradient is zero"
        yield Check(f"{what} = central differences: {group}", errors[best], bench.differences, remark)


def _holding_constants(bench: Bench) -> tuple[Bench, str]:
    """Returns a bench whose loss keeps detached parts constant, and a remark; the same bench without such parts."""
    first: list[Params] = [
        {name: value[0].detach().requires_grad_(value.is_floating_point()) for name, value in values.items()}
        for values in (bench.start, bench.batch.query)
    ]
    probe = Constants(bench.loss)
    probe.loss(bench.backbone, *first)
    if not probe.present:
        return bench, ""
    # Recorded parts come back in the order of the passes, which are therefore one after another.
    constants = Constants(bench.loss)
    held = replace(bench, loss=constants.loss, inner=bench.inner.executed(way=Way.LOOP))
    held.outcome(outer=("head",))
    constants.hold()
    return held, "; parts that the forward pass detaches, as DoRA its norms, are held constant"


def against_optimizer(bench: Bench) -> Check:
    """Compares the first-order gradient, or the displacement, with copies that `torch.optim.SGD` trains.

    The copies end with the query loss. A learner whose own outer loss has another value is not compared.

    Args:
        bench: inputs of the meta-step.

    Example: `against_optimizer(bench).verdict`.
    """
    what = f"{bench.orders[False]} = torch.optim.SGD on copies"
    if bench.inner.optimizer != "sgd":
        return Check(what, remark=f"inner.optimizer {bench.inner.optimizer}: torch's has epsilon outside the root")
    parts, losses = zip(*(_by_optimizer(bench, index) for index in range(bench.batch.total)), strict=True)
    found = bench.outcome(outer=GROUPS, second_order=False)
    own, query = found.query_loss.mean().item(), sum(losses) / len(losses)
    if abs(own - query) > bench.differences * abs(query):
        remark = (
            f"this learner's outer loss is {own:.4g}, the query loss after adaptation {query:.4g}: another objective"
        )
        return Check(what, remark=remark)
    expected = {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}
    return Check(what, _distance(found.gradients, expected), bench.equality)


def against_learn2learn(bench: Bench, second_order: bool) -> Check:
    """Compares the gradient with that of the reference backend, if it is installed and has this meta-step.

    Args:
        bench: inputs of the meta-step.
        second_order: True compares the gradient of second order.

    Example: `against_learn2learn(bench, second_order=True).remark`.
    """
    what = f"{bench.orders[second_order]} = learn2learn"
    if not learn2learn.installed():
        return Check(what, remark="not installed (`make learn2learn` does it)")
    inner = replace(bench.inner, second_order=second_order, outer=GROUPS)
    try:
        step = learn2learn.step_of(bench.name)
        expected = step(bench.loss, bench.backbone, _without_rates(bench.start), bench.batch, inner).gradients
    except MetaprimeError as error:
        return Check(what, remark=str(error))
    gradients = bench.gradients(second_order=second_order, outer=GROUPS)
    return Check(what, _distance(gradients, expected), bench.equality)


def batched_against_looped(bench: Bench, second_order: bool, reason: str) -> Check:
    """Compares the gradients of episodes adapted together with those of episodes one by one.

    Args:
        bench: inputs of the meta-step.
        second_order: True compares gradients of second order.
        reason: reason that episodes cannot be adapted together; empty: they can.

    Example: `batched_against_looped(bench, False, "").value`.
    """
    what = f"{bench.orders[second_order]}: batched = looped"
    if reason:
        return Check(what, remark=f"cannot be batched: {reason}")
    batched = bench.gradients(second_order=second_order)
    looped = bench.gradients(second_order=second_order, way=Way.LOOP)
    return Check(what, _distance(batched, looped), bench.equality)


def between_orders(bench: Bench) -> Iterator[Check]:
    """Compares the gradients of first and second order by cosine and distance, for information.

    Args:
        bench: inputs of the meta-step.

    Yields:
        Two checks without verdict for each group with a gradient.

    Example: `[check.value for check in between_orders(bench)]`.
    """
    first, second = (_groups(bench.gradients(second_order=order)) for order in (False, True))
    for group in bench.inner.outer:
        norms = _norm(first[group]) * _norm(second[group])
        cosine = _dot(first[group], second[group]) / norms if norms else math.nan
        yield Check(f"first against second order, cosine: {group}", cosine)
        yield Check(f"first against second order, distance: {group}", _distance(first[group], second[group]))


def _error(bench: Bench, direction: Params, slope: float, size: float) -> float:
    """Returns the relative error of a slope against central differences of the query loss (nats)."""
    # Only the loss is needed, so the group with the cheapest gradient is asked for.
    up, down = (
        bench.moved(direction, step).outcome(outer=("head",)).query_loss.mean().item() for step in (size, -size)
    )
    return abs((up - down) / (2 * size) - slope) / abs(slope) if slope else math.nan


def _direction(gradients: Params) -> Params:
    """Returns a direction of norm 1, half along the gradient and half random.

    Along the gradient there is a slope; along a random direction, an error in any parameter shows.
    """
    random = {
        name: torch.randn(value.shape, generator=torch_stream(0, "direction", name), dtype=value.dtype).to(value.device)
        for name, value in gradients.items()
    }
    gradient_norm, random_norm = _norm(gradients) or 1.0, _norm(random)
    mixed = {name: gradients[name] / gradient_norm + random[name] / random_norm for name in gradients}
    length = _norm(mixed)
    return {name: value / length for name, value in mixed.items()}


def _by_optimizer(bench: Bench, index: int) -> tuple[Params, float]:
    """Returns one episode's part of the gradient, by ordinary training of a copy of its values, and its query loss.

    The part is the gradient of the query loss after training; for a displacement, the way that the values
    moved per inner learning rate, with the query as the last step.
    """
    inner, batch = bench.inner, bench.learner.passes(bench.batch)
    before = {**bench.backbone, **_without_rates(episode(bench.start, index))}
    trained = {name: value.detach().clone().requires_grad_(value.is_floating_point()) for name, value in before.items()}
    moving = [trained[name] for name in in_groups(list(trainable(trained)), inner.moves)]
    optimizer = torch.optim.SGD(moving, lr=inner.lr)

    def backward(tensors: Batch) -> float:
        """Computes fresh gradients of the loss on one batch; returns the loss in nats."""
        for value in trained.values():
            value.grad = None
        backbone = {name: trained[name] for name in bench.backbone}
        fast = {name: trained[name] for name in trained if name not in bench.backbone}
        loss = bench.loss(backbone, fast, episode(tensors, index))
        torch.autograd.backward(loss)
        return loss.item()

    # The inner loop.
    steps = (*batch.support, batch.query) if bench.learner.adapts_on_query else batch.support
    last = 0.0
    for tensors in steps:
        last = backward(tensors)
        if inner.clip:
            torch.nn.utils.clip_grad_norm_(moving, inner.clip)
        optimizer.step()

    # The parts of all episodes add up to the mean over T.
    if not bench.learner.adapts_on_query:
        last = backward(batch.query)
        gradients = {name: value.grad / batch.total for name, value in trained.items() if value.grad is not None}
        return gradients, last
    scale = inner.lr * len(steps) * batch.total
    return {name: (before[name] - value.detach()) / scale for name, value in trainable(trained).items()}, last


def _distance(found: Params, expected: Params) -> float:
    """Returns |found - expected| / |expected| of the worst group; NaN if a group of `expected` is zero."""
    assert found.keys() == expected.keys()
    worst = 0.0
    for reference in _groups(expected).values():
        difference = _norm({name: found[name] - reference[name] for name in reference})
        size = _norm(reference)
        worst = max(worst, difference / size if size else math.nan, key=_or_infinite)
    return worst


def _groups(values: Params) -> dict[str, Params]:
    """Returns group -> its values."""
    names = dict.fromkeys(name.split(".", 1)[0] for name in values)
    return {group: {name: values[name] for name in in_groups(list(values), (group,))} for group in names}


def _or_infinite(value: float) -> float:
    """Returns a value, or infinity if it is not finite, for comparisons."""
    return value if math.isfinite(value) else math.inf


def _dot(left: Params, right: Params) -> float:
    """Returns the dot product over all parameters."""
    return float(sum((left[name] * right[name]).sum().item() for name in left))


def _norm(values: Params) -> float:
    """Returns the Euclidean norm over all parameters."""
    return math.sqrt(_dot(values, values))


def _without_rates(values: Params) -> Params:
    """Returns values without learned rates; references use `inner.lr`, at which these start."""
    return {name: value for name, value in values.items() if not name.startswith("rates.")}
