"""Runs that are killed, stopped, starved of disk or damaged, then gone on with: they end where the unbroken run does.

The command line runs in children that a warm process forks off, since importing torch takes longer than such a run.
A child can be told to die at its n-th touch of the output directory (each file opened to write, renamed or removed,
each folder made or removed), which finds the windows between two of them that no stopwatch hits.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from metaprime import MetaprimeError, load_config, prime, transfer

SERVER = """
import json, os, resource, signal, sys
import metaprime.cli.app, metaprime.priming.prime, metaprime.transfers.transfer

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT

def arm(root, at):
    touches = [0]
    def hook(event, args):
        if event == "open":
            ours = isinstance(args[0], str) and args[0].startswith(root) and args[2] & WRITES
        else:
            ours = event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir") and (
                str(args[0]).startswith(root) or not os.path.isabs(str(args[0])))
        if ours:
            if touches[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)
            touches[0] += 1
    sys.addaudithook(hook)
    return touches

def child(order):
    out = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(out, 1)
    os.dup2(out, 2)
    if order["file_bytes"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_bytes"],) * 2)
    touches = arm(order["root"], order["at"])
    sys.argv = ["metaprime", *order["words"]]
    try:
        metaprime.cli.app.main()
    except SystemExit as stop:
        code = stop.code or 0
    sys.stdout.flush()
    print(f"touches: {touches[0]}", flush=True)
    os._exit(code)

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        try:
            child(json.loads(line))
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""

EVERY = 4
STEPS = 22
CONFIG = f"""
run: {{output: %(output)s, cache: false}}
encoder: {{name: %(encoder)s}}
data:
  languages: [qaa, qaf]
  validation_languages: [qac]
  target_languages: [qai, qao]
episodes: {{per_step: 2, support: 2, query: 4}}
peft: {{method: pfeiffer, bottleneck: 4}}
inner: {{steps: 2, lr: 0.3}}
outer: {{steps: {STEPS}, lr: 3e-3, adapter: carry_mean, validate_every: 5, checkpoint_every: {EVERY}}}
transfer: {{shots: 8, steps: 4, batch: 4, test_sentences: 20, methods: [pfeiffer, full], lr: [0.01, 0.03]}}
"""


@dataclass
class Ended:
    """One command: its exit code (negative: the signal that killed it) and what it wrote to stdout and stderr."""

    code: int
    text: str

    @property
    def touches(self) -> int:
        return int(self.text.rpartition("touches: ")[2])


class Warm:
    """Runs commands in children of one process that has imported everything."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def start(self, root: Path, *words: str, at: int = -1, file_bytes: int = 0) -> int:
        """Starts a command; returns its process id. `at`: which touch of `root` it dies before."""
        assert self.server.stdin
        assert self.server.stdout
        order = {"root": str(root), "words": words, "at": at, "file_bytes": file_bytes, "log": str(self.log)}
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def wait(self) -> Ended:
        assert self.server.stdout
        return Ended(int(self.server.stdout.readline()), self.log.read_text("utf-8"))

    def run(self, root: Path, *words: str, at: int = -1, file_bytes: int = 0) -> Ended:
        self.start(root, *words, at=at, file_bytes=file_bytes)
        return self.wait()


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    found = Warm(tmp_path_factory.mktemp("warm"))
    yield found
    found.server.communicate()


@dataclass(frozen=True)
class Unbroken:
    """Where both commands ran to their ends undisturbed, and how often each touched the output directory."""

    output: Path
    prime_touches: int
    transfer_touches: int


@pytest.fixture(scope="module")
def unbroken(warm: Warm, tmp_path_factory: pytest.TempPathFactory, toy_encoder: Callable[[str], Path]) -> Unbroken:
    folder = tmp_path_factory.mktemp("unbroken")
    words = config_in(folder, toy_encoder("bert"))
    touches = []
    for command in ("prime", "transfer"):
        done = warm.run(folder / "run", command, *words)
        assert done.code == 0, done.text
        touches.append(done.touches)
    return Unbroken(folder / "run", *touches)


def config_in(folder: Path, encoder: Path) -> tuple[str]:
    """A config file whose output is `folder/run`."""
    (folder / "config.yaml").write_text(CONFIG % {"output": folder / "run", "encoder": encoder}, encoding="utf-8")
    return (str(folder / "config.yaml"),)


def without_volatile(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_volatile(inner) for key, inner in value.items() if key != "volatile"}
    return value


def content(output: Path, place: Path | None = None) -> dict[str, Any]:
    """Every file by name: tensors as bytes, JSON without what is volatile, the place where it was made masked."""
    found: dict[str, Any] = {}
    for path in sorted(output.rglob("*")):
        name = str(path.relative_to(output))
        if path.is_dir():
            found[name] = None
        elif path.suffix == ".safetensors":
            found[name] = path.read_bytes()
        else:
            text = path.read_text("utf-8").replace(str(place or output), "OUTPUT")
            if path.suffix == ".json":
                found[name] = without_volatile(json.loads(text))
            elif path.suffix == ".jsonl":
                found[name] = [without_volatile(json.loads(line)) for line in text.splitlines()]
            else:
                found[name] = text
    for name in [name for name in found if name.endswith("manifest.json")]:
        found[name] = None  # hashes of what is compared itself
    return found


def same(output: Path, unbroken: Unbroken, *parts: str, place: Path | None = None) -> None:
    """All files of both, or those under the named parts, are equal to the bit, and there are no others."""
    ours, theirs = (
        {name: value for name, value in found.items() if not parts or name.startswith(parts)}
        for found in (content(output, place), content(unbroken.output))
    )
    assert sorted(ours) == sorted(theirs)
    assert [name for name in theirs if ours[name] != theirs[name]] == []


def logged(output: Path) -> int:
    """Meta-steps in the metrics, the look before the first not counted."""
    file = output / "metrics.jsonl"
    return max(0, file.read_bytes().count(b"\n") - 1) if file.is_file() else 0


def newest(output: Path) -> int:
    return max((int(path.name[5:]) for path in (output / "state").glob("step-*")), default=0)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it was faster, and counts as not struck
        os.kill(pid, signal.SIGKILL)


def kill_prime(warm: Warm, words: tuple[str, ...], output: Path, draw: random.Random, touches: int) -> int:
    """Starts or goes on with a priming run and kills it: two times in three at a touch, else by the clock."""
    resume = ["--resume"] if output.exists() else []
    if draw.random() < 2 / 3:
        code = warm.run(output, "prime", *words, *resume, at=draw.randrange(touches)).code
    else:
        pid = warm.start(output, "prime", *words, *resume)
        goal = min(newest(output) + draw.randrange(EVERY), STEPS - 1)
        wait_for(lambda: logged(output) >= goal and (output / "run.json").exists())
        time.sleep(draw.uniform(0, 0.05))
        kill(pid)
        code = warm.wait().code
    if code == -signal.SIGKILL and not (output / "primed").exists():
        assert logged(output) - newest(output) <= EVERY, "more than a checkpoint interval would be repeated"
    return code


def break_prime(warm: Warm, folder: Path, words: tuple[str, ...], unbroken: Unbroken, seed: int, kills: int) -> int:
    """Kills one priming run up to so many times, then lets it end. Returns how many kills struck."""
    draw, output, struck = random.Random(seed), folder / "run", 0
    for _ in range(kills):
        code = kill_prime(warm, words, output, draw, unbroken.prime_touches // 2)
        assert code in (0, -signal.SIGKILL), warm.log.read_text("utf-8")
        struck += code != 0
    done = warm.run(output, "prime", *words, "--resume")
    assert done.code == 0, done.text
    same(output, unbroken, "primed", "metrics", "state", "run.json", "config.yaml", ".")
    assert not any(path.name.startswith(".") for path in output.rglob("*"))
    return struck


def break_transfer(warm: Warm, folder: Path, words: tuple[str, ...], unbroken: Unbroken, seed: int, kills: int) -> int:
    """The same with a transfer from the unbroken run's encoder."""
    draw, output, struck = random.Random(seed), folder / "run", 0
    shutil.copytree(unbroken.output / "primed", output / "primed")
    for _ in range(kills):
        if draw.random() < 2 / 3:
            code = warm.run(output, "transfer", *words, at=draw.randrange(unbroken.transfer_touches // 2)).code
        else:
            pid = warm.start(output, "transfer", *words)
            time.sleep(draw.uniform(0.1, 1.0))
            kill(pid)
            code = warm.wait().code
        assert code in (0, -signal.SIGKILL), warm.log.read_text("utf-8")
        struck += code != 0
    done = warm.run(output, "transfer", *words)
    assert done.code == 0, done.text
    same(output, unbroken, "transfer")
    assert not any(path.name.startswith(".") for path in output.rglob("*"))
    return struck


def test_five_kills(warm: Warm, unbroken: Unbroken, toy_bert: Path, tmp_path: Path) -> None:
    struck = 0
    for name, breaks, kills in (("one", break_prime, 3), ("two", break_transfer, 2)):
        (tmp_path / name).mkdir()
        struck += breaks(warm, tmp_path / name, config_in(tmp_path / name, toy_bert), unbroken, 5, kills)
    assert struck == 5


@pytest.mark.slow
def test_thirty_kills(warm: Warm, unbroken: Unbroken, toy_bert: Path, tmp_path: Path) -> None:
    struck = {break_prime: 0, break_transfer: 0}
    for breaks, wanted in ((break_prime, 20), (break_transfer, 10)):
        for seed in range(100, 200):
            folder = tmp_path / f"{breaks.__name__}{seed}"
            folder.mkdir()
            words = config_in(folder, toy_bert)
            struck[breaks] += breaks(warm, folder, words, unbroken, seed, min(3, wanted - struck[breaks]))
            shutil.rmtree(folder)
            if struck[breaks] == wanted:
                break
    assert sum(struck.values()) == 30


@pytest.mark.slow
def test_a_kill_at_every_touch_while_a_checkpoint_and_a_best_are_written(
    warm: Warm, unbroken: Unbroken, toy_bert: Path, tmp_path: Path
) -> None:
    """From one state of a run, every touch of the next steps in turn: the narrow windows, all of them."""
    (tmp_path / "first").mkdir()
    words = config_in(tmp_path / "first", toy_bert)
    output = tmp_path / "first" / "run"
    third = unbroken.prime_touches // 3
    assert warm.run(output, "prime", *words, at=third).code == -signal.SIGKILL
    shutil.copytree(output, tmp_path / "there")
    for at in range(0, third, 2):
        shutil.rmtree(output)
        shutil.copytree(tmp_path / "there", output)
        assert warm.run(output, "prime", *words, "--resume", at=at).code == -signal.SIGKILL
        assert warm.run(output, "prime", *words, "--resume").code == 0
        same(output, unbroken, "primed", "metrics", "state", "run.json", "config.yaml", ".")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138), (signal.SIGHUP, 129)]
)
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(
    warm: Warm, unbroken: Unbroken, toy_bert: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    words, output = config_in(tmp_path, toy_bert), tmp_path / "run"
    pid = warm.start(output, "prime", *words)
    wait_for(lambda: logged(output) >= 6)
    os.kill(pid, number)
    done = warm.wait()
    assert done.code == code, done.text
    reached = newest(output)
    assert reached == logged(output) >= 6  # what was finished is saved, no step is repeated
    line = f"notice: stopped by {number.name} after step {reached} of {STEPS}, which is saved: continue with --resume"
    assert line in done.text.splitlines()
    assert "Traceback" not in done.text
    assert list(output.rglob(".*")) == []
    assert warm.run(output, "prime", *words, "--resume").code == 0
    same(output, unbroken, "primed", "metrics")


def test_a_transfer_that_is_stopped_gives_up_its_cell_and_keeps_the_others(
    warm: Warm, unbroken: Unbroken, toy_bert: Path, tmp_path: Path
) -> None:
    words, output = config_in(tmp_path, toy_bert), tmp_path / "run"
    shutil.copytree(unbroken.output / "primed", output / "primed")
    pid = warm.start(output, "transfer", *words)
    wait_for(lambda: any(output.glob("transfer/primed/qai*")))
    os.kill(pid, signal.SIGTERM)
    done = warm.wait()
    assert done.code == 143, done.text
    assert "notice: stopped by SIGTERM: finished cells are kept; run the same command for the others" in done.text
    cells = content(output / "transfer")
    assert 1 <= len(list(output.glob("transfer/primed/*/record.json"))) < 4
    assert list(output.rglob(".*")) == []
    assert warm.run(output, "transfer", *words).code == 0
    assert cells.items() <= content(output / "transfer").items()
    same(output, unbroken, "transfer")


@pytest.mark.parametrize("command", ["prime", "transfer"])
def test_time_that_is_up_ends_in_order_with_a_code_of_its_own(
    warm: Warm, unbroken: Unbroken, toy_bert: Path, tmp_path: Path, command: str
) -> None:
    words, output = config_in(tmp_path, toy_bert), tmp_path / "run"
    more = ("outer.steps=5000",) if command == "prime" else ("transfer.steps=5000",)
    shutil.copytree(unbroken.output / "primed", output / "primed") if command == "transfer" else None
    began = time.monotonic()
    done = warm.run(output, command, *words, *more, "--max-time", "4s")
    assert done.code == 75, done.text
    assert "notice: stopped by --max-time" in done.text
    assert time.monotonic() - began < 6
    if command == "prime":
        assert newest(output) == logged(output) > 0
    assert list(output.rglob(".*")) == []


def test_a_time_that_is_none_is_refused_before_anything_is_done(warm: Warm, toy_bert: Path, tmp_path: Path) -> None:
    for command in ("prime", "transfer"):
        done = warm.run(tmp_path / "run", command, *config_in(tmp_path, toy_bert), "--max-time", "soon")
        assert done.code == 2
        assert "error: --max-time 'soon' must be minutes" in done.text
        assert not (tmp_path / "run").exists()


def test_a_second_run_in_the_same_directory_is_told_who_is_there(warm: Warm, toy_bert: Path, tmp_path: Path) -> None:
    words, output = config_in(tmp_path, toy_bert), tmp_path / "run"
    pid = warm.start(output, "prime", *words, "outer.steps=5000")
    try:
        wait_for(lambda: logged(output) >= 1)
        config = load_config(*words, ["outer.steps=5000"])
        for second in (lambda: prime(config, resume=True), lambda: transfer(config)):
            with pytest.raises(
                MetaprimeError, match=rf"run\.output {output} is in use by process {pid} on .*, since 20"
            ):
                second()
    finally:
        os.kill(pid, signal.SIGKILL)
    assert warm.wait().code == -signal.SIGKILL
    # Nobody is there any more.
    assert newest(prime(load_config(*words), resume=True, force=True).path.parent) == STEPS


def test_a_full_disk_leaves_the_old_checkpoint_whole(
    warm: Warm, unbroken: Unbroken, toy_bert: Path, tmp_path: Path
) -> None:
    words, output = config_in(tmp_path, toy_bert), tmp_path / "run"
    pid = warm.start(output, "prime", *words)
    wait_for(lambda: newest(output) >= EVERY)
    os.kill(pid, signal.SIGTERM)
    assert warm.wait().code == 143
    before = content(output / "state")
    done = warm.run(output, "prime", *words, "--resume", file_bytes=20_000)  # no checkpoint fits, small files do
    assert done.code == 2, done.text
    error = next(line for line in done.text.splitlines() if line.startswith("error: "))
    assert error.startswith(f"error: cannot write {output}/state/")
    assert "File too large" in error
    assert "make room there" in error
    assert "--resume" in error
    assert "Traceback" not in done.text
    assert content(output / "state") == before
    assert list(output.rglob(".*")) == []
    assert warm.run(output, "prime", *words, "--resume").code == 0
    same(output, unbroken, "primed", "metrics")


def test_a_full_disk_leaves_no_half_of_a_cell(warm: Warm, unbroken: Unbroken, toy_bert: Path, tmp_path: Path) -> None:
    words, output = config_in(tmp_path, toy_bert), tmp_path / "run"
    shutil.copytree(unbroken.output / "primed", output / "primed")
    done = warm.run(output, "transfer", *words, file_bytes=3_000)
    assert done.code == 2, done.text
    assert f"error: cannot write {output}/transfer/primed/qai-pfeiffer-k8-s0" in done.text
    assert "Traceback" not in done.text
    assert not list(output.glob("transfer/primed/*"))
    assert warm.run(output, "transfer", *words).code == 0
    same(output, unbroken, "transfer")


@pytest.mark.parametrize("kind", ["step", "best"])
def test_a_damaged_newest_checkpoint_is_noticed_and_the_one_before_is_used(
    warm: Warm, unbroken: Unbroken, toy_bert: Path, tmp_path: Path, kind: str
) -> None:
    words, output = config_in(tmp_path, toy_bert), tmp_path / "run"
    pid = warm.start(output, "prime", *words)
    wait_for(lambda: newest(output) >= 3 * EVERY)
    os.kill(pid, signal.SIGKILL)
    warm.wait()
    victim = max((output / "state").glob(f"{kind}-*")) / "tensors.safetensors"
    damaged = bytearray(victim.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    victim.write_bytes(damaged)
    done = warm.run(output, "prime", *words, "--resume")
    assert done.code == 0, done.text
    if kind == "step":
        assert (
            f"notice: checkpoint {victim.parent} is damaged: tensors.safetensors has changed since it was written"
            in done.text
        )
        assert "resuming from step" in done.text
    same(output, unbroken, "primed", "metrics", "state")


def test_the_comparison_would_notice(unbroken: Unbroken, tmp_path: Path) -> None:
    for file, change in (
        ("primed/model.safetensors", lambda text: text[:-1] + bytes([text[-1] ^ 1])),
        ("metrics.jsonl", lambda text: text.replace(b'"step": 7', b'"step": 8')),
        ("transfer/primed/qai-full-k8-s0/predictions.jsonl", lambda text: text.replace(b'"O"', b'"B-PER"', 1)),
        (".run.json.12.partial", lambda text: b"{}"),
    ):
        output = tmp_path / "run"
        shutil.copytree(unbroken.output, output)
        same(output, unbroken, place=unbroken.output)
        path = output / file
        path.write_bytes(change(path.read_bytes() if path.exists() else b""))
        with pytest.raises(AssertionError):
            same(output, unbroken, place=unbroken.output)
        shutil.rmtree(output)
