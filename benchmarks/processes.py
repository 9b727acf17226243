"""Measures Python programs that run in a new process each."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

WATCHED = """import json, sys, time
figures = sys.argv.pop(1)
{imports}
imported = time.process_time()
try:
    {call}
finally:
    with open("/proc/self/status") as lines:
        peak = next(line for line in lines if line.startswith("VmHWM"))
    with open(figures, "w") as file:
        json.dump({{"imports": imported, "peak": int(peak.split()[1]) / 1024}}, file)
"""
"""Program that measures itself: a peak that the parent reads (`wait4`) counts from the parent's own memory."""


@dataclass(frozen=True)
class Program:
    """A call in Python, and what is imported before it.

    Attributes:
        imports: one line of imports, whose cost is measured apart.
        call: one line that reads `sys.argv`.
        python: the interpreter.
    """

    imports: str
    call: str
    python: str = sys.executable


COMMAND = Program("from metaprime.cli.app import main", "main()")
"""The command `metaprime`; it imports what a subcommand needs when it runs."""


@dataclass(frozen=True)
class Measured:
    """The cost of one process.

    Attributes:
        imports: CPU seconds until everything is imported, from the start of the interpreter.
        cpu: CPU seconds of the whole process.
        clock: seconds of the whole process.
        peak: largest resident memory in MiB.
        output: its standard output.
    """

    imports: float
    cpu: float
    clock: float
    peak: float
    output: str


def run_measured(
    program: Program,
    arguments: Sequence[str],
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    expected: int = 0,
) -> Measured:
    """Runs a program, torch on one thread, and returns what it cost: `run_measured(COMMAND, ["--version"]).cpu`.

    Args:
        program: the program.
        arguments: its command line.
        folder: working directory; None: that of this process.
        environment: variables beside those of this process.
        expected: exit code without which the benchmark ends.
    """
    code = WATCHED.format(imports=program.imports, call=program.call)
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    with tempfile.NamedTemporaryFile() as figures:
        command = [program.python, "-c", code, figures.name, *arguments]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
        clock, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != expected:
            line = " ".join((program.call, *arguments))
            raise SystemExit(f"{line}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        own = json.loads(Path(figures.name).read_text(encoding="utf-8"))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(own["imports"], cpu, clock, own["peak"], done.stdout)
