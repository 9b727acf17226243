"""Checks a config's meta-gradients on its encoder and sentences (`metaprime doctor --gradients`)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from metaprime.config.loading import override
from metaprime.config.sections import Config
from metaprime.data.rows import to_device
from metaprime.meta import Way
from metaprime.meta.learner import GROUPS
from metaprime.preflight.gradient_checks import (
    Bench,
    Check,
    against_differences,
    against_learn2learn,
    against_optimizer,
    batched_against_looped,
    between_orders,
)
from metaprime.priming.batching import two_episodes, why_not_together
from metaprime.priming.memory import Trial
from metaprime.priming.settings import shared_way
from metaprime.priming.setup import Run, set_up
from metaprime.priming.step import draw_some
from metaprime.rng import torch_stream
from metaprime.types import Params

EPISODES, MOST_SENTENCES, MOST_STEPS = 2, 2, 3
"""Number of episodes, and largest numbers of sentences in a batch and of inner steps, in a check."""

DEVIATION = 0.02
"""Standard deviation of the noise that is added to phi and head: at zeros, many gradients would be zero."""

TOLERANCES = (1e-6, 1e-10)
"""Largest relative errors of a slope against central differences, and between two gradients."""

NARROW_TOLERANCES = (1e-3, 1e-5)
"""Tolerances for an encoder that rounds to float32 inside: small differences magnify its errors."""


@dataclass(frozen=True)
class GradientReport:
    """The outcomes of all checks.

    Attributes:
        learner: name of the learner.
        encoder: name, class and attention implementation of the encoder.
        setting: episodes, steps, windows and noise of the checks.
        precision: precision of the computation.
        checks: the outcomes.
    """

    learner: str
    encoder: str
    setting: str
    precision: str
    checks: list[Check]

    @property
    def passed(self) -> bool:
        """True if no check failed."""
        return all(check.verdict != "failed" for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """Returns the report as `--json` prints it; values that are not finite become null."""
        lines = [{**vars(check), "verdict": check.verdict} for check in self.checks]
        for line in lines:
            if line["value"] is not None and not math.isfinite(line["value"]):
                line["value"] = None
        return {**vars(self), "passed": self.passed, "checks": lines}

    @property
    def header(self) -> tuple[str, ...]:
        """The columns of a terminal table."""
        return ("check", "value", "tolerance", "verdict", "remark")

    def rows(self) -> list[list[str]]:
        """Returns one row of a terminal table for each check."""
        rows = []
        for check in self.checks:
            style = ".6f" if "cosine" in check.what else ".1e"
            value = "-" if check.value is None else format(check.value, style)
            tolerance = "-" if check.tolerance is None else format(check.tolerance, ".0e")
            rows.append([check.what, value, tolerance, check.verdict, check.remark])
        return rows


def examine_gradients(config: Config) -> GradientReport:
    """Checks the gradients of the config's learner, of first and second order whatever the config asks for.

    Args:
        config: config of a priming run; few of its sentences and inner steps are used.

    Raises:
        MetaprimeError: data, encoder or combination of settings cannot be used for priming.

    Example: `examine_gradients(config).passed`.
    """
    torch.set_num_threads(config.run.threads)
    shape = config.episodes

    # Few sentences and steps; the model is converted to float64 later.
    small = (
        f"data.languages={json.dumps(config.data.languages[:EPISODES])}",
        f"episodes.per_step={EPISODES}",
        f"episodes.support={min(shape.support, MOST_SENTENCES)}",
        f"episodes.query={min(shape.query, MOST_SENTENCES)}",
        f"inner.steps={min(config.inner.steps, MOST_STEPS)}",
        "encoder.precision=float32",
        "inner.batched=false",
        "inner.compile=false",
        "learner.backend=torch",
        "outer.validate_every=0",
    )
    run = set_up(override(config, *small), Accelerator())
    bench = _bench(run)

    # Episodes are adapted together if this encoder allows it in all orders.
    rows = [same[0] for same in next(iter(run.sampler.pools.values()))]
    trial = Trial(run.learner.step, run.loss, run.state.backbone, bench.start)
    two = two_episodes(run.task, rows, run.model)
    reasons = {order: why_not_together(trial, two, replace(bench.inner, second_order=order)) for order in bench.orders}
    bench = replace(bench, inner=bench.inner.executed(way=Way.LOOP)) if any(reasons.values()) else bench

    # An encoder that rounds inside gets wider tolerances.
    narrow = _rounds_inside(bench)
    if narrow:
        differences, equality = NARROW_TOLERANCES
        bench = replace(bench, differences=differences, equality=equality)

    name = type(run.encoder.module).__name__
    windows = bench.batch.query["labels"].shape[1]
    return GradientReport(
        learner=bench.name,
        encoder=f"{config.encoder.name} ({name}, {config.encoder.attention})",
        setting=f"{EPISODES} episodes of {', '.join(bench.batch.languages)}; {len(bench.batch.support)} inner steps, "
        f"{windows} query windows; phi and head at their start plus noise of deviation {DEVIATION}",
        precision="float64" + (f", but {name} rounds to float32 inside: wider tolerances" if narrow else ""),
        checks=list(_checks(bench, reasons)),
    )


def _checks(bench: Bench, reasons: dict[bool, str]) -> Iterator[Check]:
    """Yields all checks; `reasons` says by order why episodes cannot be adapted together."""
    yield from against_differences(bench)
    if bench.learner.adapts:
        yield against_optimizer(bench)
    for order in bench.orders:
        yield against_learn2learn(bench, order)
    for order in bench.orders:
        yield batched_against_looped(bench, order, reasons[order])
    if len(bench.orders) == 2:
        yield from between_orders(bench)


def _bench(run: Run) -> Bench:
    """Returns the inputs of a run's first meta-step in float64, with a gradient for every group."""
    run.model.double()
    start = run.starts.values(0, range(EPISODES))
    start = {name: _with_noise(name, value.detach(), run.asked.inner.rate) for name, value in start.items()}
    batch, device = draw_some(run, 0, range(EPISODES)), run.accelerator.device
    present = {"backbone", *(name.split(".")[0] for name in start)}
    outer = tuple(group for group in dict.fromkeys((*GROUPS, *run.inner.outer)) if group in present)
    inner = run.inner.executed(way=shared_way(run.learner, run.model))
    return Bench(
        name=run.asked.learner.name,
        learner=run.learner,
        loss=run.loss,
        backbone={name: value.detach() for name, value in run.state.backbone.items()},
        start=start,
        batch=replace(
            batch,
            support=tuple(to_device(tensors, device) for tensors in batch.support),
            query=to_device(batch.query, device),
        ),
        # Central differences need a smooth function, so weights are neither selected nor projected.
        inner=replace(inner, outer=outer, carry=False, select=None, project=None),
        differences=TOLERANCES[0],
        equality=TOLERANCES[1],
    )


