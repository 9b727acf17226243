"""Defines a learner: a pure function from theta, starting values and episodes to an outer gradient.

Everything in an `Outcome` is one process's part of a sum; the sum over processes belongs to the
whole meta-batch. Shape suffixes: T episodes, B sentences, L sub-words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol

from metaprime.types import Episodes, Loss, Params, Project, Select

if TYPE_CHECKING:
    import torch

GROUPS = ("backbone", "adapter", "head")
"""First parts of parameter names: `backbone.x` is theta, `adapter.x` and `head.x` are phi."""


class Way(StrEnum):
    """A way to run T episodes, each with its own values. All three give the same numbers.

    ONE_PASS runs modules that accept values with a leading T; VMAP runs any module under
    `torch.func.vmap`; LOOP runs one episode after another.
    """

    ONE_PASS = "one_pass"
    VMAP = "vmap"
    LOOP = "loop"


@dataclass(frozen=True)
class Execution:
    """Settings of a meta-step that change its time and memory, not its result.

    Attributes:
        way: computation of the episodes that share a pass.
        chunk: largest number of episodes that share a pass, which bounds memory; None: no limit.
        subwords: largest number of positions in a shared pass; episodes of similar lengths
            then share passes. None: neighbours share passes, whatever their lengths.
        packed: whether the loss works on packed rows, so that sharing a pass costs no padding.
        micro: windows of a support batch that share a pass, gradients added up; None: all.
    """

    way: Way = Way.VMAP
    chunk: int | None = None
    subwords: int | None = None
    packed: bool = False
    micro: int | None = None

    @property
    def packs(self) -> bool:
        """True if passes work on packed rows; vmap pads."""
        return self.packed and self.way is not Way.VMAP


@dataclass(frozen=True)
class InnerLoop:
    """Settings of the inner loop and of the outer gradient: `InnerLoop(lr=0.1, moves=("head",))`.

    Attributes:
        lr: alpha, the step size; the initial one where inner rates are learned.
        moves: groups that the inner loop moves.
        optimizer: `sgd`, or `adam` with betas 0.9 and 0.999.
        clip: largest norm of an episode's inner gradient; None: no clipping.
        second_order: whether the outer gradient differentiates through the inner loop; otherwise
            phi' is a constant.
        outer: groups, and `rates`, that receive an outer gradient.
        carry: whether adapted values are returned.
        select: selects the weights that an episode may move, by its support batches; None: all.
        project: enforces a constraint on moved values after every step; None: no constraint.
        execution: settings that change time and memory only.
    """

    lr: float
    moves: tuple[str, ...] = ("adapter", "head")
    optimizer: Literal["sgd", "adam"] = "sgd"
    clip: float | None = None
    second_order: bool = False
    outer: tuple[str, ...] = ("backbone",)
    carry: bool = False
    select: Select | None = None
    project: Project | None = None
    execution: Execution = Execution()

    def executed(self, **changes: object) -> InnerLoop:
        """Returns a copy with other fields of `execution`: `inner.executed(way=Way.LOOP)`."""
        # mypy cannot match arbitrary keywords with the fields of `Execution`.
        return replace(self, execution=replace(self.execution, **changes))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Outcome:
    """One process's part of a meta-step's result; the sum over processes is the result.

    Attributes:
        gradients: gradients of the mean query loss over the meta-batch's T episodes, by parameter
            name, for the groups in `InnerLoop.outer`; each has its parameter's shape.
        mean_fast: mean over T of phi' and head'; empty unless `InnerLoop.carry`.
        last_fast: phi' and head' of the last episode, zeros if another process holds it; empty
            unless `InnerLoop.carry`.
        query_loss: (T,) nats per unit after adaptation, the loss that `gradients` are of; zeros
            for episodes of other processes.
        support_loss: (T, 2) nats per unit before the first and before the last inner step; zeros
            for episodes of other processes.
    """

    gradients: Params
    mean_fast: Params
    last_fast: Params
    query_loss: torch.Tensor
    support_loss: torch.Tensor

    def __iadd__(self, part: Outcome) -> Outcome:
        """Adds a part, tensor by tensor, so that memory never holds a third set of gradients."""
        for sums, summands in (
            (self.gradients, part.gradients),
            (self.mean_fast, part.mean_fast),
            (self.last_fast, part.last_fast),
        ):
            for name, value in summands.items():
                # Not in place: two names may share one tensor.
                sums[name] = sums[name] + value
        losses = self.query_loss + part.query_loss, self.support_loss + part.support_loss
        return replace(self, query_loss=losses[0], support_loss=losses[1])


class MetaStep(Protocol):
    """A learner's meta-step: a function that changes no value and returns an `Outcome`."""

    def __call__(self, loss: Loss, backbone: Params, start: Params, episodes: Episodes, inner: InnerLoop, /) -> Outcome:
        """Computes the outer gradient of one meta-batch.

        Args:
            loss: `loss(backbone, fast, batch)` in nats, () for one episode. Under `Way.ONE_PASS` it
                receives `fast` and `batch` with a leading T and returns (T,).
            backbone: theta; names begin with `backbone.`.
            start: phi and head, each (T, ...); names begin with `adapter.` and `head.`. Learned
                inner rates are (T,); their names begin with `rates.`.
            episodes: T episodes; every tensor is (T, B, ...). Trials of memory give no support batch.
            inner: settings of the inner loop and of the outer gradient.

        Returns:
            The outcome, with gradients for the groups in `inner.outer`.

        Raises:
            MetaprimeError: the loss does not depend on a parameter of an outer group.
        """
        ...


