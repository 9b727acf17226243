"""The learners, as a table of values."""

from __future__ import annotations

from metaprime.meta.learner import GROUPS, Learner
from metaprime.meta.maml import episode_gradients
from metaprime.meta.multitask import pooled, step

ANIL = Learner(
    step=episode_gradients,
    formula="head' = head - alpha dL_support/dhead (n times); theta <- theta - beta dL_query(theta, head')/dtheta",
    inner=("head",),
)


MAML = Learner(
    step=episode_gradients,
    formula="theta', phi' = theta, phi - alpha dL_support (n times); theta <- theta - beta dL_query(theta', phi')",
    inner=GROUPS,
)


PEFT_MAML = Learner(
    step=episode_gradients,
    formula="phi' = phi - alpha dL_support/dphi (n times); theta <- theta - beta dL_query(theta, phi')/dtheta",
    inner=("adapter", "head"),
)


INNER_PEFT = Learner(
    step=episode_gradients,
    formula="phi' = phi - alpha dL_support/dphi (n times); theta <- theta - beta dL_query(theta, phi')/dtheta",
    inner=("adapter",),
)


MASKED_WORDS = Learner(
    step=step,
    formula="theta, LM head <- theta, LM head - beta dL_masked/d(theta, LM head)",
    outer=("backbone", "head"),
    passes=pooled,
    reads_tags=False,
)


MULTITASK_PEFT = Learner(
    step=step,
    formula="phi, head <- phi, head - beta dL/d(phi, head)",
    outer=("adapter", "head"),
    passes=pooled,
)
