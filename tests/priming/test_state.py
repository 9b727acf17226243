"""A priming run that is killed outright and resumed ends with the same bytes as one that was left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from metaprime.config.loading import load_config
from metaprime.config.sections import Config
from metaprime.priming import state as module
from metaprime.priming.prime import prime
from metaprime.runs.artifact import load_artifact
from metaprime.runs.checkpoint import Checkpoint, save_checkpoint

STEPS = 60


def config(output: Path, encoder: Path) -> list[str]:
    return [
        f"run.output={output}",
        f"encoder.name={encoder}",
        "data.languages=[qaa, qaf]",
        "data.validation_languages=[qac]",
        *("episodes.per_step=2", "episodes.support=4", "episodes.query=8"),
        *("peft.bottleneck=4", "inner.steps=3", "outer.adapter=carry_mean", "outer.head=meta"),
        *(f"outer.steps={STEPS}", "outer.checkpoint_every=7", "outer.validate_every=10", "outer.lr=3e-3"),
        *("transfer.shots=20", "transfer.steps=10", "transfer.lr=0.02"),
    ]


def stable_metrics(output: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key != "volatile"} for line in lines]


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def steps_logged(output: Path) -> int:
    file = output / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def kill_at(output: Path, encoder: Path, step: int, later: float) -> int:
    """Starts the run as a process, kills it `later` seconds after it logged a step; returns how many steps it logged."""
    file = output.parent / f"{output.name}.yaml"
    file.write_text("run: {seed: 0}\n", encoding="utf-8")
    command = [sys.executable, "-m", "metaprime", "prime", str(file), *config(output, encoder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    try:
        deadline = time.monotonic() + 120
        while steps_logged(output) < step + 1:
            assert victim.poll() is None, victim.communicate()[1].decode()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(later)
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
    assert victim.returncode == -signal.SIGKILL
    return steps_logged(output)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, toy_encoder: Any) -> Path:
    output = tmp_path_factory.mktemp("unbroken") / "run"
    prime(load_config(None, config(output, toy_encoder("bert"))))
    return output


@pytest.mark.parametrize("chance", [1, 2])
def test_killed_and_resumed_is_as_if_never_killed(unbroken: Path, toy_bert: Path, tmp_path: Path, chance: int) -> None:
    draw = random.Random(chance)
    output = tmp_path / "run"
    reached = kill_at(output, toy_bert, draw.randrange(8, STEPS - 20), draw.uniform(0, 0.05))
    # The line before the first step is none.
    reached -= 1
    assert 8 <= reached < STEPS
    assert not (output / "primed").exists()
    # What a kill in the middle of writing leaves, wherever this one struck.
    for stray in (f"state/.step-{min(reached // 7 * 7 + 7, STEPS):08d}.1234567.partial", ".primed.1234567.partial"):
        (output / stray).mkdir()
        (output / stray / "tensors.safetensors").write_bytes(b"half")
    (output / ".run.json.1234567.partial").write_text("{")
    resumed: Config = load_config(None, config(output, toy_bert))
    assert prime(resumed, resume=True).path == output / "primed"
    for file in sorted((unbroken / "primed").glob("*.safetensors")):
        assert (output / "primed" / file.name).read_bytes() == file.read_bytes(), file.name
    assert stable_metrics(output) == stable_metrics(unbroken)
    # And the look at the held-out languages before the first.
    assert len(stable_metrics(output)) == STEPS + 1
    ours, theirs = (
        json.loads((root / "primed" / "metaprime.json").read_text("utf-8"))["provenance"] for root in (output, unbroken)
    )
    for key in ("steps", "validation_f1", "encoder_weights", "base_weights"):
        assert ours[key] == theirs[key]
    # Nothing stray beside the files of a run.
    assert names(output) == names(unbroken)


def test_the_kill_would_be_noticed(unbroken: Path, toy_bert: Path, tmp_path: Path) -> None:
    """Starting anew from the checkpoint's weights alone, without optimizer state, must end elsewhere."""
    output = tmp_path / "run"
    whole = load_config(None, config(output, toy_bert))

    class Killed(Exception):
        pass

    def save_and_die(folder: Path, checkpoint: Checkpoint, keep: int) -> None:
        save_checkpoint(folder, checkpoint, keep)
        raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "save_checkpoint", save_and_die)
        with pytest.raises(Killed):
            prime(whole)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "restore_optimizer", lambda *parts: None)
        prime(whole, resume=True)
    ours, theirs = (root / "primed" / "model.safetensors" for root in (output, unbroken))
    assert ours.read_bytes() != theirs.read_bytes()


def test_the_primed_config_names_the_labels(primed_run: Config) -> None:
    """A token classifier over the folder has the task's outputs, which a loader of exports needs."""
    primed = Path(primed_run.run.output) / "primed"
    config = AutoConfig.from_pretrained(primed)
    assert tuple(config.id2label.values()) == load_artifact(primed).labels
    assert config.num_labels == 7
