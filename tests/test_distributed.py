"""Two real processes against one: the first outer gradient, and the weights after fifty steps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_launch import launch, start

from metaprime import load_config, prime, transfer
from metaprime.models.encoder import load_encoder
from metaprime.packing import NEARLY_FULL
from metaprime.runs.records import read_record

SMOKE = Path(__file__).parents[1] / "recipes/configs/smoke.yaml"

TINY = (
    "data.languages=[qaa, qaf]",
    "data.validation_languages=[qac]",
    # Three do not divide among two processes.
    *("episodes.per_step=3", "episodes.support=2", "episodes.query=4"),
    *("peft.bottleneck=4", "inner.steps=2", "inner.lr=0.1"),
    *("outer.steps=50", "outer.validate_every=0", "outer.lr=1e-4", "outer.epsilon=1e-4"),
    *("outer.adapter=carry_one", "outer.head=meta", "transfer.shots=8", "transfer.steps=4"),
)

FIRST_GRADIENT = """
import sys
from pathlib import Path
from accelerate import Accelerator
from safetensors.torch import save_file
from metaprime.config.loading import load_config
from metaprime.priming.setup import set_up
from metaprime.priming.step import draw, sum_over_processes
from metaprime.priming.prime import prime

folder, *overrides = sys.argv[1:]
config, accelerator = load_config(None, overrides), Accelerator()
run = set_up(config, accelerator)

def first_gradient():
    episodes = draw(run, 0)
    start = run.starts.values(0, episodes.indices)
    outcome = run.learner.step(run.loss, run.state.backbone, start, episodes, run.inner)
    return sum_over_processes(outcome, accelerator)

def keep(name):
    outcome = first_gradient()
    file = Path(folder) / f"{name}-{accelerator.process_index}.safetensors"
    parts = {"gradients": outcome.gradients, "mean": outcome.mean_fast, "last": outcome.last_fast}
    tensors = {f"{part}/{key}": value.contiguous() for part, values in parts.items() for key, value in values.items()}
    save_file(tensors | {"query": outcome.query_loss, "support": outcome.support_loss}, file)

keep("reduced")
accelerator.reduce = lambda tensor, reduction: tensor
keep("alone")
del accelerator.reduce
if accelerator.num_processes == 1:
    prime(config)
accelerator.wait_for_everyone()
accelerator.end_training()
"""


def config(output: Path, encoder: Path) -> list[str]:
    return [*TINY, f"encoder.name={encoder}", f"run.output={output}"]


def relative(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Norm of the difference over the norm, all tensors together."""
    assert one.keys() == other.keys()
    apart = torch.cat([(one[name].double() - other[name].double()).flatten() for name in one]).norm()
    return float(apart / torch.cat([value.double().flatten() for value in other.values()]).norm())