def _with_noise(name: str, value: torch.Tensor, inner_lr: float) -> torch.Tensor:
    """Returns phi or head in float64 with noise; a learned rate is the config's, unrounded."""
    if not value.is_floating_point():
        return value
    if name.startswith("rates."):
        return torch.full_like(value, inner_lr, dtype=torch.float64)
    noise = torch.randn(value.shape, generator=torch_stream(0, "noise", name), dtype=torch.float64)
    return value.double() + DEVIATION * noise.to(value.device)


def _rounds_inside(bench: Bench) -> bool:
    """Returns True if an operator of a forward pass makes a narrower float out of float64."""
    first_episode: list[Params] = [
        {name: value[0] for name, value in values.items()} for values in (bench.start, bench.batch.query)
    ]
    watch = _Narrowing()
    with watch:
        bench.loss(bench.backbone, *first_episode)
    return watch.seen


class _Narrowing(TorchDispatchMode):
    """A mode that watches all operators; `seen` becomes True once one of them narrows a float64."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operator and compares the types of its inputs and outputs."""
        returned = func(*args, **(kwargs or {}))
        inputs, outputs = (
            {leaf.dtype for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)}
            for values in (args, returned)
        )
        narrow = any(dtype.is_floating_point and dtype != torch.float64 for dtype in outputs)
        self.seen = self.seen or (narrow and torch.float64 in inputs)
        return returned
