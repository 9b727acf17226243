"""Lists the learners, each with its equation.

A new learner is a value here or in a file of its own, and one line in `meta/__init__.py`: its name and place.
alpha is the inner step size, beta the outer one; a prime marks values after n inner steps.

A learner is a pure function that accepts any model whose parameters are named `backbone.*`,
`adapter.*` or `head.*` (`MetaStep.__call__` states every argument with its shape):

    >>> import torch
    >>> from torch.func import functional_call
    >>> from metaprime import learners
    >>> model = torch.nn.Sequential()
    >>> model.add_module("backbone", torch.nn.Linear(3, 4))
    >>> model.add_module("head", torch.nn.Linear(4, 2))
    >>> def loss(backbone, fast, batch):
    ...     outputs = functional_call(model, {**backbone, **fast}, (batch["x"],))
    ...     return torch.nn.functional.cross_entropy(outputs, batch["y"])
    >>> def batch():
    ...     return {"x": torch.randn(2, 5, 3), "y": torch.randint(2, (2, 5))}
    >>> values = {name: value.detach() for name, value in model.named_parameters()}
    >>> theta = {name: value for name, value in values.items() if name.startswith("backbone.")}
    >>> phi = {name: value.expand(2, *value.shape) for name, value in values.items() if name.startswith("head.")}
    >>> episodes = learners.Episodes(("de", "fr"), (0, 1), total=2, support=(batch(), batch()), query=batch())
    >>> outcome = learners.anil(loss, theta, phi, episodes, learners.InnerLoop(lr=0.1, moves=("head",)))
    >>> {name: tuple(gradient.shape) for name, gradient in outcome.gradients.items()}
    {'backbone.weight': (4, 3), 'backbone.bias': (4,)}
"""

from __future__ import annotations

from metaprime.meta.learner import GROUPS, Execution, InnerLoop, Learner, MetaStep, Outcome, Way
from metaprime.types import Episodes, Loss, Params

# A config is checked against its learner before torch is loaded, so each step is imported where it runs.


def _maml(loss: Loss, backbone: Params, start: Params, episodes: Episodes, inner: InnerLoop) -> Outcome:
    """Runs `meta.maml.step`. Args: as in `MetaStep`."""
    from metaprime.meta.maml import step

    return step(loss, backbone, start, episodes, inner)


def _reptile(loss: Loss, backbone: Params, start: Params, episodes: Episodes, inner: InnerLoop) -> Outcome:
    """Runs `meta.reptile.step`. Args: as in `MetaStep`."""
    from metaprime.meta.reptile import step

    return step(loss, backbone, start, episodes, inner)


def _multitask(loss: Loss, backbone: Params, start: Params, episodes: Episodes, inner: InnerLoop) -> Outcome:
    """Runs `meta.multitask.step`. Args: as in `MetaStep`."""
    from metaprime.meta.multitask import step

    return step(loss, backbone, start, episodes, inner)


def _pooled(episodes: Episodes) -> Episodes:
    """Runs `meta.multitask.pooled`: all T episodes' batches, each (T, B, ...), as query batches."""
    from metaprime.meta.multitask import pooled

    return pooled(episodes)


peft_maml = Learner(
    step=_maml,
    formula="phi' = phi - alpha dL_support/dphi (n times); theta <- theta - beta dL_query(theta, phi')/dtheta",
    inner=("adapter", "head"),
)
"""PEFT-MAML (Gheini et al. 2022, 2205.12453): adapter and head adapt, the backbone learns."""

inner_peft = Learner(
    step=_maml,
    formula="phi' = phi - alpha dL_support/dphi (n times); theta <- theta - beta dL_query(theta, phi')/dtheta",
    inner=("adapter",),
)
"""PEFT-MAML without the head in the inner loop: the outer loop learns it, or it stays as drawn."""

maml = Learner(
    step=_maml,
    formula="theta', phi' = theta, phi - alpha dL_support (n times); theta <- theta - beta dL_query(theta', phi')",
    inner=GROUPS,
)
"""MAML (Finn et al. 2017, 1703.03400): each episode adapts its own copy of everything. It simulates
full fine-tuning."""

anil = Learner(
    step=_maml,
    formula="head' = head - alpha dL_support/dhead (n times); theta <- theta - beta dL_query(theta, head')/dtheta",
    inner=("head",),
)
"""ANIL, almost no inner loop (Raghu et al. 2020, 1909.09157): the head alone adapts. It simulates
head tuning."""

reptile = Learner(
    step=_reptile,
    formula="theta', phi' = theta, phi - alpha dL (n + 1 times); theta <- theta + beta (theta' - theta)",
    inner=GROUPS,
    second_order=False,
    adapts_on_query=True,
)
"""Reptile (Nichol et al. 2018, 1803.02999): everything adapts, and the backbone moves towards its
adapted values."""

multitask = Learner(
    step=_multitask,
    formula="theta, head <- theta, head - beta dL/d(theta, head)",
    outer=("backbone", "head"),
    passes=_pooled,
)
"""Multi-task full fine-tuning, a control: the same sentences, no inner loop."""

multitask_peft = Learner(
    step=_multitask,
    formula="phi, head <- phi, head - beta dL/d(phi, head)",
    outer=("adapter", "head"),
    passes=_pooled,
)
"""Multi-task PEFT tuning, a control: theta is frozen, all languages train one adapter and head."""

masked_words = Learner(
    step=_multitask,
    formula="theta, LM head <- theta, LM head - beta dL_masked/d(theta, LM head)",
    outer=("backbone", "head"),
    passes=_pooled,
    reads_labels=False,
)
"""Continued masked language modelling, a control: the same sentences without their labels."""

_LEARNERS = [name for name, value in list(vars().items()) if isinstance(value, Learner)]

__all__ = ["Episodes", "Execution", "InnerLoop", "Learner", "MetaStep", "Outcome", "Way", *_LEARNERS]
