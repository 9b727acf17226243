"""Multi-task PEFT tuning, a control: the same sentences, no inner loop, theta frozen, phi and head trained on all languages.

Transfer from what it learned (`transfer.start_adapter: primed`), or see what is left when it is thrown away: nothing.
"""

from metaprime.meta.learner import Learner
from metaprime.meta.multitask import pooled, step

LEARNER = Learner(
    step=step,
    formula="phi, head <- phi, head - beta dL/d(phi, head)",
    outer=("adapter", "head"),
    passes=pooled,
)
