"""Saves the weights with the best score on the held-out languages so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from metaprime.config.sections import OuterConfig
from metaprime.models.task_model import assign
from metaprime.priming.guards import REMEDY
from metaprime.runs.checkpoint import Checkpoint, load_best, save_best
from metaprime.transfers.held_out import Validation
from metaprime.types import MetaprimeError, Params, State


def is_scored(step: int, outer: OuterConfig) -> bool:
    """Returns True if the held-out languages are scored after a meta-step: number N / 2, every Nth and the last.

    Example: `is_scored(99, OuterConfig(validate_every=100))` is True; steps are counted from 0.
    """
    return is_nth(step, outer.validate_every, outer.steps) or 2 * (step + 1) == outer.validate_every


def is_nth(step: int, every: int, steps: int) -> bool:
    """Returns True if a meta-step, counted from 0, is a multiple of `every` or the last: `is_nth(3, 2, 9)`."""
    return (step + 1) % every == 0 or step + 1 == steps


@dataclass
class Best:
    """The best weights so far, saved in the folder of the checkpoints.

    Attributes:
        validation: the held-out languages; None: no validation, and the last weights are kept.
        folder: folder of the checkpoints.
        accelerator: gives each process its share of the languages.
        score: mean headline metric of the best weights; None before the first validation.
        steps: meta-steps done when the best weights were saved.
        unprimed: score of the unprimed encoder; None if it was not scored.
        gained: meta-steps done when the score last rose; ties come later than it.
    """

    validation: Validation | None
    folder: Path
    accelerator: Accelerator
    score: float | None = None
    steps: int = 0
    unprimed: float | None = None
    gained: int = 0

    def look(self, state: State, weights: Params, steps: int) -> dict[str, Any]:
        """Scores the current weights on the held-out languages and saves them if they are the best.

        Args:
            state: current theta, phi and head, in the parameters' own shapes, such as (D, D).
            weights: tensors to save, by full name and in the same shapes.
            steps: meta-steps done.

        Returns:
            Entries for the step's line of metrics.jsonl: the score and the best step.

        Raises:
            MetaprimeError: fine-tuning on a held-out language failed.
        """
        assert self.validation
        context = self.validation.context
        # The state lacks the encoder's parameters that priming never moves, such as the pooler's.
        backbone = {**context.backbone, **state.backbone}
        lr, shots = context.settings.rates(context.method)[0], context.settings.shots[0]
        try:
            score = self.validation.mean(backbone, {**state.adapter, **state.head}, lr, shots, self.accelerator)
        except MetaprimeError as error:
            raise MetaprimeError(f"validation at step {steps}: {error}; or {REMEDY}") from None
        rank = context.task.kind.metric.rank
        if steps == 0:
            self.unprimed = score
        if self.score is None or rank(score) > rank(self.score):
            self.gained = steps
        # Ties go to the later weights, which have been trained on more.
        if self.score is None or rank(score) >= rank(self.score):
            self.score, self.steps = score, steps
            if self.accelerator.is_main_process:
                save_best(self.folder, Checkpoint(steps, weights, {"score": score}))
        return {context.task.kind.validation_key: score, "best_step": self.steps}

    def ends(self, steps: int, outer: OuterConfig) -> bool:
        """Returns True if priming ends after `steps` meta-steps: `outer.early_stop` scores in a row were no better.

        The scores are counted from the last gain on, so that a resumed run ends at the same step.

        Example: `Best(None, folder, accelerator).ends(3, OuterConfig())` is False.
        """
        if not outer.early_stop or self.score is None:
            return False
        return sum(is_scored(step, outer) for step in range(self.gained, steps)) >= outer.early_stop

    def saved(self) -> list[float | None] | None:
        """Returns score, step, unprimed score and step of the last gain; None before the first validation."""
        return None if self.score is None else [self.score, self.steps, self.unprimed, self.gained]

    def restore(self, saved: Any) -> None:
        """Restores what `saved` returned; None: no validation yet."""
        known: Sequence[Any] = saved or (None, 0)
        self.score, self.steps = known[:2]
        # Checkpoints of version 0.1 lack the unprimed score and the step of the last gain.
        self.unprimed = known[2] if len(known) > 2 else None
        self.gained = known[3] if len(known) > 3 else self.steps

    def put_back(self, model: Any, last: int) -> int:
        """Loads the best weights, if any, into the model; returns their step, else `last`."""
        if self.score is None:
            return last
        assign(model, load_best(self.folder, self.steps).tensors)
        return self.steps


def validated(line: Mapping[str, Any]) -> float | None:
    """Returns the validation score in a line of metrics.jsonl, for any task; None without one.

    Example: `validated({"step": 2, "validation_f1": 61.5})` is 61.5.
    """
    return next((float(value) for key, value in line.items() if key.startswith("validation_")), None)
