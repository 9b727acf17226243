"""Every kind of task: primed, tuned and predicted; packed as padded, looped as together, gradients as differences."""

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
from accelerate import Accelerator
from safetensors.torch import load_file
from toy_config import MakeConfig
from toy_kinds import TASKS, write
from toy_launch import launch

from metaprime.config.sections import Config
from metaprime.data.episodes import sample
from metaprime.files import save_tensors
from metaprime.meta import Way
from metaprime.models.sites import LAYOUTS
from metaprime.packing import padded_calls
from metaprime.peft import METHODS
from metaprime.preflight.cost import estimate
from metaprime.preflight.early import Early
from metaprime.preflight.gradients import examine_gradients
from metaprime.priming.prime import prime
from metaprime.priming.setup import set_up
from metaprime.priming.step import draw
from metaprime.runs.artifact import load_artifact
from metaprime.tasks import TASKS as KINDS
from metaprime.tasks import audit_of, settings_of, task_kind
from metaprime.transfers.export import export
from metaprime.transfers.predict import evaluate, load
from metaprime.transfers.transfer import transfer
from metaprime.types import MetaprimeError, Params

FAMILIES = ("bert", "roberta", "distilbert", "electra", "deberta-v2", "modernbert")
LIKE_BERT = ("roberta", "distilbert", "electra")
"""Their batches take the way of BERT's through a task: they are tried where there is time."""


def test_every_kind_is_here() -> None:
    assert {task.split("name: ")[1].split(",")[0] for task in TASKS.values()} == set(KINDS)
    assert set(FAMILIES) <= set(LAYOUTS)
    for name in KINDS:
        config = settings_of(name)()
        assert task_kind(config).name == name
        audit = audit_of(config)
        assert audit
        assert task_kind(config).audit is not None


@pytest.mark.parametrize("task", TASKS)
def test_primed_transferred_and_predicted(tiny: MakeConfig, tmp_path: Path, task: str) -> None:
    config = tiny(tmp_path / "run", *write(task, tmp_path / "data"))
    prime(config)
    (result, *_) = transfer(config)
    folder = Path(result.path)
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text("utf-8").splitlines()]
    kind = task_kind(config.task)
    again = evaluate(folder, config.data.source, ["en"])["en"]
    assert again.details == result.record["scores"]
    assert kind.metric.of(again.details) == again.headline
    # What is predicted for a text now is what the transfer predicted.
    assert load_artifact(folder).task == config.task.for_encoder(None).for_language("en")
    predictor = load(folder)
    task_of = predictor.task
    examples = task_of.read(config.data.source, "en", config.data.test_split)
    assert len(examples) == len(lines)
    assert [kind.to_json(one, line["predicted"]) for one, line in zip(examples, lines, strict=True)] == lines
    if kind.statistics:
        sums = torch.tensor([kind.statistics.of_example(line) for line in lines], dtype=torch.float64).sum(0).numpy()
        assert float(kind.statistics.of_sums(sums)) == pytest.approx(again.headline, abs=1e-9)


@pytest.mark.parametrize("task", ["classification", "span_pairs"])
def test_episodes_and_samples_have_every_class_in_proportion(tiny: MakeConfig, tmp_path: Path, task: str) -> None:
    changes = [*write(task, tmp_path / "data"), "episodes.support=4", "episodes.query=4", "inner.steps=2"]
    config = tiny(tmp_path / "run", *changes)
    run = set_up(config, Accelerator())
    for step in range(20):
        _, rows = run.sampler.draw(step, 0)
        parts = rows[:8], rows[8:]
        assert len({row.example.words for row in rows}) == 12
        for part in parts:
            assert len({row.windows[0].labels for row in part}) == 2
            assert sum(row.windows[0].labels[0] for row in part) * 2 == len(part)
    assert run.sampler.draw(3, 0) == run.sampler.draw(3, 0) != run.sampler.draw(4, 0)
    rows = run.task.encode(run.task.read(config.data.source, "en", "train"))
    ten, thirty = (sample(rows, count, 0, "en", run.task.stratum) for count in (10, 30))
    assert ten == thirty[:10]
    assert sum(row.windows[0].labels[0] for row in ten) == 5
    assert sample(rows, 10, 1, "en", run.task.stratum) != ten


