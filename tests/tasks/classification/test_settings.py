"""Settings of classification: what contradicts itself is refused with the key and a remedy."""

from __future__ import annotations

import pytest

from metaprime.config.loading import load_config
from metaprime.tasks.classification.settings import ClassificationConfig
from metaprime.types import MetaprimeError


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, r"task\.labels is \[\]: list at least two classes"),
        ({"labels": ("good",)}, r"list at least two classes"),
        ({"labels": ("good", "good")}, "names 'good' twice"),
        ({"labels": ("good", " ")}, "' ' is no name"),
        ({"labels": ("good", "bad"), "label_map": {1: "fine"}}, r"maps '1' to 'fine', which is not in task\.labels"),
        ({"labels": ("good", "bad"), "pair": "text"}, r"task\.text and task\.pair name one column"),
        (
            {"labels": ("a", "b", "c"), "metric": "f1"},
            r"task\.metric f1 is the F1 of the last of two classes, but .* has 3",
        ),
    ],
)
def test_what_does_not_do(settings: dict[str, object], told: str) -> None:
    with pytest.raises(MetaprimeError, match=told):
        ClassificationConfig.model_validate(settings).check()


def test_numbers_are_classes_in_a_config() -> None:
    words = ["task={name: classification, labels: [bad, good], label_map: {0: bad, 1: good}, pair: hypothesis}"]
    task = load_config(None, words).task
    assert isinstance(task, ClassificationConfig)
    assert task.label_map == {"0": "bad", "1": "good"}
    assert task.columns == {"task.text": "text", "task.pair": "hypothesis", "task.label": "label"}
    assert task.texts == ("text", "hypothesis")
    task.check()
