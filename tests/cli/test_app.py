"""The command line: every kind of bad input ends in exit code 2, a message with a remedy, and nothing half-written."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command import Run, refused

from metaprime.priming.outer import OuterLoop
from metaprime.runs.checkpoint import newest_checkpoint

TINY = """
run: {output: %(output)s}
encoder: {name: %(encoder)s}
data:
  languages: [qaa, qaf]
  validation_languages: [qac]
  target_languages: [qai]
episodes: {per_step: 2, support: 2, query: 4}
peft: {method: pfeiffer, bottleneck: 4}
inner: {steps: 2}
outer: {steps: 2, validate_every: 2, checkpoint_every: 1}
transfer: {shots: 8, steps: 4, batch: 4, test_sentences: 20, methods: [pfeiffer, head]}
"""
GOOD = "Ada\tB-PER\nnaps\tO\n\n"


@pytest.fixture
def config(tmp_path: Path, toy_bert: Path) -> Path:
    """A config file that primes the toy into `<tmp_path>/run`."""
    file = tmp_path / "config.yaml"
    file.write_text(TINY % {"output": tmp_path / "run", "encoder": toy_bert}, encoding="utf-8")
    return file


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A CoNLL corpus in which every language is as it should be."""
    root = tmp_path / "corpus"
    for language in ("qaa", "qaf", "qac", "qai"):
        (root / language).mkdir(parents=True)
        for split in ("train", "validation", "test"):
            sentences = (f"Ada\tB-PER\nnaps\tO\n{language}{n}\tO\n" for n in range(12))
            (root / language / f"{split}.conll").write_text("\n".join(sentences), encoding="utf-8")
    return root


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("command", ["prime", "transfer", "predict", "demo"])
def test_every_command_explains_itself(run: Run, command: str) -> None:
    for flag in ("--help", "-h"):
        ended = run(command, flag)
        assert ended.code == 0
        assert command in ended.out
        assert "Usage" in ended.out


def test_no_command_lists_them(run: Run) -> None:
    ended = run()
    assert all(command in ended.out + ended.err for command in ("prime", "transfer", "predict", "demo"))
    assert run("prim").code == 2
    assert run("prime").code == 2


def test_the_two_commands_and_predict(run: Run, config: Path, tmp_path: Path) -> None:
    primed = run("prime", config, "outer.steps=1")
    assert primed.code == 0
    assert f"primed encoder: {tmp_path / 'run' / 'primed'}" in primed.out.replace("\n", "")
    done = run("transfer", config, "outer.steps=1")
    assert done.code == 0
    for word in ("lenient F1", "strict F1", "qai", "pfeiffer", "head", "records:"):
        assert word in done.out
    tagged = run("predict", tmp_path / "run" / "transfer" / "primed" / "qai-pfeiffer-k8-s0", "Ada naps.")
    assert tagged.code == 0
    assert [line.split("\t")[0] for line in tagged.out.splitlines()] == ["Ada", "naps", "."]
    refused(run("predict", tmp_path / "run" / "transfer" / "primed" / "qai-pfeiffer-k8-s0", " "), "no word")
    refused(run("predict", tmp_path, "Ada"), str(tmp_path), "metaprime.json", "give a folder")

    # Files keep their form; bytes that are not UTF-8 are a mistake, in a file and on the command line.
    cell, columns = tmp_path / "run" / "transfer" / "primed" / "qai-pfeiffer-k8-s0", tmp_path / "a.conll"
    columns.write_text("U.S.\tX\n\nnaps\tX\n", encoding="utf-8")
    tagged = run("predict", cell, columns)
    assert tagged.code == 0
    assert [line.split("\t")[:2] for line in tagged.out.splitlines()] == [["U.S.", "X"], [""], ["naps", "X"]]
    assert run("predict", cell, "--tokens", "U.S. naps").out.splitlines()[0].startswith("U.S.\t")
    refused(run("predict", cell, "caf\udce9 bono"), "not UTF-8", "convert")
    refused(run("predict", cell, tmp_path / "none.txt"), "none.txt: no such file")

    # A cell is scored on another language.
    scored = run("evaluate", cell, "synthetic:", "qao", "qai", "--json")
    assert scored.code == 0
    assert list(json.loads(scored.out)) == ["qao", "qai"]
    assert "lenient F1" in run("evaluate", cell, "synthetic:", "qao").out


