"""Refusals that need no model: quick, because torch and transformers are not loaded for them."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from toy_refusals import OFFLINE, REFUSALS, lay_out

HEAVY = ("torch", "transformers", "accelerate", "datasets", "seqeval", "scipy.stats")
CPU_S = 1.5
"""Longest CPU time of a refusal, user and system, in seconds."""

TIMED = list(REFUSALS)[::12]
"""Refusals that are timed, each in a process of its own."""

PROBE = """
import contextlib, functools, io, json, sys, typer.main
commands, heavies = map(json.loads, sys.stdin.read().splitlines())

class Guard:
    def find_spec(self, name, path=None, target=None):
        if name in heavies:
            raise ImportError(f"{name} is loaded")

sys.meta_path.insert(0, Guard())
typer.main.get_command = functools.cache(typer.main.get_command)
from metaprime.cli.app import main
found = {}
for name, words in commands.items():
    sys.argv = ["metaprime", *words]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    except Exception as error:
        code = repr(error)
    found[name] = [code, said.getvalue()]
print(json.dumps(found))
"""
"""Runs all commands in one process, in which heavy packages cannot be loaded; prints exit code and output of each."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the files that the commands name."""
    lay_out(tmp_path)
    return tmp_path


def test_no_refusal_loads_torch(place: Path) -> None:
    given = "\n".join(map(json.dumps, (REFUSALS, HEAVY)))
    words = [sys.executable, "-c", PROBE]
    done = subprocess.run(
        words, cwd=place, env={**os.environ, **OFFLINE}, input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == REFUSALS.keys()
    assert {name: code for name, (code, _) in found.items() if code != 2} == {}
    assert [name for name, (_, said) in found.items() if "rror" not in said or "Traceback" in said] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMED)
def test_a_refusal_costs_little(name: str, place: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, "-m", "metaprime", *REFUSALS[name]]
    done = subprocess.run(words, cwd=place, env={**os.environ, **OFFLINE}, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip()
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime <= CPU_S