def unpooled(episodes: Episodes) -> Episodes:
    """Returns the episodes unchanged: the default of `Learner.passes`.

    Args:
        episodes: T episodes; every tensor is (T, B, ...).
    """
    return episodes


@dataclass(frozen=True)
class Learner:
    """An algorithm that primes an encoder; `LEARNERS["anil"]` is one.

    Attributes:
        step: its meta-step.
        formula: its equation, one line.
        inner: groups that its inner loop moves; empty: ordinary training without an inner loop.
        outer: groups that its outer step always moves. A learner with an inner loop also moves phi
            and head where `outer.adapter` and `outer.head` are `meta`.
        second_order: whether it can differentiate through its inner loop.
        adapts_on_query: whether the query batch is one more inner step rather than a held-out loss.
        passes: returns the episodes whose batches, each (T, B, ...), the learner processes; their
            sub-words are counted as its work. A batch that is read twice is given twice.
        reads_labels: whether it learns from labels; otherwise it learns from masked text, with the
            encoder's own masked-word head.
    """

    step: MetaStep
    formula: str
    inner: tuple[str, ...] = ()
    outer: tuple[str, ...] = ("backbone",)
    second_order: bool = True
    adapts_on_query: bool = False
    passes: Callable[[Episodes], Episodes] = unpooled
    reads_labels: bool = True

    def __call__(self, loss: Loss, backbone: Params, start: Params, episodes: Episodes, inner: InnerLoop) -> Outcome:
        """Runs the meta-step: `anil(loss, theta, phi, episodes, inner)`.

        Args: as in `MetaStep`; phi and head in `start` are (T, ...).
        """
        return self.step(loss, backbone, start, episodes, inner)

    @property
    def adapts(self) -> bool:
        """True if the learner has an inner loop."""
        return bool(self.inner)

    @property
    def simulates(self) -> Literal["full", "head", "peft"] | None:
        """The fine-tuning that the learner simulates: `full`, `head`, `peft`, or None for none.

        `peft` stands for the method in the config's section of that name.
        """
        # Masked words are learned without a task, by a head that no transfer keeps.
        if not self.reads_labels:
            return None
        moved = self.inner or self.outer
        return "full" if "backbone" in moved else "head" if moved == ("head",) else "peft"

    @property
    def injects(self) -> bool:
        """True if the learner needs PEFT modules in the encoder."""
        return self.adapts or "adapter" in self.outer


def in_groups(names: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Returns the parameter names that belong to one of the groups; their order is kept.

    Example: `in_groups(["backbone.w", "head.b"], ("head",))` is `["head.b"]`.
    """
    return [name for name in names if name.split(".", 1)[0] in groups]
