"""Defines what a learner is: a pure function from theta, starting values and episodes to an outer gradient.

Everything in an `Outcome` is one process's part of a sum: added over processes it belongs to the
whole meta-batch. Shape suffixes: T episodes, B sentences, L sub-words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal, Protocol

import torch

from metaprime.types import Episodes, Loss, Params, Project, Select

GROUPS = ("backbone", "adapter", "head")
"""The first part of every parameter's name: `backbone.x` is theta, `adapter.x` and `head.x` are phi."""


class Way(StrEnum):
    """How T episodes with values of their own are carried out; all three give the same numbers.

    ONE_PASS runs modules that accept values with a leading T; VMAP runs any module under
    `torch.func.vmap`; LOOP runs one episode after another.
    """

    ONE_PASS = "one_pass"
    VMAP = "vmap"
    LOOP = "loop"


@dataclass(frozen=True)
class Execution:
    """How a meta-step is carried out. It changes time and memory, not results.

    Attributes:
        way: how the episodes of one pass are computed.
        chunk: episodes that share a pass at most, which bounds memory; None: all.
        subwords: padded sub-words of a shared pass at most; episodes of like lengths then share
            passes. None: neighbours share them, however long they are.
        micro: windows of a support batch that pass at once, gradients added up; None: all.
    """

    way: Way = Way.VMAP
    chunk: int | None = None
    subwords: int | None = None
    micro: int | None = None


@dataclass(frozen=True)
class InnerLoop:
    """The inner loop: what moves, by which steps, and what the outer gradient is taken of.

    Attributes:
        lr: alpha, the step size; the initial one where inner rates are learned.
        moves: groups that the inner loop moves.
        optimizer: `sgd`, or `adam` with betas 0.9 and 0.999.
        clip: largest norm of an episode's inner gradient; None: any.
        second_order: whether the outer gradient goes through the inner loop; otherwise phi' is a constant.
        outer: groups, and `rates`, that receive an outer gradient.
        carry: whether adapted values are returned.
        select: chooses from the support batches which weights an episode may move; None: all.
        project: brings moved values back to where they may be, after every step; None: nothing.
        execution: how all of this is carried out.
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
        """Returns the same inner loop with other fields of `Execution`: `inner.executed(way=Way.LOOP)`."""
        return replace(self, execution=replace(self.execution, **changes))  # type: ignore[arg-type]  # any field


@dataclass(frozen=True)
class Outcome:
    """One meta-step's result, as parts of sums over processes.

    Attributes:
        gradients: of the mean query loss over the meta-batch's T episodes, by parameter name, for
            the groups in `InnerLoop.outer`; each has its parameter's shape.
        mean_fast: mean over T of phi' and head'; empty unless `InnerLoop.carry`.
        last_fast: phi' and head' of the last episode, zeros where another process holds it; empty likewise.
        query_loss: (T,) nats per unit after adaptation, zero where another process holds the episode.
        support_loss: (T, 2) support loss before the first and before the last inner step, zero likewise.
    """

    gradients: Params
    mean_fast: Params
    last_fast: Params
    query_loss: torch.Tensor
    support_loss: torch.Tensor

    def __iadd__(self, part: Outcome) -> Outcome:
        """Adds a part. Tensors of this outcome are released one by one, so that no third set of gradients exists."""
        for sums, own in (
            (self.gradients, part.gradients),
            (self.mean_fast, part.mean_fast),
            (self.last_fast, part.last_fast),
        ):
            for name, value in own.items():
                # A new tensor, because two gradients may be one and the same.
                sums[name] = sums[name] + value
        losses = self.query_loss + part.query_loss, self.support_loss + part.support_loss
        return replace(self, query_loss=losses[0], support_loss=losses[1])


class MetaStep(Protocol):
    """A learner's meta-step: reads values, writes none, and returns what the outer step needs."""

    def __call__(self, loss: Loss, backbone: Params, start: Params, episodes: Episodes, inner: InnerLoop, /) -> Outcome:
        """Computes the outer gradient of one meta-batch.

        Args:
            loss: `loss(backbone, fast, batch)`, scalar () for one episode. Under `Way.ONE_PASS` it is
                given `fast` and `batch` with a leading T and returns (T,).
            backbone: theta by name, each name behind `backbone.`.
            start: phi and head by name, behind `adapter.` and `head.`, each with a leading T; learned
                inner rates (T,) behind `rates.`.
            episodes: T episodes; every tensor has a leading T.
            inner: what moves, and how.

        Returns:
            The outcome; its gradients are those of the groups in `inner.outer`.

        Raises:
            MetaprimeError: the loss does not depend on a parameter of an outer group.
        """
        ...


def unpooled(episodes: Episodes) -> Episodes:
    """Returns the episodes as they are: the default of `Learner.passes`."""
    return episodes


@dataclass(frozen=True)
class Learner:
    """One way to prime.

    Attributes:
        step: its meta-step.
        formula: one line for readers.
        inner: groups that its inner loop moves; empty: it has none, and is ordinary training.
        outer: groups that its outer step always moves. A learner with an inner loop adds phi and head
            where `outer.adapter` and `outer.head` say `meta`; one without moves exactly these.
        second_order: whether it can differentiate through its inner loop.
        adapts_on_query: whether the query batch is one more inner step, and not a held-out loss.
        passes: the batches that it really works on, computed from the episodes.
        reads_labels: whether it learns from labels; otherwise from masked text, with the encoder's own
            masked-word head.
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
        """Runs the meta-step; arguments and result are those of `MetaStep`."""
        return self.step(loss, backbone, start, episodes, inner)

    @property
    def adapts(self) -> bool:
        """Whether it has an inner loop."""
        return bool(self.inner)

    @property
    def simulates(self) -> Literal["full", "peft"] | None:
        """Fine-tuning that its training practises: `full`, or with the config's section `peft`, or None for neither."""
        # Masked words are learned with a head that no transfer keeps, without a task: no way to fine-tune is practised.
        if not self.reads_labels:
            return None
        return "full" if "backbone" in (self.inner or self.outer) else "peft"

    @property
    def injects(self) -> bool:
        """Whether it needs PEFT modules in the encoder."""
        return self.adapts or "adapter" in self.outer


def in_groups(names: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Returns the parameter names that belong to one of the groups, in their order.

    Example: `in_groups(["backbone.w", "head.b"], ("head",))` is `["head.b"]`.
    """
    return [name for name in names if name.split(".", 1)[0] in groups]
