"""Lists the learners. The algorithm is in `maml.py`, their definitions in `learners.py`, their execution in `execution.py`.

A new learner is a value in `learners.py` or in a file of its own, and one line here: its name and place.
"""

from metaprime.meta.learner import Execution, InnerLoop, Learner, MetaStep, Outcome, Way
from metaprime.table import Table

LEARNERS: Table[Learner] = Table(
    peft_maml="metaprime.meta.learners:peft_maml",
    inner_peft="metaprime.meta.learners:inner_peft",
    maml="metaprime.meta.learners:maml",
    anil="metaprime.meta.learners:anil",
    reptile="metaprime.meta.learners:reptile",
    multitask="metaprime.meta.learners:multitask",
    multitask_peft="metaprime.meta.learners:multitask_peft",
    masked_words="metaprime.meta.learners:masked_words",
)
"""Learners by the name that the config key `learner.name` takes."""

__all__ = ["LEARNERS", "Execution", "InnerLoop", "Learner", "MetaStep", "Outcome", "Way"]
