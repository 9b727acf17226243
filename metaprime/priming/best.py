"""Keeps the weights that score best on the held-out languages so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from metaprime.models.task_model import assign
from metaprime.priming.guards import REMEDY
from metaprime.runs.checkpoint import Checkpoint, load_best, save_best
from metaprime.transfers.held_out import Validation
from metaprime.types import MetaprimeError, Params, State


@dataclass
class Best:
    """The best weights so far, which lie beside the checkpoints.

    Attributes:
        validation: the held-out languages; None: nothing is validated, and the last weights are taken.
        folder: of the checkpoints.
        accelerator: each process scores its share of the languages.
        score: the mean headline metric of the best weights; None before the first look.
        steps: meta-steps after which they were found.
    """

    validation: Validation | None
    folder: Path
    accelerator: Accelerator
    score: float | None = None
    steps: int = 0

    def look(self, state: State, weights: Params, steps: int) -> dict[str, Any]:
        """Scores the held-out languages after so many meta-steps, and keeps the weights if they are the best so far.

        Args:
            state: what priming has made of theta, phi and head.
            weights: everything that is kept.
            steps: meta-steps done.

        Returns:
            Entries of a line of metrics.jsonl.

        Raises:
            MetaprimeError: fine-tuning on a held-out language failed.
        """
        assert self.validation
        context = self.validation.context
        # Some of the encoder's parameters are none of priming's.
        backbone = {**context.backbone, **state.backbone}
        lr, shots = context.settings.lr[0], context.settings.shots[0]
        try:
            score = self.validation.mean(backbone, {**state.adapter, **state.head}, lr, shots, self.accelerator)
        except MetaprimeError as error:
            raise MetaprimeError(f"validation at step {steps}: {error}; or {REMEDY}") from None
        rank = context.task.kind.metric.rank
        # Of equals the later one: it has seen more.
        if self.score is None or rank(score) >= rank(self.score):
            self.score, self.steps = score, steps
            if self.accelerator.is_main_process:
                save_best(self.folder, Checkpoint(steps, weights, {"score": score}))
        return {context.task.kind.validation_key: score, "best_step": self.steps}

    def saved(self) -> list[float] | None:
        """Returns what a checkpoint keeps of it."""
        return None if self.score is None else [self.score, self.steps]

    def restore(self, saved: Any) -> None:
        """Takes over what a checkpoint kept; None: nothing was validated yet."""
        self.score, self.steps = saved or (None, 0)

    def put_back(self, model: Any, last: int) -> int:
        """Gives the model the best weights, if anything was validated; returns the meta-steps that led to what it has."""
        if self.score is None:
            return last
        assign(model, load_best(self.folder, self.steps).tensors)
        return self.steps


def validated(line: Mapping[str, Any]) -> float | None:
    """Returns the validation score in a line of metrics.jsonl, whichever task's; None in a line without one."""
    return next((float(value) for key, value in line.items() if key.startswith("validation_")), None)
