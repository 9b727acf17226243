"""Guards a priming run against NaN, infinity, divergence and adapters that get no gradient."""

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
"""Meta-steps in the window of the running median of query losses, and fewest losses it needs."""

HALVINGS = 3
"""Times that the outer rate is halved before a diverging run fails."""

STILL_STEPS = 10
"""Consecutive meta-steps without a gradient after which an adapter module is reported. A few are
normal: a down-projection has no gradient while its up-projection is still zero."""

log = logging.getLogger(__name__)


class Diverged(MetaprimeError):
    """The error of a run that diverged; `outer.rollback` retries it at lower rates."""


@dataclass
class Guards:
    """State of the guards. Checkpoints hold `recent` and `halvings`, which influence the run.

    Attributes:
        shown: whether this process logs.
        recent: mean query losses in nats of the last `WINDOW` meta-steps.
        halvings: times that the outer rate was halved.
        still: adapter module -> consecutive meta-steps without a gradient.
        high: whether the last loss was far above the median, so that each excursion is logged once.
    """

    shown: bool = True
    recent: list[float] = field(default_factory=list)
    halvings: int = 0
    still: dict[str, int] = field(default_factory=dict)
    high: bool = False

    def state(self) -> dict[str, Any]:
        """Returns the part of the state that a checkpoint holds."""
        return {"recent": self.recent, "halvings": self.halvings}

    def restore(self, state: dict[str, Any]) -> None:
        """Restores the part of the state that a checkpoint holds."""
        self.recent, self.halvings = list(state["recent"]), state["halvings"]

    def clear(self) -> None:
        """Resets `recent` and `halvings`."""
        self.recent, self.halvings = [], 0

    def slow_down(self, halvings: int) -> None:
        """Sets the number of times that the outer rate was halved."""
        self.halvings = halvings

    def check(self, config: OuterConfig, outcome: Outcome, step: int) -> None:
        """Logs a query loss far above the running median; with `config.rollback` raises an error.

        Args:
            config: the section `outer`.
            outcome: result of the whole meta-batch; its query loss is (T,).
            step: meta-step, counted from 0.

        Raises:
            Diverged: the mean loss exceeds `config.divergence` times the median.
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
        """Records a step's loss; logs adapter modules without a gradient for `STILL_STEPS` steps.

        Only learned and carried adapters are watched: injection has checked those that are redrawn.

        Args:
            outcome: result of the whole meta-batch; gradients in shapes such as (D, D).
            adapter: the model's own phi by full name, in the same shapes.
            step: meta-step, counted from 0.
        """
        self.recent = [*self.recent, outcome.query_loss.mean().item()][-WINDOW:]
        moved = _moved_modules(outcome, adapter)
        self.still = {module: 0 if moves else self.still.get(module, 0) + 1 for module, moves in moved.items()}
        for module, steps in self.still.items():
            if steps == STILL_STEPS and self.shown:
                log.warning(
                    "step %d: %s has had no gradient for %d steps: it is not trained",
                    step + 1,
                    module,
                    steps,
                )


def _moved_modules(outcome: Outcome, adapter: Params) -> dict[str, bool]:
    """Returns adapter module -> True if a parameter has a gradient or, if carried, was moved."""
    if learned := {name: value for name, value in outcome.gradients.items() if name.startswith("adapter.")}:
        differences = learned
    else:
        fast = {name: value for name, value in outcome.last_fast.items() if name.startswith("adapter.")}
        differences = {name: value - adapter[name].detach() for name, value in fast.items()}
    if not differences:
        return {}
    # A single transfer from the device.
    flags = torch.stack([value.count_nonzero() for value in differences.values()]).tolist()
    moved: dict[str, bool] = {}
    for name, count in zip(differences, flags, strict=True):
        module = name.rpartition(".")[0]
        moved[module] = moved.get(module, False) or count > 0
    return moved


def check_finite(outcome: Outcome, step: int, languages: Sequence[str], weights: Params | None = None) -> None:
    """Raises an error if a loss of the meta-batch is not finite.

    Args:
        outcome: result of the whole meta-batch: query loss (T,) and support loss (T, 2).
        step: meta-step, counted from 0.
        languages: languages of the T episodes.
        weights: trained values by full name, searched for the cause.

    Raises:
        Diverged: a loss is not finite; the message names step, languages and parameters.
    """
    bad_T = ~(torch.isfinite(outcome.query_loss) & torch.isfinite(outcome.support_loss).all(-1))
    if bad_T.any():
        names = sorted({language for language, bad in zip(languages, bad_T.tolist(), strict=True) if bad})
        broken, blown = not_finite(weights or {}), not_finite(outcome.gradients)
        blame = "the weights and the outer gradients are finite, the inner loop's values are not"
        if broken:
            blame = f"the weights of {broken} were not finite before this step"
        elif blown:
            blame = f"the weights are finite, the outer gradients of {blown} are not"
        raise Diverged(f"step {step + 1}: the loss of language {', '.join(names)} is not finite; {blame}; {REMEDY}")


def check_weights(state: State, steps: int) -> None:
    """Raises an error if the weights to be saved are not finite.

    Raises:
        Diverged: a weight is not finite; the message names step, group and the first parameter.
    """
    if broken := not_finite({**state.backbone, **state.adapter, **state.head, **state.rates}):
        raise Diverged(f"step {steps}: the weights of {broken} are not finite after this step; {REMEDY}")


def not_finite(values: Params) -> str:
    """Returns the groups that hold NaN or infinity, with the first such parameter; empty if none.

    Args:
        values: tensors of any shape (...,) by full name, such as `head.bias`.

    Example: `not_finite({"head.bias": torch.tensor(torch.nan)})` is `"head (first head.bias)"`.
    """
    first: dict[str, str] = {}
    for name, value in values.items():
        group = name.partition(".")[0]
        if group not in first and not bool(torch.isfinite(value).all()):
            first[group] = name
    return ", ".join(f"{group} (first {name})" for group, name in first.items())
