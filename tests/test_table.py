"""Tables of choices: names without imports, values imported once, and what tests and own code add."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from metaprime.meta import LEARNERS
from metaprime.peft import METHODS
from metaprime.table import Table
from metaprime.tasks import TASKS


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that can be imported, and is not yet; its VALUE is 7."""
    (tmp_path / "table_module.py").write_text("VALUE = 7\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "table_module", raising=False)
    return "table_module"


def test_names_are_known_before_their_values_are_imported(module: str) -> None:
    table: Table[int] = Table(one=f"{module}:VALUE")
    assert (list(table), len(table), "one" in table, "two" in table) == (["one"], 1, True, False)
    assert module not in sys.modules
    assert table["one"] == 7
    assert module in sys.modules


def test_a_value_is_imported_once(module: str) -> None:
    table: Table[int] = Table(one=f"{module}:VALUE")
    assert table["one"] == 7
    sys.modules[module].VALUE = 8  # type: ignore[attr-defined]
    assert list(table.items()) == [("one", 7)]


def test_values_are_added_after_the_others_and_removed() -> None:
    table: Table[int] = Table(one="no.such.module:VALUE")
    table["two"] = 2
    assert list(table) == ["one", "two"]
    assert table["two"] == 2
    del table["one"]
    assert list(table.values()) == [2]
    with pytest.raises(KeyError):
        table["one"]


def test_every_place_of_the_package_has_the_value_of_its_name() -> None:
    assert {name: method.name for name, method in METHODS.items()} == {name: name for name in METHODS}
    assert {name: kind.name for name, kind in TASKS.items()} == {name: name for name in TASKS}
    from metaprime.meta import learners

    for name, learner in LEARNERS.items():
        assert learner is getattr(learners, name)
