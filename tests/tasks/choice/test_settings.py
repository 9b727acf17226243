"""Settings of multiple choice: what contradicts itself is refused."""

from __future__ import annotations

from typing import Any

import pytest

from metaprime.tasks.choice.settings import ChoiceConfig
from metaprime.types import MetaprimeError

CONFIG = ChoiceConfig(choices=("a", "b", "c"))
ASKED = ChoiceConfig(
    question="question", questions={"cause": "What was the cause?", "effect": "What happened?"}, text="premise"
)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"choices": ("a",)}, r"task\.choices is \['a'\]: name the columns of at least two"),
        ({"choices": ("a", "a")}, "task.choices names 'a' twice"),
        ({"questions": {"cause": "Why?"}}, "task.questions needs the column of their names: set task.question"),
        ({"label_map": {"0": "z"}}, "task.label_map maps '0' to 'z', which is not in task.choices"),
        ({"text": "choice1"}, r"task\.text and task\.choices\[0\] name one column"),
    ],
)
def test_settings_that_contradict_each_other(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(MetaprimeError, match=told):
        ChoiceConfig.model_validate(changes).check()