@pytest.mark.parametrize("command", ["prime", "transfer"])
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["inner.stepz=3"], ["unknown key inner.stepz", "did you mean steps?"]),
        (["inn.steps=3"], ["unknown key inn", "did you mean inner?"]),
        (["inner.steps=three"], ["inner.steps", "integer", "'three'"]),
        (["inner.lr=-0.1"], ["inner.lr", "greater than 0", "-0.1"]),
        (["transfer.shots=-1"], ["transfer.shots", "greater than or equal to 0"]),
        (["peft.method=adapterr"], ["'adapterr'", "known: pfeiffer"]),
        (["inner.steps"], ["'inner.steps'", "section.key=value"]),
        (["encoder.name=/no/such/folder"], ["encoder.name", "/no/such/folder"]),
        (["data.source=synthetic"], ["data.source", "'synthetic'", "did you mean synthetic:?"]),
        (["data.source=conl:x"], ["data.source", "'conl:x'", "did you mean conll:?"]),
        (["data.source=conll:/no/such/corpus"], ["/no/such/corpus", "data.source"]),
        (["data.source=synthetic:x"], ["synthetic:x", "whole number"]),
        (["task.labels=[PER]"], ["sentence ", "neither in task.labels ['PER'] nor", "task.label_map"]),
    ],
)
def test_bad_input_leaves_nothing(
    run: Run, config: Path, tmp_path: Path, command: str, overrides: list[str], words: list[str]
) -> None:
    base = ["transfer.encoder=base"] if command == "transfer" else []
    refused(run(command, config, *base, *overrides), *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["prime", "transfer"])
def test_a_config_that_is_not_there(run: Run, tmp_path: Path, command: str) -> None:
    refused(run(command, tmp_path / "none.yaml"), f"{tmp_path / 'none.yaml'} does not exist")


@pytest.mark.parametrize(
    ("command", "overrides", "words"),
    [
        ("prime", ["inner.steps=0"], ["inner.steps", "at least 1"]),
        ("prime", ["peft={method: full}"], ["'full' has no adapter"]),
        ("prime", ["data.languages=[qaa, xx]"], ["'xx'", "it has qaa"]),
        ("prime", ["data.validation_languages=[xx]"], ["'xx'", "it has qaa"]),
        ("prime", ["data.train_split=trian"], ["'trian'", "train, validation, test"]),
        ("prime", ["data.validation_split=dev"], ["'dev'", "train, validation, test"]),
        ("prime", ["data.languages=[]"], ["data.languages is empty", "at least one"]),
        ("transfer", ["data.target_languages=[xx]"], ["'xx'", "it has qaa"]),
        ("transfer", ["data.target_languages=[]"], ["data.target_languages is empty"]),
        ("transfer", ["data.test_split=dev"], ["'dev'", "train, validation, test"]),
        ("transfer", ["data.target_source=conll:/no/such"], ["/no/such"]),
        ("transfer", ["transfer.shots=100000"], ["'qai'", "1000", "transfer.shots asks for 100000", "lower it"]),
        ("prime", ["transfer.shots=100000"], ["'qac'", "1000", "transfer.shots asks for 100000", "lower it"]),
        ("prime", ["episodes.query=2000"], ["'qaa'", "episodes.query", "2004", "lower"]),
        ("prime", ["run.output=%(file)s"], ["is a file; choose another"]),
        ("transfer", ["run.output=%(file)s"], ["is a file; choose another"]),
        ("prime", ["run.output=%(file)s/run"], ["config.yaml is a file; choose another"]),
        ("transfer", ["run.output=%(file)s/run"], ["config.yaml is a file; choose another"]),
        (
            "prime",
            ["learner.name=multitask", "learner.backend=learn2learn"],
            ["computes peft_maml,", "not 'multitask'"],
        ),
        (
            "prime",
            ["inner.optimizer=adam", "learner.backend=learn2learn"],
            ["inner.optimizer: sgd", "learner.backend: torch"],
        ),
    ],
)
def test_a_language_split_or_number_that_does_not_fit(
    run: Run, config: Path, tmp_path: Path, command: str, overrides: list[str], words: list[str]
) -> None:
    base = ["transfer.encoder=base"] if command == "transfer" else []
    refused(run(command, config, *base, *[text % {"file": config} for text in overrides]), *words)
    assert not (tmp_path / "run").exists()


