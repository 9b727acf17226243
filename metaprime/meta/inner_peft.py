"""The paper's learner with the head left out of the inner loop: phi alone adapts, the head is the outer loop's or fixed."""

from metaprime.meta.inner import episode_gradients
from metaprime.meta.learner import Learner

LEARNER = Learner(
    step=episode_gradients,
    formula="phi' = phi - alpha dL_support/dphi (n times); theta <- theta - beta dL_query(theta, phi')/dtheta",
    inner=("adapter",),
)
