"""Vanilla MAML (Finn et al. 2017): the inner loop moves everything, backbone included, each episode its own copy.

It simulates full fine-tuning, not the PEFT that follows.
"""

from metaprime.meta.inner import episode_gradients
from metaprime.meta.learner import GROUPS, Learner

LEARNER = Learner(
    step=episode_gradients,
    formula="theta', phi' = theta, phi - alpha dL_support (n times); theta <- theta - beta dL_query(theta', phi')",
    inner=GROUPS,
)
