"""An estimate is of the run that would be: its sub-words, its memory, nothing left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

from metaprime.config.sections import Config
from metaprime.preflight.cost import estimate
from metaprime.priming.prime import prime

MakeConfig = Callable[..., Config]
WATCHED = """import sys
from metaprime import load_config, prime
from metaprime.preflight.cost import _status
prime(load_config(sys.argv[1]), quiet=True)
print(round(1024 * _status("VmHWM")))
"""
"""A priming run, then the most memory that it had itself, in KiB."""


def test_sub_words_are_those_of_the_run_and_nothing_is_written(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", "outer.steps=6", "outer.validate_every=0")
    found = estimate(config)
    assert not (tmp_path / "run").exists()
    prime(config, quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    subwords = [line["subwords"] for line in lines]
    assert found.subwords_per_step == pytest.approx(fmean(subwords))
    assert found.largest == max(subwords)
    assert (found.steps, found.device) == (6, "cpu")
    assert 0 < found.seconds_per_step < 60
    assert found.peak_mib < found.limit_mib


@pytest.mark.slow
def test_the_command_prints_it(tiny: MakeConfig, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(tiny(tmp_path / "run", "outer.steps=4").as_yaml())
    command = [sys.executable, "-m", "metaprime", "estimate", str(file)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[0].startswith("device: cpu")
    assert "all 4: " in said
    parts = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    assert parts["steps"] == 4
    run = subprocess.run([sys.executable, "-c", WATCHED, str(file)], capture_output=True, text=True, check=True)
    assert parts["peak_mib"] == pytest.approx(int(run.stdout.split()[-1]) / 1024, rel=0.2)
