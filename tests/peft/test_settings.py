"""Settings of methods, declared apart from their hooks."""

from __future__ import annotations

from metaprime.peft import METHODS, settings_of
from metaprime.peft.settings import SETTINGS


def test_settings_are_those_of_the_method() -> None:
    assert {name: method.config for name, method in METHODS.items()} == SETTINGS
    for name, method in METHODS.items():
        assert settings_of(name) is method.config