def damage_one_column(file: Path) -> list[str]:
    file.write_text(GOOD * 12 + "lonely\n", encoding="utf-8")
    return [f"{file}:37", "'lonely' has one column", "a token and its tag"]


def damage_tag(file: Path) -> list[str]:
    file.write_text(GOOD * 12 + "May\tB-DATE\n", encoding="utf-8")
    return [f"{file}:37", "unmapped type", "task.label_map: {DATE: O}"]


def damage_encoding(file: Path) -> list[str]:
    file.write_bytes((GOOD * 12).encode() + "Zoë\tB-PER\n".encode("latin1"))
    return [f"{file}:37", "0xeb is not UTF-8", "data.encoding"]


def remove_split(file: Path) -> list[str]:
    file.rename(file.with_name("trian.conll"))
    return [f"{file}", "no such split", "trian.conll"]


def remove_language(file: Path) -> list[str]:
    file.parent.rename(file.parent.with_name("qaz"))
    return [f"{file.parent}", "no such language", "qaz"]


def too_few(file: Path) -> list[str]:
    file.write_text("\n".join(f"word{n}\tB-PER\n" for n in range(7)), encoding="utf-8")
    return ["'qaf' has 7 different sentences, one episode takes 8", "episodes.support"]


@pytest.mark.parametrize(
    "damage", [damage_one_column, damage_tag, damage_encoding, remove_split, remove_language, too_few]
)
def test_a_corpus_with_a_mistake_in_it(
    run: Run, config: Path, corpus: Path, tmp_path: Path, damage: Callable[[Path], list[str]]
) -> None:
    words = damage(corpus / "qaf" / "train.conll")
    refused(run("prime", config, f"data.source=conll:{corpus}"), *words)
    assert not (tmp_path / "run").exists()


def test_that_corpus_without_the_mistake(run: Run, config: Path, corpus: Path, tmp_path: Path) -> None:
    assert run("prime", config, f"data.source=conll:{corpus}", "outer.steps=1").code == 0
    assert (tmp_path / "run" / "primed").is_dir()


@pytest.mark.parametrize("command", ["prime", "transfer"])
def test_an_architecture_without_a_row_names_the_sites_it_needs(
    run: Run, config: Path, tmp_path: Path, command: str
) -> None:
    folder = tmp_path / "distil"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "mpnet"}), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"")
    ended = run(command, config, f"encoder.name={folder}", "transfer.encoder=base")
    refused(ended, "'mpnet'", "encoder.sites", "bert, roberta", "query", "attention_out", "ffn_in", "ffn_norm")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ["holds no config.json"]),
        ({"config.json": '{"model_type": "bert"}'}, ["holds no *.safetensors"]),
        (
            {"config.json": '{"model_type": "bert"}', "pytorch_model.bin": ""},
            ["is a pickle", "Convert it once", "python -c"],
        ),
        ({"config.json": "{", "model.safetensors": ""}, ["cannot be loaded"]),
    ],
)
def test_a_folder_that_is_no_encoder(
    run: Run, config: Path, tmp_path: Path, files: dict[str, str], words: list[str]
) -> None:
    folder = tmp_path / "encoder"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    refused(run("prime", config, f"encoder.name={folder}"), "encoder.name", str(folder), *words)
    assert not (tmp_path / "run").exists()


