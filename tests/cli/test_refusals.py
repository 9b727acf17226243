"""Refusals that need no model: quick, because torch and transformers are not loaded for them."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "accelerate", "datasets", "seqeval")
CPU_S = 1.5
"""Longest CPU time of a refusal, user and system, in seconds."""

REFUSALS = {
    "no config": ("prime", "none.yaml"),
    "not YAML": ("prime", "broken.yaml"),
    "unknown section": ("prime", "good.yaml", "iner.steps=1"),
    "misspelt key": ("transfer", "good.yaml", "inner.stepz=1"),
    "misspelt key of a method": ("prime", "good.yaml", "peft={method: lora, rnk: 4}"),
    "misspelt key of the task": ("prime", "good.yaml", "task.lables=[PER]"),
    "wrong value": ("estimate", "good.yaml", "outer.lr=-1"),
    "wrong value of a method": ("doctor", "good.yaml", "--gradients", "peft={method: mam, prefix: {length: 0}}"),
    "no such method": ("prime", "good.yaml", "peft.method=lra"),
    "no such method to transfer with": ("transfer", "good.yaml", "transfer.methods=[lra]"),
    "no such learner": ("prime", "good.yaml", "learner.name=mamll"),
    "no such task": ("prime", "good.yaml", "task.name=parsing"),
    "wrong time": ("prime", "good.yaml", "--max-time", "soon"),
    "unknown option": ("prime", "good.yaml", "--resum"),
    "unknown command": ("primee",),
    "demo without config": ("demo", "none.yaml"),
    "demo with an override": ("demo", "outer.stepz=5"),
    "wrong seeds": ("demo", "good.yaml", "--seeds", "x"),
    "no suite": ("ablate", "none.yaml"),
    "suite without arms": ("ablate", "suite.yaml"),
    "misspelt key of a suite": ("ablate", "misspelt.yaml"),
    "no corpus": ("data", "check", "conll:none"),
    "no scheme": ("data", "check", "conl:none"),
    "no suite's folder": ("report", "none"),
    "no cell": ("predict", "none", "Ada naps"),
    "no cell in it": ("predict", ".", "Ada naps"),
    "no cell to export": ("peft", "export", "none", "out"),
    "no encoder": ("peft", "show", "lora"),
    "no such method to show": ("peft", "show", "lra", "--encoder", "none"),
}
"""What is wrong -> words of a command, in `place`."""

FILES = {
    "good.yaml": "inner: {steps: 2}\n",
    "broken.yaml": "inner: {steps: 2\n",
    "suite.yaml": "name: none\nbase: good.yaml\narms: []\n",
    "misspelt.yaml": "name: one\nbase: good.yaml\narms: [{name: meta}]\nsedes: [0]\n",
}

PROBE = """
import json, sys
from metaprime.cli.app import main
found = {}
commands, heavies = map(json.loads, sys.argv[1:])
for name, words in commands.items():
    sys.argv = ["metaprime", *words]
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    found[name] = [code, [heavy for heavy in heavies if heavy in sys.modules]]
print(json.dumps(found))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the files that the commands name."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


def test_no_refusal_loads_torch(place: Path) -> None:
    """One process for all of them: the first one that loads a heavy package is named."""
    words = [sys.executable, "-c", PROBE, json.dumps(REFUSALS), json.dumps(HEAVY)]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {name: tuple(ended) for name, ended in found.items()} == dict.fromkeys(REFUSALS, (2, []))
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_costs_little(name: str, place: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, "-m", "metaprime", *REFUSALS[name]]
    done = subprocess.run(words, cwd=place, env=os.environ, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip()
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime <= CPU_S
