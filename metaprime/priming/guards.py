"""Watches a priming run: losses, gradients and weights that are not finite, divergence, adapters that no gradient reaches."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from metaprime.config.sections import OuterConfig
from metaprime.meta import Outcome
from metaprime.types import MetaprimeError, Params, State

REMEDY = "lower outer.lr or inner.lr, or set outer.clip; the last checkpoint is kept"

WINDOW, LEAST_LOSSES = 50, 10
"""Meta-steps whose query losses the running median is taken over, and how many it needs."""

HALVINGS = 3
"""Times that the outer rate is halved before a diverging run is given up."""

STILL_STEPS = 10
"""Meta-steps in a row without any gradient after which an adapter module is reported. The first ones mean nothing: behind
an up-projection that starts at zero the down-projection has no gradient yet."""

log = logging.getLogger(__name__)


class Diverged(MetaprimeError):
    """The run cannot continue as it does: `outer.rollback` may try again more slowly."""


@dataclass
class Guards:
    """The guards' memory. `recent` and `halvings` steer the run and belong in its checkpoints.

    Attributes:
        shown: whether this process logs.
        recent: mean query losses (nats) of the last meta-steps.
        halvings: times that the outer rate was halved.
        still: by adapter module, meta-steps in a row in which it got no gradient.
        high: whether the last loss was far above the median, so that each excursion is reported once.
    """

    shown: bool = True
    recent: list[float] = field(default_factory=list)
    halvings: int = 0
    still: dict[str, int] = field(default_factory=dict)
    high: bool = False

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps."""
        return {"recent": self.recent, "halvings": self.halvings}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes over what a checkpoint kept."""
        self.recent, self.halvings = list(state["recent"]), state["halvings"]

    def clear(self) -> None:
        """Forgets everything that steers the run."""
        self.recent, self.halvings = [], 0

    def slow_down(self, halvings: int) -> None:
        """Notes how often the outer rate was halved."""
        self.halvings = halvings

    def check(self, config: OuterConfig, outcome: Outcome, step: int) -> None:
        """Compares the mean query loss with the median of the last steps': a notice, or with `rollback` the end of the try.

        Raises:
            Diverged: it is more than `config.divergence` times as high.
        """
        if config.divergence is None or len(self.recent) < LEAST_LOSSES:
            return
        loss, median = outcome.query_loss.mean().item(), statistics.median(self.recent)
        was, self.high = self.high, loss > config.divergence * median
        if not self.high or (was and not config.rollback):
            return
        text = (
            f"step {step + 1}: the query loss {loss:.3g} is {loss / median:.0f} times the running median {median:.3g}"
        )
        if config.rollback:
            raise Diverged(f"{text}; {REMEDY}")
        if self.shown:
            log.warning("%s: it may be diverging (lower outer.lr, or set outer.rollback: true)", text)

    def note(self, outcome: Outcome, adapter: Params, step: int) -> None:
        """Remembers a step's loss, and reports adapter modules that got no gradient for many steps.

        Only adapters that learn or are carried are watched; one that is drawn anew every time was checked at
        injection.
        """
        self.recent = [*self.recent, outcome.query_loss.mean().item()][-WINDOW:]
        moved = _moved_modules(outcome, adapter)
        self.still = {module: 0 if moves else self.still.get(module, 0) + 1 for module, moves in moved.items()}
        for module, steps in self.still.items():
            if steps == STILL_STEPS and self.shown:
                log.warning(
                    "step %d: %s has had no gradient for %d steps: nothing reaches this site, it learns nothing",
                    step + 1,
                    module,
                    steps,
                )


def _moved_modules(outcome: Outcome, adapter: Params) -> dict[str, bool]:
    """Tells by adapter module if any parameter has a gradient, or was moved by the inner loop where it is carried."""
    if learned := {name: value for name, value in outcome.gradients.items() if name.startswith("adapter.")}:
        differences = learned
    else:
        fast = {name: value for name, value in outcome.last_fast.items() if name.startswith("adapter.")}
        differences = {name: value - adapter[name].detach() for name, value in fast.items()}
    if not differences:
        return {}
    # One wait for the device.
    flags = torch.stack([value.count_nonzero() for value in differences.values()]).tolist()
    moved: dict[str, bool] = {}
    for name, count in zip(differences, flags, strict=True):
        module = name.rpartition(".")[0]
        moved[module] = moved.get(module, False) or count > 0
    return moved


def check_finite(outcome: Outcome, step: int, languages: Sequence[str], weights: Params | None = None) -> None:
    """Refuses a meta-batch whose losses are not finite.

    Args:
        outcome: of the whole meta-batch.
        step: meta-step, counted from 0.
        languages: of its T episodes.
        weights: values that the run moves, to find those at fault.

    Raises:
        Diverged: a loss is not finite; step, languages and the parameters at fault are named.
    """
    bad_T = ~(torch.isfinite(outcome.query_loss) & torch.isfinite(outcome.support_loss).all(-1))
    if bad_T.any():
        names = sorted({language for language, bad in zip(languages, bad_T.tolist(), strict=True) if bad})
        broken, blown = not_finite(weights or {}), not_finite(outcome.gradients)
        blame = "the weights are finite and so are the outer gradients, the inner loop's values are not"
        if broken:
            blame = f"the weights of {broken} are not finite already"
        elif blown:
            blame = f"the weights are finite, the outer gradients of {blown} are not"
        raise Diverged(f"step {step + 1}: the loss of language {', '.join(names)} is not finite; {blame}; {REMEDY}")


def check_weights(state: State, steps: int) -> None:
    """Refuses weights that are not finite: they must not be saved.

    Raises:
        Diverged: some are not; step, group and the first parameter are named.
    """
    if broken := not_finite({**state.backbone, **state.adapter, **state.head, **state.rates}):
        raise Diverged(f"step {steps}: the weights of {broken} are not finite after it; {REMEDY}")


def not_finite(values: Params) -> str:
    """Names the groups that hold anything not finite, each with its first such parameter; empty if all is finite."""
    first: dict[str, str] = {}
    for name, value in values.items():
        group = name.partition(".")[0]
        if group not in first and not bool(torch.isfinite(value).all()):
            first[group] = name
    return ", ".join(f"{group} (first {name})" for group, name in first.items())
