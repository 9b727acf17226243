"""Computes meta-steps: the algorithm (`maml.py`), the learners (`learners.py`), their execution."""

from metaprime.meta.learner import Execution, InnerLoop, Learner, MetaStep, Outcome, Way
from metaprime.meta.learners import LEARNERS

__all__ = ["LEARNERS", "Execution", "InnerLoop", "Learner", "MetaStep", "Outcome", "Way"]
