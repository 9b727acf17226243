"""Costs of a process are its own, and one that fails ends the benchmark."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from processes import Program, run_measured

BUSY = "import time", "exec('while time.process_time() < 0.3: pass')"


def test_cpu_seconds_imports_and_peak_are_those_of_the_process(tmp_path: Path) -> None:
    mebibytes = 64
    held = f"held = bytearray({mebibytes} * 2**20); import time; exec('while time.process_time() < 0.3: pass')"
    cost = run_measured(Program(held, "print(sys.argv[1:], __import__('os').getcwd())"), ["a", "b"], tmp_path)
    assert cost.output == f"['a', 'b'] {tmp_path}\n"
    assert 0.3 <= cost.imports <= cost.cpu < 2
    # The memory of this process, which has loaded torch, does not count.
    assert mebibytes < cost.peak < mebibytes + 64
    assert cost.clock > 0.3


def test_the_exit_code_is_the_expected_one() -> None:
    program = Program("import sys", "sys.exit(2)")
    assert run_measured(program, [], expected=2).cpu > 0
    with pytest.raises(SystemExit, match=r"sys.exit\(2\) a word: exit code 2"):
        run_measured(program, ["a word"])


def test_time_after_the_imports_is_not_theirs() -> None:
    cost = run_measured(Program(*BUSY, python=sys.executable), [])
    assert cost.imports < 0.3 <= cost.cpu
