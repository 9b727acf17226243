"""Moves theta and phi: the algorithm (`maml.py`), its learners (`learners.py`) and how they are carried out."""

from metaprime.meta.learner import Execution, InnerLoop, Learner, MetaStep, Outcome, Way
from metaprime.meta.learners import LEARNERS

__all__ = ["LEARNERS", "Execution", "InnerLoop", "Learner", "MetaStep", "Outcome", "Way"]
