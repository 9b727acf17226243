"""Settings of tagging, declared apart from its head."""

from __future__ import annotations

from metaprime.tasks import TASKS, settings_of
from metaprime.tasks.tagging.settings import TaggingConfig


def test_settings_are_those_of_the_task() -> None:
    assert settings_of("tagging") is TASKS["tagging"].config is TaggingConfig
    assert {name: settings_of(name) for name in TASKS} == {name: kind.config for name, kind in TASKS.items()}
