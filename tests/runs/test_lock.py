"""One run at a time in a directory, and what is said to the second."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from metaprime.runs.lock import locked
from metaprime.types import MetaprimeError

HOLD = """
import sys, time
from pathlib import Path
from metaprime.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def enter(output: Path) -> None:
    with locked(output):
        pass


def test_the_lock_says_who_holds_it_and_goes_with_its_holder(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "run"
    with locked(output):
        note = json.loads((output / ".lock").read_text())
        assert (note["host"], note["pid"]) == (socket.gethostname(), os.getpid())
        with pytest.raises(
            MetaprimeError, match=rf"{output} is in use by process {os.getpid()} on .*, since {note['since'][:10]}"
        ):
            enter(output)
        # Who was refused takes nothing away.
        assert (output / ".lock").exists()
    # Folders that were made for the lock alone are not left.
    assert list(tmp_path.iterdir()) == []
    with locked(output):
        (output / "run.json").write_text("{}")
    assert [path.name for path in output.iterdir()] == ["run.json"]


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(
            MetaprimeError, match=rf"is in use by process {holder.pid} on .*wait for it, stop it, or choose"
        ):
            enter(tmp_path)
        holder.kill()
    assert (tmp_path / ".lock").exists()
    enter(tmp_path)
    assert not (tmp_path / ".lock").exists()


def test_a_lock_of_another_host_is_explained_and_left(tmp_path: Path) -> None:
    left = json.dumps({"host": "node17", "pid": 4242, "since": "2026-01-02 03:04:05 +0000"})
    (tmp_path / ".lock").write_text(left)
    for _ in range(2):
        with pytest.raises(
            MetaprimeError,
            match=rf"process 4242 on node17, since 2026-01-02 03:04:05.*remove {tmp_path}/\.lock and run",
        ):
            enter(tmp_path)
    assert (tmp_path / ".lock").read_text() == left
    (tmp_path / ".lock").unlink()
    enter(tmp_path)


@pytest.mark.parametrize("alive", [True, False])
def test_where_the_file_system_knows_no_locks_the_process_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: bool
) -> None:
    def unknown(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    pid = os.getppid()
    if not alive:
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        pid = ended.pid
    (tmp_path / ".lock").write_text(json.dumps({"host": socket.gethostname(), "pid": pid, "since": "then"}))
    if alive:
        with pytest.raises(MetaprimeError, match=rf"process {pid} on .*remove"):
            enter(tmp_path)
    else:
        enter(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_lock_that_was_never_written_to_the_end_is_free(tmp_path: Path, content: str) -> None:
    (tmp_path / ".lock").write_text(content)
    enter(tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*parts: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(MetaprimeError, match=rf"cannot write {tmp_path}/run: No space left"):
        enter(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
