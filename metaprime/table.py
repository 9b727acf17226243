"""Defines a table of choices: names, each with the place of its value, which is imported when it is first looked up.

Methods, learners and tasks need torch, which takes seconds to load. Whether a config names one that
there is should be known before.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping
from typing import TypeVar

T = TypeVar("T")


class Table(MutableMapping[str, T]):
    """Values by name, in the order of every list of them.

    Args:
        places: `module:NAME` of each value, by its name in configs.

    Example: `Table(lora="metaprime.peft.lora:LORA")["lora"]`; its names alone import nothing.
    """

    def __init__(self, **places: str) -> None:
        """Keeps the places; nothing is imported."""
        self._values: dict[str, str | T] = dict(places)

    def __getitem__(self, name: str) -> T:
        """Returns a value, and imports its module before the first time."""
        value = self._values[name]
        if not isinstance(value, str):
            return value
        module, _, attribute = value.partition(":")
        found: T = getattr(importlib.import_module(module), attribute)
        self._values[name] = found
        return found

    def __setitem__(self, name: str, value: T) -> None:
        """Adds a value, or replaces one."""
        self._values[name] = value

    def __delitem__(self, name: str) -> None:
        """Removes a value."""
        del self._values[name]

    def __contains__(self, name: object) -> bool:
        """Tells whether a name is known, without importing its value."""
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        """Yields the names, without importing their values."""
        return iter(self._values)

    def __len__(self) -> int:
        """Returns the number of names."""
        return len(self._values)
