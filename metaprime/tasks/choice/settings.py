"""Declares the settings of multiple choice, which are checked before torch is loaded."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from metaprime.tasks.texts.settings import TextsConfig, check_labels, named
from metaprime.types import MetaprimeError


class ChoiceConfig(TextsConfig):
    """Config of multiple choice: one of several texts continues or answers a text."""

    name: Literal["multiple_choice"] = "multiple_choice"

    choices: tuple[str, ...] = ("choice1", "choice2")
    """Columns of the choices."""

    label_map: dict[str, str] = Field(default_factory=dict)
    """Mapping of a corpus's answers to `choices`; without it an answer is the name of its column, or its
    number, counted from 0."""

    question: str | None = None
    """Column that tells what is asked about the text, whose values `questions` spells out; null: there is none."""

    questions: dict[str, str] = Field(default_factory=dict)
    """What is put behind the text for each value of the column `question`: `{cause: "What was the cause of this?"}`;
    empty: the value itself."""

    metric: Literal["accuracy"] = "accuracy"
    """Number by which models are chosen and runs compared."""

    @field_validator("label_map", mode="before")
    @classmethod
    def _by_name(cls, values: Any) -> Any:
        """Turns the numbers that YAML reads from keys into text."""
        return named(values)

    @property
    def columns(self) -> dict[str, str]:
        """The columns by the config key that names each."""
        question = {"task.question": self.question} if self.question is not None else {}
        choices = {f"task.choices[{number}]": name for number, name in enumerate(self.choices)}
        return {"task.text": self.text, **question, **choices, "task.label": self.label}

    @property
    def together(self) -> int:
        """Windows that follow one another and that the loss reads together: one for each choice."""
        return len(self.choices)

    @property
    def answers(self) -> tuple[str, ...]:
        """The columns of the choices, of which one is right."""
        return self.choices

    @property
    def spellings(self) -> dict[str, str]:
        """Column of the right choice by each answer that a corpus may have."""
        numbered = {str(number): name for number, name in enumerate(self.choices)}
        return {**numbered, **{name: name for name in self.choices}, **self.label_map}

    def check(self) -> None:
        """Refuses choices and columns that contradict each other.

        Raises:
            MetaprimeError: there are fewer than two choices, `label_map` leads to none of them, `questions` has no
                column, or two keys name one.

        Example: `ChoiceConfig().check()`.
        """
        if len(self.choices) < 2:
            raise MetaprimeError(
                f"task.choices is {list(self.choices)}: name the columns of at least two, e.g. "
                "task.choices: [choice1, choice2]"
            )
        if self.questions and self.question is None:
            raise MetaprimeError("task.questions needs the column of their names: set task.question, or leave it out")
        check_labels(self.choices, self.label_map, "task.choices")
        super().check()
