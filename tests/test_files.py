"""Files that are whole or not there, whatever interrupts their writing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from toy_permissions import Forbid

from metaprime.files import check_readable, discard, file_mode, save_tensors, sweep, write_json, written_aside
from metaprime.types import MetaprimeError


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
    for stray in (".best.123.partial", ".best.77.gone", ".cell.5.gone"):
        (tmp_path / stray).mkdir()
        (tmp_path / stray / "tensors").write_text("half")
    (tmp_path / ".run.json.77.partial").write_text("{")
    others = [".best.x.partial", ".bestow.12.partial", ".best.more.5.gone", "best.9", ".run.json.77", ".nfs000.1"]
    for name in others:
        (tmp_path / name).write_text("not of that name")
    with written_aside(tmp_path / "best") as aside:
        (aside / "tensors").write_text("whole")
    write_json(tmp_path / "run.json", {})
    assert names(tmp_path) == sorted([*others, ".cell.5.gone", "best", "run.json"])
    sweep(tmp_path)  # all names: what bears no process's number is still not ours
    assert names(tmp_path) == sorted([".best.x.partial", "best.9", ".run.json.77", ".nfs000.1", "best", "run.json"])
    sweep(tmp_path / "nowhere")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("killed_at", [0, 1])
def test_a_folder_that_was_being_replaced_is_there_after_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    folder = tmp_path / "cell"
    with written_aside(folder) as aside:
        (aside / "record").write_text("old")
    done: list[object] = []
    honest = os.replace

    def killed(source: Path, target: Path) -> None:
        if len(done) == killed_at:
            raise Stop
        done.append(honest(source, target))

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        with pytest.raises(Stop), written_aside(folder) as aside:
            (aside / "record").write_text("new")
    assert folder.exists() == (killed_at == 0)
    sweep(tmp_path)
    assert tree(tmp_path) == {"cell/record": b"old"}


@pytest.mark.parametrize("killed", [False, True])
def test_a_discarded_folder_is_never_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool) -> None:
    (tmp_path / "primed").mkdir()
    (tmp_path / "primed" / "weights").write_text("w")
    (tmp_path / "notes").write_text("n")
    if killed:
        monkeypatch.setattr(shutil, "rmtree", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            discard(tmp_path / "primed")
        monkeypatch.undo()
        assert not (tmp_path / "primed").exists()
        sweep(tmp_path)
    else:
        discard(tmp_path / "primed")
    assert names(tmp_path) == ["notes"]
    discard(tmp_path / "notes")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Disk quota exceeded"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (SafetensorError("I/O error: File too large (os error 27)"), "File too large"),
    ],
)
def test_a_write_that_fails_says_which_and_what_to_do(tmp_path: Path, error: Exception, words: str) -> None:
    def failing() -> None:
        with written_aside(tmp_path / "step-1") as aside:
            (aside / "tensors").write_text("half")
            raise error

    with pytest.raises(MetaprimeError, match=rf"cannot write {tmp_path}/step-1: .*{words}.*make room there.*again"):
        failing()
    assert names(tmp_path) == []


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


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660), (0o077, 0o600)])
def test_weights_have_the_mode_that_the_umask_gives(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        assert file_mode(tmp_path) == mode
        with written_aside(tmp_path / "cell") as aside:
            save_tensors({"head.bias": torch.zeros(2)}, aside / "values.safetensors")
            (aside / "deep").mkdir()
            save_tensors({"head.bias": torch.zeros(2)}, aside / "deep" / "model.safetensors")
            write_json(aside / "record.json", {})
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {mode}


def test_without_permission_is_neither_missing_nor_damaged(tmp_path: Path, forbid: Forbid) -> None:
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell" / "values").write_text("v")
    for place in (tmp_path / "cell", tmp_path / "cell" / "values", tmp_path / "nowhere" / "values"):
        check_readable(place)
    forbid(tmp_path / "cell" / "values")
    for place in (tmp_path / "cell", tmp_path / "cell" / "values"):
        with pytest.raises(MetaprimeError, match=r"cell/values: permission denied: .*chmod.*another path"):
            check_readable(place)
    forbid(tmp_path / "cell")
    with pytest.raises(MetaprimeError, match=r"/cell: permission denied"):
        check_readable(tmp_path / "cell" / "values")