def test_an_output_that_holds_something_else_stays_as_it_is(run: Run, config: Path, tmp_path: Path) -> None:
    assert run("prime", config, "outer.steps=1").code == 0
    before = tree(tmp_path / "run")
    refused(run("prime", config), "holds another run", "config.yaml", "run.output", "--overwrite")
    refused(run("prime", config, "--resume"), "holds another run")
    refused(run("prime", config, "outer.steps=1"), "already holds this run", "--resume", "--overwrite")
    refused(run("prime", config, "outer.steps=1", "--resume", "--overwrite"), "exclude each other")
    assert run("prime", config, "outer.steps=1", "--resume").code == 0
    assert run("transfer", config, "outer.steps=1").code == 0
    assert {name: value for name, value in tree(tmp_path / "run").items() if name in before} == before
    whole = tree(tmp_path / "run")
    refused(run("transfer", config, "transfer.steps=5"), "other settings", "run.output", "--overwrite")
    assert tree(tmp_path / "run") == whole
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    for flag in ([], ["--overwrite"]):
        refused(run("prime", config, f"run.output={tmp_path / 'mine'}", *flag), "notes.txt", "choose another")
    assert tree(tmp_path / "mine") == {"notes.txt": b"precious"}


@pytest.mark.parametrize("command", ["prime", "transfer"])
def test_a_folder_named_base_that_is_not_the_embedded_encoder_stays(
    run: Run, config: Path, tmp_path: Path, command: str
) -> None:
    (tmp_path / "run" / "base").mkdir(parents=True)
    (tmp_path / "run" / "base" / "notes.txt").write_text("precious")
    choice = ["encoder.name='synthetic:'", "encoder.pretrain.steps=1", "transfer.encoder=base"]
    refused(run(command, config, *choice), str(tmp_path / "run" / "base"), "choose another run.output")
    assert tree(tmp_path / "run") == {"base/notes.txt": b"precious"}


def test_transfer_before_prime_says_so(run: Run, config: Path, tmp_path: Path) -> None:
    refused(run("transfer", config), "metaprime prime", "transfer.encoder")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_and_the_last_checkpoint_stays(
    run: Run, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = OuterLoop.step

    def diverging(self: OuterLoop, step: int, *rest: Any) -> float:
        norm = honest(self, step, *rest)
        if step == 3:
            with torch.no_grad():
                next(iter(self.learning.values())).fill_(float("nan"))
        return norm

    monkeypatch.setattr(OuterLoop, "step", diverging)
    ended = run("prime", config, "outer.steps=8", "outer.checkpoint_every=1", "outer.validate_every=0")
    refused(ended, "step 5", "language qa", "not finite", "lower outer.lr", "last checkpoint is kept")
    found = newest_checkpoint(tmp_path / "run" / "state")
    assert found is not None
    # The weights of step 4 are broken already.
    assert found.step == 3
    assert all(bool(torch.isfinite(value).all()) for value in found.tensors.values())
    assert not (tmp_path / "run" / "primed").exists()
    assert list((tmp_path / "run").rglob(".*")) == []


def test_bad_seeds_of_the_demo(run: Run, tmp_path: Path) -> None:
    for text in ("x", "3-1", "1-2-3", ""):
        refused(run("demo", "--seeds", text), "--seeds", "FIRST-LAST")


def test_as_a_process_of_its_own(config: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "metaprime", "prime", str(config), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)

    bad = call("inner.stepz=3")
    assert bad.returncode == 2
    assert bad.stderr.splitlines() == ["error: override 'inner.stepz=3': unknown key inner.stepz; did you mean steps?"]
    assert not (tmp_path / "run").exists()
    good = call("outer.steps=1")
    assert good.returncode == 0, good.stderr
    assert "Traceback" not in good.stderr
    assert "Warning" not in good.stderr
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text("utf-8"))["outer"]["steps"] == 1
    assert (tmp_path / "run" / "primed" / "model.safetensors").is_file()


def test_a_command_rarely_looks_for_garbage_in_cycles(run: Run) -> None:
    before = gc.get_threshold()
    try:
        run("--version")
        assert gc.get_threshold()[0] >= 100_000
        assert gc.isenabled()
    finally:
        gc.set_threshold(*before)
