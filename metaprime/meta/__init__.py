"""How theta and phi move. A new learner is one file with a LEARNER and one line here."""

from metaprime.meta import anil, inner_peft, maml, masked_words, multitask, multitask_peft, peft_maml, reptile
from metaprime.meta.learner import Learner, MetaStep, Outcome, Settings

LEARNERS: dict[str, Learner] = {
    "peft_maml": peft_maml.LEARNER,
    "inner_peft": inner_peft.LEARNER,
    "maml": maml.LEARNER,
    "anil": anil.LEARNER,
    "reptile": reptile.LEARNER,
    "multitask": multitask.LEARNER,
    "multitask_peft": multitask_peft.LEARNER,
    "masked_words": masked_words.LEARNER,
}

__all__ = ["LEARNERS", "Learner", "MetaStep", "Outcome", "Settings"]
