"""Files that are whole or not there, whatever interrupts their writing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from metaprime.files import write_json, written_aside


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Stop(Exception):
    pass


@pytest.mark.parametrize("there", [True, False])
def test_an_error_while_writing_leaves_what_was_there(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "primed"
    if there:
        with written_aside(folder) as aside:
            (aside / "weights").write_text("old")
    before = tree(tmp_path)

    def interrupted() -> None:
        with written_aside(folder) as aside:
            (aside / "weights").write_text("half of the n")
            assert tree(folder) == ({"weights": b"old"} if there else {})
            raise Stop

    with pytest.raises(Stop):
        interrupted()
    assert tree(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == (["primed"] if there else [])


def test_a_written_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with written_aside(tmp_path / "cell") as aside:
            (aside / "deep").mkdir()
            (aside / "deep" / name).write_text(name)
    assert tree(tmp_path) == {"cell/deep/two": b"two"}
    assert [path.name for path in tmp_path.iterdir()] == ["cell"]


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    for stray in (".best.123", ".best.old.123"):
        (tmp_path / stray).mkdir()
        (tmp_path / stray / "tensors").write_text("half")
    (tmp_path / ".run.json.77").write_text("{")
    others = [".best.x", ".bestow.12", ".best.more.5", "best.9", ".run.json.keep"]
    for name in others:
        (tmp_path / name).write_text("not ours")
    with written_aside(tmp_path / "best") as aside:
        (aside / "tensors").write_text("whole")
    write_json(tmp_path / "run.json", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "best", "run.json"])


def test_json_is_sorted_readable_and_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": "ж"})
    assert (tmp_path / "a.json").read_text("utf-8") == '{\n  "a": "ж",\n  "b": 1\n}\n'
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})

    def interrupted(source: object, target: object) -> None:
        raise Stop

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(Stop):
        write_json(tmp_path / "a.json", {"b": 2})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"a": "ж", "b": 1}
