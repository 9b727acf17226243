"""ANIL (Raghu et al. 2020), almost no inner loop: only the head adapts; theta learns, phi where `outer.adapter` says so.

It simulates head tuning.
"""

from metaprime.meta.inner import episode_gradients
from metaprime.meta.learner import Learner

LEARNER = Learner(
    step=episode_gradients,
    formula="head' = head - alpha dL_support/dhead (n times); theta <- theta - beta dL_query(theta, head')/dtheta",
    inner=("head",),
)
