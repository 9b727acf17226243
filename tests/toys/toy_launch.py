"""Runs a command in two processes on CPUs, as `accelerate launch` does for users."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path


def start(*words: str) -> subprocess.Popen[str]:
    """`accelerate launch` of two CPU processes, as the handbook has it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return subprocess.Popen(
        [
            str(Path(sys.executable).with_name("accelerate")),
            *("launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"),
            *("--dynamo_backend", "no", "--main_process_port", str(port), *words),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )


def launch(*words: str) -> subprocess.CompletedProcess[str]:
    """The same, to its end."""
    with start(*words) as launched:
        out, err = launched.communicate(timeout=240)
    return subprocess.CompletedProcess(launched.args, launched.returncode, out, err)