def test_a_sample_without_every_class_is_refused_and_so_is_a_class_that_is_scored_alone(
    tiny: MakeConfig, tmp_path: Path
) -> None:
    changes = write("classification", tmp_path / "data")
    few = tiny(tmp_path / "run", *changes, "transfer.encoder=base", "transfer.shots=[1, 8]")
    told = r"transfer\.shots 1 is smaller than the number of classes, 2"
    with pytest.raises(MetaprimeError, match=told):
        Early(few).transfer()
    with pytest.raises(MetaprimeError, match=told):
        transfer(few)
    train = tmp_path / "data" / "en" / "train.jsonl"
    lines = [line for line in train.read_text("utf-8").splitlines() if '"no"' not in line]
    train.write_text("\n".join(lines) + "\n", "utf-8")
    lacking = tiny(tmp_path / "other", *changes, "transfer.encoder=base")
    with pytest.raises(
        MetaprimeError, match=r"en/train: no text has the class 'no' \(30 times\), which the texts to be"
    ):
        transfer(lacking)
    assert not (tmp_path / "other" / "transfer").exists()


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[pytest.mark.slow] if name in LIKE_BERT else []) for name in FAMILIES]
)
@pytest.mark.parametrize("task", TASKS)
def test_packed_is_padded_and_one_pass_is_a_loop(
    tiny: MakeConfig,
    toy_encoder: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    family: str,
) -> None:
    encoder = f"encoder.name={toy_encoder(family)}"
    run = set_up(tiny(tmp_path / "run", *write(task, tmp_path / "data"), encoder), Accelerator())
    # DeBERTa's attention has terms of its own, for which batches stay padded.
    assert run.model.packed == (family != "deberta-v2")
    # Toy batches are too full to be packed otherwise.
    monkeypatch.setattr("metaprime.packing.NEARLY_FULL", 1.1)
    run.model.double()
    drawn = draw(run, 0)
    start = {name: value.double() for name, value in run.starts.values(0, drawn.indices).items()}

    def gradients(**changes: object) -> Params:
        """Returns the outer gradient of one way to compute it."""
        inner = run.inner.executed(subwords=None, **changes)
        return run.learner.step(run.loss, run.state.backbone, start, drawn, inner).gradients

    packed = gradients(way=Way.ONE_PASS, packed=True)
    with padded_calls():
        padded = gradients(way=Way.ONE_PASS, packed=False)
    assert all(value.abs().max() > 0 for name, value in padded.items() if name.startswith(("adapter", "head.w")))
    for name, found in packed.items():
        torch.testing.assert_close(found, padded[name], rtol=1e-9, atol=1e-10)
    for name, found in gradients(way=Way.LOOP, packed=True).items():
        torch.testing.assert_close(found, padded[name], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("family", "pooling"), [("bert", "mean"), ("modernbert", "first")])
