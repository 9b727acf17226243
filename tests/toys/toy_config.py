"""A config that primes a toy in half a second, and the parts that a run is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from metaprime.config.sections import Config, TransferConfig
from metaprime.data.rows import Row
from metaprime.models.task_model import TaskModel
from metaprime.tasks.task import Task
from metaprime.transfers.start import KShotRun, TransferContext, context_over
from metaprime.types import Params, State

TINY = (
    "data.source=synthetic:",
    "data.languages=[qaa, qaf]",
    "data.validation_languages=[qac]",
    "data.target_languages=[qai]",
    "episodes.per_step=2",
    "episodes.support=2",
    "episodes.query=4",
    "inner.steps=2",
    "inner.lr=0.3",
    "outer.steps=4",
    "outer.lr=1e-3",
    "outer.warmup=0.1",
    "outer.adapter=meta",
    "outer.head=meta",
    "outer.validate_every=2",
    "outer.checkpoint_every=2",
    "peft.bottleneck=4",
    "transfer.shots=8",
    "transfer.steps=4",
    "transfer.batch=4",
    "transfer.lr=[0.01, 0.003, 0.03]",
    "transfer.test_sentences=20",
)


MakeConfig = Callable[..., Config]


@dataclass(frozen=True)
class Parts:
    """What a loop holds: config, task, model with adapter and head drawn, its state, and training rows."""

    config: Config
    task: Task
    model: TaskModel
    state: State
    rows: list[Row]

    @property
    def start(self) -> Params:
        """Adapter and head as the model has them."""
        return {**self.state.adapter, **self.state.head}

    def context(self, settings: TransferConfig, model: TaskModel | None = None) -> TransferContext:
        """What fine-tunings with these settings share."""
        return context_over(model or self.model, self.task, self.config.peft, settings, {})


def started_at(start: Params, rows: Sequence[Row], seed: int = 3, language: str = "qaa") -> KShotRun:
    """A fine-tuning that starts from given values."""
    return KShotRun(rows, seed, language, lambda: start)
