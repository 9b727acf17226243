"""How theta and phi move. A new learner is one file with a LEARNER and one line here."""

from metaprime.meta import multitask, peft_maml
from metaprime.meta.learner import Learner, MetaStep, Outcome, Settings

LEARNERS: dict[str, Learner] = {
    "peft_maml": peft_maml.LEARNER,
    "multitask": multitask.LEARNER,
}

__all__ = ["LEARNERS", "Learner", "MetaStep", "Outcome", "Settings"]