def test_pooling_is_the_encoders_own_and_said_in_what_is_saved(
    tiny: MakeConfig, toy_encoder: Callable[[str], Path], tmp_path: Path, family: str, pooling: str
) -> None:
    changes = [*write("classification", tmp_path / "data"), f"encoder.name={toy_encoder(family)}"]
    config = tiny(tmp_path / "run", *changes, "transfer.encoder=base")
    (result,) = transfer(config)
    assert load_artifact(Path(result.path)).task == config.task.model_copy(update={"pooling": pooling})


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.injects])
@pytest.mark.parametrize("task", TASKS)
def test_every_method_moves_with_every_kind_together_as_one_by_one(
    tiny: MakeConfig, tmp_path: Path, task: str, method: str
) -> None:
    changes = [*write(task, tmp_path / "data"), "transfer.seeds=[0, 1]", f"transfer.methods=[{method}]"]
    together = transfer(tiny(tmp_path / "a", *changes, "transfer.encoder=base"))
    for result in together:
        trained = load_artifact(Path(result.path)).values
        assert all(torch.isfinite(value.double()).all() for value in trained.values())
    for seed, result in enumerate(together):
        (alone,) = transfer(tiny(tmp_path / f"b{seed}", *changes, "transfer.encoder=base", f"transfer.seeds=[{seed}]"))
        ours, theirs = (load_artifact(Path(one.path)).values for one in (result, alone))
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "learner", ["peft_maml", *(pytest.param(name, marks=pytest.mark.slow) for name in ("maml", "multitask"))]
)
@pytest.mark.parametrize("task", TASKS)
def test_meta_gradients_are_those_of_differences(tiny: MakeConfig, tmp_path: Path, task: str, learner: str) -> None:
    report = examine_gradients(tiny(tmp_path / "run", *write(task, tmp_path / "data"), f"learner.name={learner}"))
    assert report.passed, report.rows()


@pytest.mark.parametrize(
    ("task", "auto_class"),
    [
        ("pairs", "AutoModelForSequenceClassification"),
        pytest.param("tagging", "AutoModelForTokenClassification", marks=pytest.mark.slow),
        pytest.param("classifications", "AutoModelForSequenceClassification", marks=pytest.mark.slow),
        pytest.param("regression", "AutoModelForSequenceClassification", marks=pytest.mark.slow),
        pytest.param("multiple_choice", "AutoModelForMultipleChoice", marks=pytest.mark.slow),
    ],
)
def test_a_fresh_process_loads_an_export_with_our_answers(
    tiny: MakeConfig, tmp_path: Path, task: str, auto_class: str
) -> None:
    changes = [*write(task, tmp_path / "data"), "transfer.methods=[lora]", "transfer.encoder=base"]
    config = tiny(tmp_path / "run", *changes, *([] if task == "tagging" else ["task.pooling=first"]))
    (result,) = transfer(config)
    predictor = load(result.path)
    examples = predictor.task.read(config.data.source, "en", config.data.test_split)[:8]
    batch = predictor.task.collate(predictor.task.encode(examples))
    with torch.no_grad():
        ours = predictor.task.outputs(predictor.model, batch)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
    if task == "classifications":
        # Classes of `en` stand before those of `fr`.
        ours = ours[:, :3]
    if task == "regression":
        assert predictor.task.plain is not None
        ours = ours * predictor.task.plain.unit + predictor.task.plain.centre
    if task == "multiple_choice":
        ours, inputs = ours.view(8, 3), {name: value.view(8, 3, -1) for name, value in inputs.items()}
    save_tensors(inputs, tmp_path / "inputs.safetensors")
    out = export(result.path, tmp_path / "out", "transformers")
    code = (
        "import sys, transformers, safetensors.torch as files\n"
        "folder, inputs, answers = sys.argv[1:]\n"
        f"model = transformers.{auto_class}.from_pretrained(folder).eval()\n"
        "files.save_file({'logits': model(**files.load_file(inputs)).logits.detach()}, answers)\n"
    )
    places = [str(out), str(tmp_path / "inputs.safetensors"), str(tmp_path / "answers.safetensors")]
    subprocess.run([sys.executable, "-c", code, *places], check=True, capture_output=True)
    theirs = load_file(tmp_path / "answers.safetensors")["logits"]
    if task == "tagging":
        words = batch["attention_mask"].bool()
        ours, theirs = ours[words], theirs[words]
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)
    assert auto_class in (out / "README.md").read_text() or "pipeline(" in (out / "README.md").read_text()


