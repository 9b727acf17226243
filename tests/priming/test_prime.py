"""Priming end to end on a toy: what it leaves, what each rule moves, which weights are kept, who may run where."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toy_config import MakeConfig

from metaprime.build.kind import kinds_of
from metaprime.config.loading import load_config, override
from metaprime.config.sections import Config, OuterConfig
from metaprime.meta import LEARNERS, Outcome
from metaprime.models.encoder import load_encoder
from metaprime.priming import prime as module
from metaprime.priming.guards import Diverged, Guards
from metaprime.priming.prime import prime
from metaprime.priming.starts import Starts
from metaprime.runs.checkpoint import newest_checkpoint
from metaprime.runs.flops import Spent, estimated_flops
from metaprime.transfers.held_out import Validation
from metaprime.transfers.predict import predict
from metaprime.types import MetaprimeError, Params

RULES = ("reset", "keep", "carry_one", "carry_mean", "meta")
needs_learn2learn = pytest.mark.skipif(
    importlib.util.find_spec("learn2learn") is None and not os.environ.get("METAPRIME_REQUIRE_LEARN2LEARN"),
    reason="learn2learn is not installed: `make learn2learn` does it",
)
QUICK = ("outer.validate_every=0", "outer.steps=2")


def metrics(output: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(output) / "metrics.jsonl").read_text("utf-8").splitlines()]


def card(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metaprime.json").read_text("utf-8"))
    return found


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_a_run_leaves(primed_run: Config) -> None:
    output = Path(primed_run.run.output)
    assert {path.name for path in output.iterdir()} == {"config.yaml", "run.json", "metrics.jsonl", "primed", "state"}
    states = {path.name for path in (output / "state").iterdir()}
    assert {name for name in states if name.startswith("step")} == {"step-00000002", "step-00000004"}
    best = metrics(output)[-1]["best_step"]
    assert f"best-{best:08d}" in states
    asked = primed_run.at_rates(*kinds_of(primed_run.encoder, primed_run.transfer))
    assert load_config(output / "config.yaml") == load_config(output / "primed" / "metaprime.yaml") == asked
    names = {path.name for path in (output / "primed").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "metaprime.json", "metaprime.safetensors"} <= names
    assert not any(path.suffix in (".bin", ".pt", ".pkl") for path in output.rglob("*"))


def test_priming_moves_every_parameter_that_the_loss_reaches(primed_run: Config) -> None:
    before = load_encoder(primed_run.encoder.name).module.state_dict()
    after = load_encoder(str(Path(primed_run.run.output) / "primed")).module.state_dict()
    assert before.keys() == after.keys()
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {name for name in before if name.startswith("pooler.")}


def test_the_same_config_gives_the_same_run_to_the_bit(primed_run: Config, tmp_path: Path) -> None:
    prime(override(primed_run, f"run.output={tmp_path / 'again'}"))
    for name in ("model.safetensors", "metaprime.safetensors", "tokenizer.json"):
        again, first = (Path(root) / "primed" / name for root in (tmp_path / "again", primed_run.run.output))
        assert again.read_bytes() == first.read_bytes(), name
    stable = [
        [{key: value for key, value in line.items() if key != "volatile"} for line in metrics(root)]
        for root in (tmp_path / "again", primed_run.run.output)
    ]
    assert stable[0] == stable[1]


@pytest.fixture(scope="module")
def first_values(tiny: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Params:
    """Adapter and head as they are drawn: under keep nothing moves them."""
    config = tiny(tmp_path_factory.mktemp("keep") / "run", *QUICK, "outer.adapter=keep", "outer.head=keep")
    return load_file(prime(config).path / "metaprime.safetensors")


@pytest.mark.parametrize(("adapter", "head"), [*product(RULES, RULES)])
def test_every_rule_runs_and_moves_its_own_group(
    tiny: MakeConfig, tmp_path: Path, first_values: Params, adapter: str, head: str
) -> None:
    config = tiny(tmp_path / "run", *QUICK, f"outer.adapter={adapter}", f"outer.head={head}")
    values = load_file(prime(config).path / "metaprime.safetensors")
    assert values.keys() == first_values.keys()
    for group, rule in (("adapter", adapter), ("head", head)):
        same = {torch.equal(values[name], first_values[name]) for name in values if name.startswith(group)}
        assert same == {rule in ("reset", "keep")}
    assert len(metrics(tmp_path / "run")) == 2


@pytest.mark.parametrize("method", ["prefix", "lora", "head"])
def test_other_methods_prime_too(tiny: MakeConfig, tmp_path: Path, method: str) -> None:
    overrides = [text for text in QUICK if text]
    source = tiny(tmp_path / "unused").model_dump(mode="json")
    source["peft"] = {"method": method}
    source["run"]["output"] = str(tmp_path / "run")
    (tmp_path / "config.yaml").write_text(json.dumps(source), encoding="utf-8")
    folder = prime(load_config(tmp_path / "config.yaml", overrides)).path
    assert card(folder)["peft"]["method"] == method
    assert len(predict(folder, "Ada naps")) == 2


@pytest.mark.parametrize("architecture", ["roberta", "xlm-roberta"])
def test_other_architectures_prime_too(
    tiny: MakeConfig, toy_encoder: Callable[[str], Path], tmp_path: Path, architecture: str
) -> None:
    folder = prime(tiny(tmp_path / "run", *QUICK, f"encoder.name={toy_encoder(architecture)}")).path
    assert load_encoder(str(folder)).module.config.model_type == architecture


def test_looped_and_batched_inner_loops_prime_alike(tiny: MakeConfig, tmp_path: Path) -> None:
    paths = [
        prime(tiny(tmp_path / name, *QUICK, f"inner.batched={flag}", "outer.adapter=reset")).path
        for name, flag in (("one", "true"), ("other", "false"))
    ]
    assert distance(*paths) < 1e-5


@pytest.mark.parametrize("order", ["first", "second"])
def test_looped_and_batched_inner_loops_cost_alike(tiny: MakeConfig, tmp_path: Path, order: str) -> None:
    lines = []
    for flag in ("true", "false"):
        # Whichever attention kernel the one takes, the other would take another; and several share their padding.
        changes = (f"inner.batched={flag}", "inner.task_chunk=1", f"inner.order={order}", "encoder.attention=eager")
        prime(tiny(tmp_path / flag, *QUICK, *changes))
        lines.append(metrics(tmp_path / flag)[0])
    assert lines[0]["subwords"] == lines[1]["subwords"]
    assert lines[0]["volatile"]["flops"] == lines[1]["volatile"]["flops"] > 1e6


def test_multitask_trains_backbone_and_head_without_an_adapter(tiny: MakeConfig, tmp_path: Path) -> None:
    folder = prime(tiny(tmp_path / "run", "learner.name=multitask", "inner.steps=0", "outer.head=reset")).path
    assert card(folder)["peft"] == {"method": "head"}
    assert set(load_file(folder / "metaprime.safetensors")) == {"head.weight", "head.bias"}
    lines = metrics(tmp_path / "run")
    assert len(lines) == 5
    assert lines[4]["validation_f1"] >= 0
    assert lines[4]["query_loss"] < lines[1]["query_loss"]


def distance(one: Path, other: Path) -> float:
    """The largest difference between two primed folders' weights, adapter and head included."""
    worst = 0.0
    for name in ("model.safetensors", "metaprime.safetensors"):
        ours, theirs = load_file(one / name), load_file(other / name)
        assert ours.keys() == theirs.keys()
        worst = max([worst, *(float((ours[key] - theirs[key]).abs().max()) for key in ours)])
    return worst


