"""Continued masked language modelling, a control: the same sentences without their tags, backbone and masked-word head move.

What it primes knows the languages' text a little better, and nothing of the task.
"""

from metaprime.meta.learner import Learner
from metaprime.meta.multitask import pooled, step

LEARNER = Learner(
    step=step,
    formula="theta, LM head <- theta, LM head - beta dL_masked/d(theta, LM head)",
    outer=("backbone", "head"),
    passes=pooled,
    reads_tags=False,
)