def test_a_choice_with_a_question_is_exported_and_told(tiny: MakeConfig, tmp_path: Path) -> None:
    changes = [*write("multiple_choice", tmp_path / "data"), "transfer.methods=[head]", "transfer.encoder=base"]
    asked = "task={name: multiple_choice, text: text, choices: [a, b, c], question: pair, pooling: first}"
    (result,) = transfer(tiny(tmp_path / "run", *changes, asked))
    card = (export(result.path, tmp_path / "out", "transformers") / "README.md").read_text("utf-8")
    assert "each choice as a pair with the text before it, behind which stands the question." in card
    assert "not for float16" in card
    assert "max_length=" in card


def test_no_head_of_another_task_is_taken_for_ones_own(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", *write("classifications", tmp_path / "data"), "transfer.start_head=primed")
    prime(config)
    with pytest.raises(MetaprimeError, match=r"transfer\.start_head: each task has an output layer of its own"):
        transfer(config)
    own = tiny(tmp_path / "run", *write("classifications", tmp_path / "data"))
    (result,) = transfer(own)
    assert load(result.path).predict([["mali bono", "bono"]], ["a.txt, line 3"])[0] in ("bad", "fair", "good")
    with pytest.raises(MetaprimeError, match=r"a\.txt, line 3: this head has the classes of en, fr"):
        load(tmp_path / "run" / "primed").predict([["mali bono", "bono"]], ["a.txt, line 3"])


def test_a_model_of_two_spans_is_no_class_of_transformers(tiny: MakeConfig, tmp_path: Path) -> None:
    (result,) = transfer(tiny(tmp_path / "run", *write("span_pairs", tmp_path / "data"), "transfer.encoder=base"))
    with pytest.raises(MetaprimeError, match=r"has a head like that of task\.name span_pairs: export the folder"):
        export(result.path, tmp_path / "out", "transformers")
    assert not (tmp_path / "out").exists()


def written(config: Config, file: Path) -> Path:
    """Writes a config as a file of YAML, of which JSON is a part."""
    file.write_text(config.model_dump_json(), "utf-8")
    return file


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_estimated_killed_and_gone_on_with_as_if_never_killed(tiny: MakeConfig, tmp_path: Path, task: str) -> None:
    changes = [*write(task, tmp_path / "data"), "outer.steps=60", "outer.checkpoint_every=5", "inner.lr=0.005"]
    unbroken, killed = (tiny(tmp_path / name, *changes) for name in ("unbroken", "killed"))
    needed = estimate(unbroken)
    assert needed.steps == 60
    assert not (tmp_path / "unbroken").exists()
    prime(unbroken)
    file, log = written(killed, tmp_path / "killed.yaml"), tmp_path / "killed" / "metrics.jsonl"
    command = [sys.executable, "-m", "metaprime", "prime", str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as victim:
        deadline = time.monotonic() + 120
        while not log.is_file() or log.read_bytes().count(b"\n") < 12:
            assert victim.poll() is None, victim.communicate()[1].decode()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        victim.send_signal(signal.SIGKILL)
    assert victim.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "primed").exists()
    prime(killed, resume=True)
    for part in sorted((tmp_path / "unbroken" / "primed").glob("*.safetensors")):
        assert (tmp_path / "killed" / "primed" / part.name).read_bytes() == part.read_bytes(), part.name


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_two_processes_prime_as_one_does(tiny: MakeConfig, tmp_path: Path, task: str) -> None:
    # Adam divides by gradients near zero: a large epsilon keeps their last bits small.
    changes = [*write(task, tmp_path / "data"), "outer.steps=5", "outer.lr=1e-4", "outer.epsilon=1e-4"]
    changes += ["episodes.per_step=2", "outer.adapter=meta"]
    one, two = (tiny(tmp_path / name, *changes) for name in ("one", "two"))
    prime(one)
    done = launch("-m", "metaprime", "prime", str(written(two, tmp_path / "two.yaml")))
    assert done.returncode == 0, done.stderr[-3000:]
    for part in ("model.safetensors", "metaprime.safetensors"):
        ours, theirs = (load_file(tmp_path / name / "primed" / part) for name in ("two", "one"))
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-6)
