"""What a learner is: a pure function from (theta, starting phi and head, episodes) to gradients and adapted values.

Everything in an `Outcome` is this process's part of a sum: added over processes it is the whole meta-batch's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch

from metaprime.types import Choose, Loss, MetaBatch, Params, Project


@dataclass(frozen=True)
class Settings:
    """How the inner loop runs.

    Attributes:
        inner_lr: alpha, step size of the inner loop; the initial one where `rates` are learned.
        inner: which of `backbone`, `adapter`, `head` the inner loop moves.
        optimizer: `sgd`, or `adam` with betas 0.9, 0.999.
        clip: largest norm of an episode's inner gradient; None: any.
        micro: at most this many windows of a support batch at once, gradients added up; None: all.
        second_order: differentiate through the inner loop; otherwise phi' is taken as a constant (first order).
        batched: adapt episodes together; otherwise one after another.
        together: of `batched`: in one pass whose modules and loss take a leading T; otherwise by `torch.func.vmap`.
        chunk: at most this many episodes together, which bounds memory; None: all.
        subwords: of `batched`: episodes go together in the parts that take least time (`parts`), none with a batch of more
            than this many, padding included, but for an episode by itself; None: neighbours, however long.
        outer: which of `backbone`, `adapter`, `head` and `rates` receive an outer gradient.
        carry: whether adapted values are wanted.
        choose: what of an episode is chosen by its support sentences, before the first step.
        project: brings what was moved back to where it may be, after every step.
    """

    inner_lr: float
    inner: tuple[str, ...] = ("adapter", "head")
    optimizer: str = "sgd"
    clip: float | None = None
    micro: int | None = None
    second_order: bool = False
    batched: bool = True
    together: bool = False
    chunk: int | None = None
    subwords: int | None = None
    outer: tuple[str, ...] = ("backbone",)
    carry: bool = False
    choose: Choose | None = None
    project: Project | None = None


@dataclass(frozen=True)
class Outcome:
    """One meta-step's result, as parts of sums over processes.

    Attributes:
        gradients: of the mean query loss over the meta-batch's T episodes, by parameter name, for `Settings.outer`.
        mean_fast: mean over T of phi' and head'; empty unless `Settings.carry`.
        last_fast: phi' and head' of the last episode, zeros where another process holds it; empty likewise.
        query_loss: (T,) nats per labelled sub-word after adaptation, zero where another process holds the episode.
        support_loss: (T, 2) support loss of the first and of the last inner step, zero likewise.
    """

    gradients: Params
    mean_fast: Params
    last_fast: Params
    query_loss: torch.Tensor
    support_loss: torch.Tensor


GROUPS = ("backbone", "adapter", "head")

MetaStep: TypeAlias = Callable[[Loss, Params, Params, MetaBatch, Settings], Outcome]
"""`step(loss, backbone, start, batch, settings)`: `start` holds phi and head with a leading episode dimension."""


@dataclass(frozen=True)
class Learner:
    """A way to prime.

    Attributes:
        step: its meta-step.
        formula: one line for people.
        inner: what its inner loop moves; nothing: it has none, and is ordinary training.
        outer: what its outer step always moves. To this a learner with an inner loop adds phi and head where
            `outer.adapter` and `outer.head` say `meta`; one without moves exactly these.
        second_order: whether it can differentiate through its inner loop.
        passes: a meta-batch as it works through it: as it is, or an episode's batches as one.
        reads_tags: whether it learns from the sentences' tags; otherwise from their masked text, with the encoder's own
            masked-word head.
    """

    step: MetaStep
    formula: str
    inner: tuple[str, ...] = ()
    outer: tuple[str, ...] = ("backbone",)
    second_order: bool = True
    passes: Callable[[MetaBatch], MetaBatch] = lambda batch: batch
    reads_tags: bool = True

    @property
    def adapts(self) -> bool:
        """Whether it has an inner loop."""
        return bool(self.inner)

    @property
    def simulates(self) -> Literal["full", "peft"] | None:
        """Fine-tuning that its training practises: `full`, or with the config's section `peft`, or None for neither."""
        # Masked words are learned with a head that no transfer keeps, without a task: no way to fine-tune is practised.
        if not self.reads_tags:
            return None
        return "full" if "backbone" in (self.inner or self.outer) else "peft"

    @property
    def injects(self) -> bool:
        """Whether it needs PEFT modules in the encoder."""
        return self.adapts or "adapter" in self.outer


def grouped(names: Sequence[str], groups: Sequence[str]) -> list[str]:
    """The parameter names that belong to one of the groups."""
    return [name for name in names if name.split(".", 1)[0] in groups]


def plus(total: Outcome, part: Outcome) -> Outcome:
    """The sum of two parts. What `total` holds is used up, tensor by tensor, so that no third set of gradients is there."""
    for sums, own in (
        (total.gradients, part.gradients),
        (total.mean_fast, part.mean_fast),
        (total.last_fast, part.last_fast),
    ):
        for name, value in own.items():
            sums[name] = sums[name] + value  # not in place: two gradients may be one tensor
    losses = total.query_loss + part.query_loss, total.support_loss + part.support_loss
    return replace(total, query_loss=losses[0], support_loss=losses[1])
