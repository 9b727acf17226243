"""How theta and phi move. A new learner is one file with a LEARNER and one line here."""

from metaprime.meta import learners, multitask, reptile
from metaprime.meta.learner import Learner, MetaStep, Outcome, Settings

LEARNERS: dict[str, Learner] = {
    "peft_maml": learners.PEFT_MAML,
    "inner_peft": learners.INNER_PEFT,
    "maml": learners.MAML,
    "anil": learners.ANIL,
    "reptile": reptile.LEARNER,
    "multitask": multitask.LEARNER,
    "multitask_peft": learners.MULTITASK_PEFT,
    "masked_words": learners.MASKED_WORDS,
}

__all__ = ["LEARNERS", "Learner", "MetaStep", "Outcome", "Settings"]
