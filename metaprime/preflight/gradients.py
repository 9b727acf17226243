"""`metaprime doctor --gradients`: are this config's meta-gradients right, on its encoder and a few of its sentences?"""

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
from metaprime.meta import LEARNERS, Way
from metaprime.meta.learner import GROUPS
from metaprime.models.task_model import functional_loss
from metaprime.preflight.gradient_checks import (
    Bench,
    Check,
    against_differences,
    against_learn2learn,
    against_optimizer,
    batched_against_looped,
    between_orders,
)
from metaprime.priming.batching import why_not_batched
from metaprime.priming.settings import shared_way
from metaprime.priming.setup import Run, assemble
from metaprime.priming.starts import rules_of, starting_values
from metaprime.rng import torch_stream
from metaprime.types import Params

EPISODES, MOST_SENTENCES, MOST_STEPS = 2, 2, 3

NOISE = 0.02
"""Deviation of what is added to phi and head: at a start of zero half of the paths carry no gradient."""

TOLERANCES = (1e-6, 1e-10)
"""Largest relative errors: of a slope against its central difference, of a gradient against its like."""

NARROW_TOLERANCES = (1e-3, 1e-5)
"""The same where the encoder rounds to float32 inside, by 6e-8 of a value, which differences over small steps magnify."""


@dataclass(frozen=True)
class Report:
    """All checks, what they were computed on, and in which precision."""

    learner: str
    encoder: str
    setting: str
    precision: str
    checks: list[Check]

    @property
    def passed(self) -> bool:
        return all(check.verdict != "failed" for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """JSON has no word for a number that is not finite: null, and the verdict remains."""
        lines = [{**vars(check), "verdict": check.verdict} for check in self.checks]
        for line in lines:
            if line["value"] is not None and not math.isfinite(line["value"]):
                line["value"] = None
        return {**vars(self), "passed": self.passed, "checks": lines}


def examine_gradients(config: Config) -> Report:
    """Checks what can be checked of the config's learner, first and second order whichever it asks for.

    Raises:
        MetaprimeError: bad data, encoder or combination of settings, as in priming.
    """
    torch.set_num_threads(config.run.threads)
    run = assemble(_small(config), Accelerator())
    bench = _bench(run)
    rows = [same[0] for same in next(iter(run.episodes.pools.values()))]
    reasons = {
        order: why_not_batched(
            run.model,
            run.task,
            run.state,
            bench.start,
            rows,
            run.meta_step,
            replace(bench.inner, second_order=order),
        )
        for order in bench.orders
    }
    bench = replace(bench, inner=bench.inner.executed(way=Way.LOOP)) if any(reasons.values()) else bench
    narrow = _rounds_inside(bench)
    if narrow:
        differences, equality = NARROW_TOLERANCES
        bench = replace(bench, differences=differences, equality=equality)
    name = type(run.encoder.module).__name__
    windows = bench.batch.query["labels"].shape[1]
    return Report(
        learner=bench.name,
        encoder=f"{config.encoder.name} ({name}, {config.encoder.attention})",
        setting=f"{EPISODES} episodes of {', '.join(bench.batch.languages)}; {len(bench.batch.support)} inner steps, "
        f"{windows} query windows; phi and head at their start plus noise of deviation {NOISE}",
        precision="float64" + (f", but {name} rounds to float32 inside: wider tolerances" if narrow else ""),
        checks=list(_checks(bench, reasons)),
    )


def _checks(bench: Bench, reasons: dict[bool, str]) -> Iterator[Check]:
    yield from against_differences(bench)
    if bench.learner.adapts:
        yield against_optimizer(bench)
    for order in bench.orders:
        yield against_learn2learn(bench, order)
    for order in bench.orders:
        yield batched_against_looped(bench, order, reasons[order])
    if len(bench.orders) == 2:
        yield from between_orders(bench)


def _small(config: Config) -> Config:
    """Few sentences and steps; whether episodes go together is found out here, so `assemble` need not."""
    shape = config.episodes
    return override(
        config,
        f"data.languages={json.dumps(config.data.languages[:EPISODES])}",
        f"episodes.per_step={EPISODES}",
        f"episodes.support={min(shape.support, MOST_SENTENCES)}",
        f"episodes.query={min(shape.query, MOST_SENTENCES)}",
        f"inner.steps={min(config.inner.steps, MOST_STEPS)}",
        "inner.batched=false",
        "learner.backend=torch",
        "outer.validate_every=0",
    )


def _bench(run: Run) -> Bench:
    """The first meta-batch of a run in float64, to be adapted together, with a gradient for every group."""
    config, device = run.config, run.accelerator.device
    run.model = run.model.double().variant(autocast=False)
    start = starting_values(run.model, run.state, rules_of(config), config.run.seed, 0, range(EPISODES))
    start = {name: _shaken(name, value.detach(), config.inner.lr) for name, value in start.items()}
    batch = run.episodes.meta_batch(0, range(EPISODES), run.task.collate, run.task.corrupt)
    present = {"backbone", *(name.split(".")[0] for name in start)}
    outer = tuple(group for group in dict.fromkeys((*GROUPS, *run.inner.outer)) if group in present)
    return Bench(
        name=config.learner.name,
        learner=LEARNERS[config.learner.name],
        loss=functional_loss(run.model, run.task.measure),
        backbone={name: value.detach() for name, value in run.state.backbone.items()},
        start=start,
        batch=replace(
            batch,
            support=tuple(to_device(tensors, device) for tensors in batch.support),
            query=to_device(batch.query, device),
        ),
        # Choices and constraints stay out of it: a slope is that of the loss for entries once chosen.
        inner=replace(
            run.inner.executed(way=shared_way(LEARNERS[config.learner.name], run.model)),
            outer=outer,
            carry=False,
            select=None,
            project=None,
        ),
        differences=TOLERANCES[0],
        equality=TOLERANCES[1],
    )


def _shaken(name: str, value: torch.Tensor, inner_lr: float) -> torch.Tensor:
    """Phi or head with noise, in float64; a learned rate as the config has it, which the model holds in float32."""
    if not value.is_floating_point():
        return value
    if name.startswith("rates."):
        return torch.full_like(value, inner_lr, dtype=torch.float64)
    noise = torch.randn(value.shape, generator=torch_stream(0, "noise", name), dtype=torch.float64)
    return value.double() + NOISE * noise.to(value.device)


def _rounds_inside(bench: Bench) -> bool:
    """Whether any operator of a forward pass makes a narrower number out of a float64."""
    first: list[Params] = [
        {name: value[0] for name, value in part.items()} for part in (bench.start, bench.batch.query)
    ]
    watch = _Narrowing()
    with watch:
        bench.loss(bench.backbone, *first)
    return watch.seen


class _Narrowing(TorchDispatchMode):
    """Sees every operator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        read, made = ({leaf.dtype for leaf in tree_leaves(x) if isinstance(leaf, torch.Tensor)} for x in (args, out))
        narrow = any(dtype.is_floating_point and dtype != torch.float64 for dtype in made)
        self.seen = self.seen or (narrow and torch.float64 in read)
        return out


HEADER = ("check", "value", "tolerance", "verdict", "remark")


def table_rows(report: Report) -> list[list[str]]:
    """One row of a terminal table for each check."""
    rows = []
    for check in report.checks:
        style = ".6f" if "cosine" in check.what else ".1e"
        value = "-" if check.value is None else format(check.value, style)
        tolerance = "-" if check.tolerance is None else format(check.tolerance, ".0e")
        rows.append([check.what, value, tolerance, check.verdict, check.remark])
    return rows
