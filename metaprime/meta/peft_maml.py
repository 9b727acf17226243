"""Gheini et al. 2022 (2205.12453): the inner loop moves PEFT parameters and the head only, as fine-tuning will; the
outer loop moves the backbone by the query loss at the adapted parameters.
"""

from metaprime.meta.inner import episode_gradients
from metaprime.meta.learner import Learner

LEARNER = Learner(
    step=episode_gradients,
    formula="phi' = phi - alpha dL_support/dphi (n times); theta <- theta - beta dL_query(theta, phi')/dtheta",
    inner=("adapter", "head"),
)
