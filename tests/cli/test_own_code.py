"""Own code on the command line: primed and transferred with, in workers too, and never run because of a record."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
METHOD = re.search(
    r"^## Add a PEFT method\n.*?^```python\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.M | re.S
)
SMALL = (
    "encoder.pretrain={layers: 2, hidden: 16, heads: 2, vocabulary: 300, steps: 2, batch: 4, threads: 1}",
    "inner.steps=1",
    "outer.steps=1",
    "outer.validate_every=0",
    "transfer.methods=[scale_shift]",
    "transfer.steps=1",
    "transfer.lr=0.01",
    "transfer.test_sentences=10",
    "data.target_languages=[qai]",
)
SUITE = """
name: own
base: base.yaml
arms: [{name: none, priming: null}, {name: meta}]
seeds: [0]
contrasts: [[meta, none]]
"""


def metaprime(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "metaprime", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_method_of_ones_own_goes_all_the_way(tmp_path: Path) -> None:
    assert METHOD
    (tmp_path / "mine.py").write_text(METHOD[1], "utf-8")
    keys = [*SMALL, "run.code=mine.py", "peft.method=scale_shift", "run.output=out"]
    base = str(ROOT / "recipes" / "configs" / "smoke.yaml")
    for command in ("prime", "transfer"):
        done = metaprime(tmp_path, command, base, *keys)
        assert done.returncode == 0, done.stderr
    cell = next((tmp_path / "out" / "transfer" / "primed").glob("qai-scale_shift-*"))
    (recorded,) = (
        v for k, v in json.loads((cell / "record.json").read_text("utf-8"))["versions"].items() if "mine" in k
    )

    refused = metaprime(tmp_path, "predict", str(cell), "Ada naps .")
    assert refused.returncode == 2
    assert f"made with own code: mine.py (SHA-256 {recorded})" in refused.stderr
    allowed = metaprime(tmp_path, "predict", str(cell), "Ada naps .", "--code", "mine.py")
    assert [line.split("\t")[0] for line in allowed.stdout.splitlines()] == ["Ada", "naps", "."], allowed.stderr

    (tmp_path / "base.yaml").write_text("run: {output: out/suite, code: mine.py}\n", "utf-8")
    (tmp_path / "suite.yaml").write_text(SUITE, "utf-8")
    spoken = [key for key in keys if not key.startswith("run.")]
    ablated = metaprime(tmp_path, "ablate", "suite.yaml", *spoken, "--jobs", "2")
    assert ablated.returncode == 0, ablated.stderr
    assert metaprime(tmp_path, "report", "out/suite/own").returncode == 0

    (tmp_path / "mine.py").write_text(METHOD[1] + "# changed\n", "utf-8")
    for words in (("transfer", base, *keys), ("predict", str(cell), "Ada naps .", "--code", "mine.py")):
        changed = metaprime(tmp_path, *words)
        assert changed.returncode == 2
        assert f"mine.py (SHA-256 {recorded}), which has changed since" in changed.stderr