@needs_learn2learn
@pytest.mark.parametrize("order", ["first", "second"])
def test_learn2learn_primes_to_the_same_weights(tiny: MakeConfig, tmp_path: Path, order: str) -> None:
    base = load_encoder(tiny(tmp_path).encoder.name).module.state_dict()
    settings = (*QUICK, f"inner.order={order}", "encoder.attention=eager", "outer.adapter=reset", "outer.head=meta")
    ours = prime(tiny(tmp_path / "ours", *settings)).path
    theirs = prime(tiny(tmp_path / "theirs", *settings, "learner.backend=learn2learn")).path
    assert distance(ours, theirs) < 1e-5
    moved = load_file(ours / "model.safetensors")
    assert max(float((moved[name] - base[name]).abs().max()) for name in moved) > 1e-3
    losses = [[line["query_loss"] for line in metrics(tmp_path / name)] for name in ("ours", "theirs")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(
    ("every", "steps", "looked"),
    [
        (4, 10, [0, 2, 4, 8, 10]),
        # Half of three is no step.
        (3, 7, [0, 3, 6, 7]),
        (8, 5, [0, 4, 5]),
        (20, 3, [0, 3]),
    ],
)
def test_held_out_languages_are_looked_at_first_at_half_at_every_and_last(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, steps: int, looked: list[int]
) -> None:
    monkeypatch.setattr(Validation, "mean", lambda *parts: 1.0)
    prime(tiny(tmp_path / "run", f"outer.steps={steps}", f"outer.validate_every={every}", "inner.steps=1"))
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [*range(steps + 1)]
    assert [line["step"] for line in lines if "validation_f1" in line] == looked


@pytest.mark.parametrize(
    ("scores", "wanted", "best", "taken"),
    [
        ([3.0, 1.0, 2.0, 9.0], 2, 0, 2),
        ([3.0, 4.0, 2.0, 3.0, 9.0], 2, 1, 3),
        ([3.0, 4.0, 4.0, 4.0, 9.0], 2, 3, 3),
        ([3.0, 1.0, 4.0, 1.0, 5.0, 1.0, 2.0], 2, 4, 6),
    ],
    ids=[
        "from the first score",
        "from the best on",
        "an equal score has the later weights and is no gain",
        "at the last step",
    ],
)
def test_scores_that_stay_below_the_best_end_priming_early(
    tiny: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    scores: list[float],
    wanted: int,
    best: int,
    taken: int,
) -> None:
    coming = iter(scores)
    monkeypatch.setattr(Validation, "mean", lambda *parts: next(coming))
    changes = ("outer.steps=6", "outer.validate_every=1", "inner.steps=1", f"outer.early_stop={wanted}")
    prime(tiny(tmp_path / "run", *changes), quiet=True)
    assert [line["step"] for line in metrics(tmp_path / "run")] == [*range(taken + 1)]
    assert card(tmp_path / "run" / "primed")["provenance"]["steps"] == best
    newest = newest_checkpoint(tmp_path / "run" / "state")
    assert newest is not None
    assert newest.step == taken
    assert ("outer.early_stop" in caplog.text) == (taken < 6)


def test_a_run_that_was_killed_after_its_early_end_takes_no_further_step(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coming = iter([3.0, 1.0, 1.0])
    monkeypatch.setattr(Validation, "mean", lambda *parts: next(coming))
    config = tiny(tmp_path / "run", "outer.steps=6", "outer.validate_every=1", "outer.early_stop=2")
    with monkeypatch.context() as patched:
        patched.setattr(module, "save_primed", lambda *parts: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prime(config, quiet=True)
    prime(config, resume=True, quiet=True)
    assert [line["step"] for line in metrics(tmp_path / "run")] == [0, 1, 2]
    assert card(tmp_path / "run" / "primed")["provenance"]["steps"] == 0


def test_a_finished_run_is_refused_or_returned(primed_run: Config, tiny: MakeConfig) -> None:
    output = Path(primed_run.run.output)
    before = tree(output)
    with pytest.raises(MetaprimeError, match="already holds this run: continue it with --resume"):
        prime(primed_run)
    assert prime(primed_run, resume=True).path == output / "primed"
    other = tiny(output, "inner.lr=0.01")
    for resume in (False, True):
        with pytest.raises(MetaprimeError, match="holds another run"):
            prime(other, resume=resume)
    assert tree(output) == before


def test_overwrite_starts_anew(tiny: MakeConfig, tmp_path: Path) -> None:
    prime(tiny(tmp_path / "run", *QUICK))
    (tmp_path / "run" / "transfer").mkdir()
    prime(tiny(tmp_path / "run", *QUICK, "outer.steps=1"), overwrite=True)
    assert len(metrics(tmp_path / "run")) == 1
    assert not (tmp_path / "run" / "transfer").exists()


def test_resume_goes_on_from_the_checkpoint_and_ends_alike(tiny: MakeConfig, tmp_path: Path) -> None:
    whole, broken = (tiny(tmp_path / name, "outer.checkpoint_every=1") for name in ("whole", "broken"))
    prime(whole)
    prime(broken)
    for name in ("primed", "state/step-00000004"):
        for path in sorted((tmp_path / "broken" / name).rglob("*"), reverse=True):
            path.unlink()
        (tmp_path / "broken" / name).rmdir()
    with (tmp_path / "broken" / "metrics.jsonl").open("a") as lines:
        # Cut off in the middle.
        lines.write('{"step": 5, "volatile": {"seconds": 0.1}')
    prime(broken, resume=True)
    for name in ("model.safetensors", "metaprime.safetensors"):
        both = [(tmp_path / run / "primed" / name).read_bytes() for run in ("whole", "broken")]
        assert both[0] == both[1]
    assert [line["step"] for line in metrics(tmp_path / "broken")] == [0, 1, 2, 3, 4]
    counts = [
        [Spent(line["subwords"], line["volatile"].get("flops")) for line in metrics(tmp_path / run)[1:]]
        for run in ("whole", "broken")
    ]
    assert [[step.flops is not None for step in steps] for steps in counts] == [
        [True, False, False, False],
        [True, False, False, True],
    ]
    assert estimated_flops(counts[0]) == estimated_flops(counts[1]) is not None


def test_resume_before_the_first_checkpoint_begins_anew(
    tiny: MakeConfig, tmp_path: Path, primed_run: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(tmp_path / "run")
    with monkeypatch.context() as patched:
        # Stopped in the first step.
        patched.setattr(Starts, "carry", lambda *parts: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prime(config)
    assert [line["step"] for line in metrics(tmp_path / "run")] == [0]
    assert newest_checkpoint(tmp_path / "run" / "state") is None
    folder = prime(config, resume=True).path
    assert [line["step"] for line in metrics(tmp_path / "run")] == [0, 1, 2, 3, 4]
    assert distance(folder, Path(primed_run.run.output) / "primed") == 0


def test_resume_refuses_other_base_weights(tiny: MakeConfig, toy_bert: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_bert, tmp_path / "base")
    config = tiny(tmp_path / "run", *QUICK, f"encoder.name={tmp_path / 'base'}")
    shutil.copytree(prime(config).path, tmp_path / "primed")
    shutil.rmtree(tmp_path / "run" / "primed")
    shutil.copy(tmp_path / "primed" / "model.safetensors", tmp_path / "base")
    with pytest.raises(
        MetaprimeError, match=r"(?s)was started with different inputs.*\nweights of encoder\.name: \w+ -> \w+$"
    ):
        prime(config, resume=True)


def test_shuffled_tags_prime_differently_from_the_same_sentences(
    tiny: MakeConfig, primed_run: Config, tmp_path: Path
) -> None:
    prime(tiny(tmp_path / "run", *QUICK, "task.shuffle_tags=true"))
    shuffled, real = metrics(tmp_path / "run"), metrics(primed_run.run.output)
    assert [line["languages"] for line in shuffled] == [line["languages"] for line in real[1:3]]
    assert shuffled[0]["query_loss"] != real[1]["query_loss"]


@pytest.mark.parametrize(("precision", "code"), [("bf16", 2), ("no", 0)])
def test_mixed_precision_is_refused(tiny: MakeConfig, tmp_path: Path, precision: str, code: int) -> None:
    (tmp_path / "config.yaml").write_text(tiny(tmp_path / "run", *QUICK).as_yaml(), encoding="utf-8")
    # In a process of its own: accelerate keeps the first answer.
    done = subprocess.run(
        [sys.executable, "-m", "metaprime", "prime", str(tmp_path / "config.yaml")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={
            **os.environ,
            "ACCELERATE_MIXED_PRECISION": precision,
            "ACCELERATE_USE_CPU": "true",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        },
    )
    assert done.returncode == code, done.stderr
    refusal = (
        "error: mixed precision bf16 cannot be set by the launcher: launch with --mixed_precision no, "
        "and set encoder.precision: bfloat16 instead"
    )
    assert (refusal in done.stderr) == (code == 2)
    assert (tmp_path / "run").exists() == (code == 0)


ROLLING = (
    "outer.steps=18",
    "outer.checkpoint_every=4",
    "outer.warmup=0",
    "outer.rollback=true",
    "outer.validate_every=5",
)


def diverging(monkeypatch: pytest.MonkeyPatch, halvings: int) -> None:
    """The 15th step diverges until the rates are halved so many times."""

    def check(self: Guards, config: OuterConfig, outcome: Outcome, step: int) -> None:
        if step == 14 and self.halvings < halvings:
            raise Diverged("step 15: it diverges")

    monkeypatch.setattr(Guards, "check", check)


def test_a_run_that_diverges_goes_back_and_on_at_half_the_rate(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    diverging(monkeypatch, 2)
    prime(tiny(tmp_path / "run", *ROLLING))
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [*range(19)]
    # The checkpoint was at step 12.
    assert [line.get("outer_halvings", 0) for line in lines] == [0] * 13 + [2] * 6
    rates = [line["lr"] for line in lines[1:]]
    assert rates == pytest.approx([1e-3 * (18 - step) / 18 / (1 if step < 12 else 4) for step in range(18)])
    assert caplog.messages == [
        f"step 15: it diverges. Back to step 12, outer.lr halved ({time} of 3)" for time in (1, 2)
    ]
    # Killed after that, and resumed, it is the same run.
    with monkeypatch.context() as patched:
        honest = Starts.carry
        carried: list[Outcome] = []

        def twenty_times(starts: Starts, outcome: Outcome) -> None:
            if len(carried) == 20:
                raise ZeroDivisionError
            carried.append(outcome)
            honest(starts, outcome)

        patched.setattr(Starts, "carry", twenty_times)
        with pytest.raises(ZeroDivisionError):
            prime(tiny(tmp_path / "broken", *ROLLING))
    assert metrics(tmp_path / "broken")[-1]["outer_halvings"] == 2
    prime(tiny(tmp_path / "broken", *ROLLING), resume=True)
    for name in ("model.safetensors", "metaprime.safetensors"):
        both = [(tmp_path / run / "primed" / name).read_bytes() for run in ("run", "broken")]
        assert both[0] == both[1]
    stable = [
        [{k: v for k, v in line.items() if k != "volatile"} for line in metrics(tmp_path / r)]
        for r in ("run", "broken")
    ]
    assert stable[0] == stable[1]


def test_a_run_that_diverges_before_its_first_checkpoint_begins_again(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverging(monkeypatch, 1)
    prime(tiny(tmp_path / "run", *ROLLING, "outer.checkpoint_every=100"))
    monkeypatch.undo()
    lines = metrics(tmp_path / "run")
    assert [line.get("outer_halvings", 0) for line in lines] == [0] + [1] * 18
    # Nothing of the first try is left in the second: it is the run that had half the rate from the beginning.
    prime(tiny(tmp_path / "half", *ROLLING, "outer.checkpoint_every=100", "outer.lr=5e-4"))
    assert distance(tmp_path / "run" / "primed", tmp_path / "half" / "primed") == 0


@pytest.mark.parametrize("rollback", [True, False])
def test_a_run_that_keeps_diverging_ends_and_the_last_checkpoint_stays(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, rollback: bool
) -> None:
    diverging(monkeypatch, 100)
    with pytest.raises(Diverged, match="step 15: it diverges"):
        prime(tiny(tmp_path / "run", *ROLLING, f"outer.rollback={rollback}"))
    assert len(caplog.messages) == (3 if rollback else 0)
    last = newest_checkpoint(tmp_path / "run" / "state")
    assert last is not None
    assert last.step == 12


def test_last_weights_that_are_not_finite_are_not_saved(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Starts.carry

    def broken(starts: Starts, outcome: Outcome) -> None:
        honest(starts, outcome)
        with torch.no_grad():
            starts.state.head["head.bias"].fill_(float("nan"))

    config = tiny(tmp_path / "run", *QUICK, "outer.steps=1")
    with monkeypatch.context() as patched:
        patched.setattr(Starts, "carry", broken)
        with pytest.raises(
            MetaprimeError, match=r"step 1: the weights of head \(first head\.bias\) are not finite after this step"
        ):
            prime(config)
    assert newest_checkpoint(tmp_path / "run" / "state") is None
    assert not (tmp_path / "run" / "primed").exists()


def test_resuming_with_other_settings_says_which_and_goes_on_when_forced(
    tiny: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prime(tiny(tmp_path / "run", *QUICK))
    longer = tiny(tmp_path / "run", "outer.validate_every=0", "outer.steps=3", "outer.lr=5e-4")
    with pytest.raises(
        MetaprimeError, match=r"holds another run.*--force\nouter\.lr: 0\.001 -> 0\.0005\nouter\.steps: 2 -> 3$"
    ):
        prime(longer, resume=True)
    folder = prime(longer, resume=True, force=True).path
    assert "resuming with another config: outer.steps: 2 -> 3" in caplog.messages
    assert card(folder)["provenance"]["steps"] == 3
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2, 3]
    # It is this one's now.
    assert prime(longer, resume=True).path == folder
    with pytest.raises(MetaprimeError, match=r"outer\.steps is 1, but .* is at step 3: raise it"):
        prime(tiny(tmp_path / "run", *QUICK, "outer.steps=1"), resume=True, force=True)


def test_resuming_with_other_sentences_says_of_which_language(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for language in ("qaa", "qaf", "qac"):
        (tmp_path / "corpus" / language).mkdir(parents=True)
        for split in ("train", "validation"):
            sentences = [f"Ada\tB-PER\nnaps\tO\n{language}{n}\tO\n" for n in range(12)]
            (tmp_path / "corpus" / language / f"{split}.conll").write_text("\n".join(sentences), encoding="utf-8")
    config = tiny(tmp_path / "run", f"data.source=conll:{tmp_path / 'corpus'}", "outer.checkpoint_every=1")
    with monkeypatch.context() as patched:
        patched.setattr(module, "save_primed", lambda *parts: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prime(config)
    for file in ("qaf/train.conll", "qac/validation.conll"):
        place = tmp_path / "corpus" / file
        place.write_text(place.read_text("utf-8").replace("naps", "sleeps", 1), encoding="utf-8")
    with pytest.raises(
        MetaprimeError,
        match=r"(?s)was started with different inputs.*\nsentences of qaf: \w+ -> \w+\n"
        r"sentences of qac \(held out\): \w+ -> \w+$",
    ):
        prime(config, resume=True)
    assert (prime(config, resume=True, force=True).path / "model.safetensors").is_file()


def test_the_inner_gradient_is_where_the_loop_sends_its_reader() -> None:
    assert "from metaprime.meta.maml import step" in inspect.getsource(LEARNERS["peft_maml"].step)
    assert "meta/maml.py" in Path(str(inspect.getsourcefile(prime))).read_text("utf-8")
