"""Declares the settings of several classifications side by side, which are checked before torch is loaded."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from metaprime.tasks.classification.settings import ClassificationConfig
from metaprime.tasks.texts.settings import PooledConfig
from metaprime.types import MetaprimeError


class ClassificationsConfig(PooledConfig):
    """Config of several classifications, each with columns and classes of its own: a "language" is one of them.

    The head has the classes of all; an episode reads and moves those of its own task.
    """

    name: Literal["classifications"] = "classifications"

    tasks: dict[str, ClassificationConfig] = Field(default_factory=dict)
    """Settings of `classification` by the task's name, which stands among `data.languages` and its like:
    `{cola: {preset: glue/cola}, mrpc: {preset: glue/mrpc}}`. Their metrics, as presets set them, are not read."""

    only: str | None = None
    """The one of `tasks` whose texts `metaprime predict` reads; a transfer writes it into what it saves."""

    metric: Literal["accuracy", "macro_f1"] = "accuracy"
    """Number by which models are chosen and runs compared, the same for all tasks; the others are in the records."""

    def for_language(self, language: str) -> ClassificationsConfig:
        """Returns the config of what is tuned on one task: `config.for_language("cola").only` is `"cola"`."""
        return self.model_copy(update={"only": language})

    @property
    def own_heads(self) -> bool:
        """True: a task's classes are trained by its own texts alone."""
        return True

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns of the texts of the task that is predicted."""
        return self.predicted.texts

    @property
    def predicted(self) -> ClassificationConfig:
        """The task that is predicted: `only`, else the first by name."""
        return self.tasks[self.only or min(self.tasks)]

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of all tasks by their names, in the order of the head's outputs, such as `cola: acceptable`."""
        return tuple(of_task(name, label) for name, task in sorted(self.tasks.items()) for label in task.labels)

    @property
    def least_shots(self) -> int:
        """Smallest K but 0 for which the sample of each task has an example of each class."""
        return max((task.least_shots for task in self.tasks.values()), default=1)

    def check(self) -> None:
        """Refuses tasks that contradict themselves: `config.check()`.

        Raises:
            MetaprimeError: there is none, one contradicts itself or has a key that only `task` has, or `only` is none of them.
        """
        if not self.tasks:
            raise MetaprimeError("task.tasks is empty: give at least one, e.g. task.tasks: {cola: {preset: glue/cola}}")
        for name, task in self.tasks.items():
            try:
                task.check()
            except MetaprimeError as error:
                raise MetaprimeError(f"task.tasks: {name}: {error}") from None
            for key in ("pooling", "invalid", "shuffle_labels"):
                if getattr(task, key) != ClassificationConfig.model_fields[key].default:
                    raise MetaprimeError(
                        f"task.tasks: {name}: {key} is the same for all tasks: set task.{key}, if at all"
                    )
        if self.only is not None and self.only not in self.tasks:
            raise MetaprimeError(f"task.only {self.only!r} is none of {', '.join(self.tasks)}")

    def task_of(self, language: str) -> ClassificationConfig:
        """Returns the settings of one task, with the policy of all: `config.task_of("cola").labels`.

        Raises:
            MetaprimeError: `tasks` has no such task.
        """
        if language not in self.tasks:
            raise MetaprimeError(
                f"task.tasks has no {language}, which the section data names: add it, or name one of {', '.join(self.tasks)}"
            )

        return self.tasks[language].model_copy(update={"invalid": self.invalid})


def of_task(name: str, label: str) -> str:
    """Returns a class with its task before it: `of_task("cola", "acceptable")` is `"cola: acceptable"`."""
    return f"{name}: {label}"