@pytest.fixture(scope="module")
def gradients(tmp_path_factory: pytest.TempPathFactory, toy_encoder: Callable[[str], Path]) -> Path:
    """Folder of the first outer gradients: of each of two processes, and of one alone, which goes on and primes."""
    folder = tmp_path_factory.mktemp("gradients")
    (folder / "single").mkdir()
    script = folder / "first_gradient.py"
    script.write_text(FIRST_GRADIENT, encoding="utf-8")
    overrides = config(folder / "single" / "run", toy_encoder("bert"))
    done = launch(str(script), str(folder), *overrides)
    assert done.returncode == 0, done.stderr[-3000:]
    single = subprocess.run(
        [sys.executable, str(script), str(folder / "single"), *overrides],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    assert single.returncode == 0, single.stderr[-3000:]
    return folder


def part(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in tensors.items() if key.startswith(name)}


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_outer_gradient_is_one_processs(gradients: Path, rank: int) -> None:
    two, one = (
        load_file(gradients / f"reduced-{rank}.safetensors"),
        load_file(gradients / "single/reduced-0.safetensors"),
    )
    for name in ("gradients/backbone.", "gradients/head.", "mean/", "last/", "query", "support"):
        assert part(one, name)
        assert relative(part(two, name), part(one, name)) < 1e-6, name
    assert bool((one["query"] > 0).all())


@pytest.mark.parametrize("rank", [0, 1])
def test_without_the_reduction_it_is_not(gradients: Path, rank: int) -> None:
    two, one = load_file(gradients / f"alone-{rank}.safetensors"), load_file(gradients / "single/reduced-0.safetensors")
    for name in ("gradients/backbone.", "gradients/head.", "mean/", "query", "support"):
        assert relative(part(two, name), part(one, name)) > 1e-2, name


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {**load_file(folder / "model.safetensors"), **load_file(folder / "metaprime.safetensors")}


@pytest.fixture(scope="module")
def primed_by_two(tmp_path_factory: pytest.TempPathFactory, toy_encoder: Callable[[str], Path]) -> Path:
    """Output of a launched priming run."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "config.yaml").write_text("run: {seed: 0}\n", encoding="utf-8")
    words = config(folder / "two", toy_encoder("bert"))
    done = launch("-m", "metaprime", "prime", str(folder / "config.yaml"), *words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("primed encoder:") == 1  # the first process speaks for both
    return folder / "two"


def test_a_signal_to_one_of_two_stops_both_after_the_same_step(
    primed_by_two: Path, toy_bert: Path, tmp_path: Path
) -> None:
    output, metrics = tmp_path / "two", tmp_path / "two" / "metrics.jsonl"
    (tmp_path / "config.yaml").write_text("run: {seed: 0}\n", encoding="utf-8")
    words = ("-m", "metaprime", "prime", str(tmp_path / "config.yaml"), *config(output, toy_bert))
    with start(*words) as launched:
        deadline = time.monotonic() + 120
        while not metrics.is_file() or metrics.read_bytes().count(b"\n") < 8:
            assert launched.poll() is None, launched.communicate()[1][-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.002)
        first = json.loads((output / ".lock").read_text("utf-8"))["pid"]  # one lock for both: the first process's
        os.kill(first, signal.SIGTERM)
        _, err = launched.communicate(timeout=120)
    assert launched.returncode != 0
    steps = metrics.read_bytes().count(b"\n")
    assert 8 <= steps < 50
    assert (
        err.count(f"notice: stopped by SIGTERM after step {steps} of 50, which is saved: continue with --resume") == 1
    )
    assert [path.name for path in (output / "state").iterdir()] == [f"step-{steps:08d}"]
    assert list(output.rglob(".*")) == []
    done = launch(*words, "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("model.safetensors", "metaprime.safetensors"):
        assert (output / "primed" / name).read_bytes() == (primed_by_two / "primed" / name).read_bytes(), name


def test_fifty_steps_of_two_processes_end_where_one_does(gradients: Path, primed_by_two: Path, toy_bert: Path) -> None:
    one, two = gradients / "single" / "run", primed_by_two
    ours, theirs = weights(two / "primed"), weights(one / "primed")
    moved, apart = moved_apart(one, two, dict(load_encoder(str(toy_bert)).module.state_dict()))
    assert moved > 1e-2
    assert apart < 1e-3 * moved
    for name in ("head.weight", "head.bias"):
        assert float((ours[name] - theirs[name]).norm()) < 1e-3 * float(theirs[name].norm()), name
    for folder in (one, two):  # not the best of them, which might be the unprimed
        assert json.loads((folder / "primed" / "metaprime.json").read_text("utf-8"))["provenance"]["steps"] == 50
    logged = [len((output / "metrics.jsonl").read_text("utf-8").splitlines()) for output in (one, two)]
    assert logged == [50, 50]


def moved_apart(one: Path, two: Path, start: dict[str, torch.Tensor]) -> tuple[float, float]:
    """How far one process moved the encoder, and how far two end from there."""
    first, second = load_file(one / "primed" / "model.safetensors"), load_file(two / "primed" / "model.safetensors")
    assert first.keys() == second.keys() <= start.keys()
    moved = torch.cat([(first[name] - start[name]).flatten() for name in first])
    return float(moved.norm()), float(torch.cat([(first[name] - second[name]).flatten() for name in first]).norm())


def test_the_smoke_recipe_launched_gives_what_one_process_gives(tmp_path: Path) -> None:
    """As it ships, embedded encoder included, which the first process makes for both; then its transfer."""
    one, two = tmp_path / "one", tmp_path / "two"
    prime(load_config(SMOKE, [f"run.output={one}"]), quiet=True)
    done = launch("-m", "metaprime", "prime", str(SMOKE), f"run.output={two}")
    assert done.returncode == 0, done.stderr[-3000:]
    base = load_encoder(str(one / "base"))
    assert load_encoder(str(two / "base")).weights == base.weights
    moved, apart = moved_apart(one, two, dict(base.module.state_dict()))
    assert moved > 1e-2
    assert apart < 1e-3 * moved
    cards = [json.loads((output / "primed" / "metaprime.json").read_text("utf-8")) for output in (one, two)]
    assert [found["provenance"]["processes"] for found in cards] == [1, 2]
    assert len({found["provenance"]["steps"] for found in cards}) == 1
    logs = [[json.loads(line) for line in (o / "metrics.jsonl").read_text("utf-8").splitlines()] for o in (one, two)]
    assert [[line["step"] for line in lines] for lines in logs] == [[*range(11)]] * 2
    for ours, theirs in zip(*logs, strict=True):
        assert ours.keys() == theirs.keys()
        assert ours.get("languages") == theirs.get("languages")
        if ours["step"]:  # each process packs its own episodes, or leaves the little padding that they have
            assert ours["subwords"] / NEARLY_FULL >= theirs["subwords"] > ours["subwords"] / 2
            assert ("flops" in ours["volatile"]) == ("flops" in theirs["volatile"]) == (ours["step"] == 1)
        for key in ("query_loss", "support_loss_before", "support_loss_after", "gradient_norm", "validation_f1"):
            assert ours.get(key, 0) == pytest.approx(theirs.get(key, 0), rel=1e-3, abs=1e-6), (ours["step"], key)

    # From the same encoder, who runs a cell must not matter at all.
    same = (f"transfer.encoder={one / 'primed'}", "transfer.methods=[pfeiffer, head]")
    alone = [result.record for result in transfer(load_config(SMOKE, [f"run.output={one}", *same]), quiet=True)]
    done = launch("-m", "metaprime", "transfer", str(SMOKE), f"run.output={two}", *same)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("records:") == 1
    cells = two / "transfer" / "primed"
    shared = {r["cell"]["method"]: r for r in map(read_record, sorted(cells.glob("*/record.json")))}
    assert set(shared) == {"pfeiffer", "head"}
    # Each process did its share.
    assert len({record["volatile"]["pid"] for record in shared.values()}) == 2
    for record in alone:
        other = shared[record["cell"]["method"]]
        for key in ("cell", "scores", "training", "frozen", "digest"):
            assert other[key] == record[key], key


@pytest.mark.slow
def test_a_mistake_under_a_launch_ends_with_a_message(toy_bert: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("episodes: {per_step: 1}\n", encoding="utf-8")
    overrides = [text for text in config(tmp_path / "two", toy_bert) if not text.startswith("episodes.per_step")]
    done = launch("-m", "metaprime", "prime", str(file), *overrides)
    assert done.returncode != 0
    assert "error: episodes.per_step 1 leaves some of 2 processes without an episode" in done.stderr
    assert not (tmp_path / "two").exists()


@pytest.mark.slow
def test_torchrun_on_a_cpu_is_refused_before_two_runs_write_to_one_folder(toy_bert: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("run: {seed: 0}\n", encoding="utf-8")
    words = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--standalone",
        "-m",
        "metaprime",
        "prime",
        str(file),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "ACCELERATE_USE_CPU"}
    done = subprocess.run(
        [sys.executable, *words, *config(tmp_path / "run", toy_bert)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**environment, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode != 0
    assert "error: WORLD_SIZE says that 2 processes were launched, but this one is in a group of 1" in done.stderr
    assert not (tmp_path / "run").exists()
