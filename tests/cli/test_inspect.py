"""The commands that examine something before a run: what they print, their exit codes, and one JSON value with --json."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import Run, refused
from toy_config import MakeConfig
from toy_corpus import SIZES, corpus
from typer.testing import CliRunner

from metaprime.cli.app import app
from metaprime.config.loading import load_config
from metaprime.config.sections import Config
from metaprime.meta import LEARNERS, Outcome
from metaprime.peft import METHODS
from metaprime.preflight import cost, gradients, methods
from metaprime.preflight.cost import Estimate
from metaprime.preflight.methods import COUNTS, METHOD_HEADER, Module, Size, list_rows
from metaprime.runs import artifact
from metaprime.transfers import export
from metaprime.types import MetaprimeError

NEEDS = Estimate("cpu", 4, 1.5, 96.0, 120, 300.0, 2000.0)


@pytest.fixture
def file(tiny: MakeConfig, tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(tiny(tmp_path / "run").as_yaml(), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "command",
    [
        ("doctor",),
        ("validate",),
        ("estimate",),
        ("data",),
        ("data", "check"),
        ("peft",),
        ("peft", "list"),
        ("peft", "show"),
        ("peft", "export"),
    ],
)
def test_every_command_explains_itself(run: Run, command: tuple[str, ...]) -> None:
    for flag in ("--help", "-h"):
        ended = run(*command, flag)
        assert ended.code == 0
        assert "Usage: " in ended.out
        assert f"metaprime {' '.join(command)} " in ended.out


def test_the_command_shows_a_table(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    ended = run("doctor", "--gradients", file, "inner.steps=1")
    assert ended.code == 0
    for words in (
        "gradients of peft_maml",
        "second order = central differences: adapter",
        "1e-06",
        "passed",
        "step size",
    ):
        assert words in ended.out
    assert "1 inner steps" in ended.out
    assert ended.out.rstrip().endswith("float64")


def test_json_stands_alone(run: Run, file: Path) -> None:
    ended = run("doctor", "--gradients", file, "inner.steps=1", "--json")
    assert ended.code == 0
    found = json.loads(ended.out)
    assert found["passed"] is True
    assert (found["learner"], found["precision"]) == ("peft_maml", "float64")
    assert all(set(line) == {"what", "value", "tolerance", "remark", "verdict"} for line in found["checks"])


def test_one_failure_is_exit_code_1(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = LEARNERS["peft_maml"]

    def first_order(loss: Any, backbone: Any, start: Any, batch: Any, inner: Any) -> Outcome:
        return right.step(loss, backbone, start, batch, replace(inner, second_order=False))

    monkeypatch.setitem(LEARNERS, "peft_maml", replace(right, step=first_order))
    ended = run("doctor", "--gradients", file, "--json")
    assert ended.code == 1
    assert json.loads(ended.out)["passed"] is False


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "nothing to examine: add --gradients"),
        (("--gradients", "inner.step=1"), "did you mean steps?"),
        (("--gradients", "data.source=conll:nowhere"), "nowhere"),
        (("--gradients", "encoder.name=./nowhere"), "there is no folder './nowhere'"),
    ],
)
def test_misuse_is_exit_code_2(run: Run, file: Path, words: tuple[str, ...], told: str) -> None:
    ended = run("doctor", file, *words)
    assert ended.code == 2
    assert told in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""


def test_doctor_examines_nothing_before_it_is_told_what(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "examine_gradients", lambda config: pytest.fail("was examined"))
    refused(run("doctor", file), "--gradients")


@pytest.fixture
def estimated(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configs that were estimated; each needs NEEDS."""
    configs: list[Config] = []

    def estimate(config: Config) -> Estimate:
        configs.append(config)
        return NEEDS

    monkeypatch.setattr(cost, "estimate", estimate)
    return configs


def test_an_estimate_is_printed_as_lines_or_json(run: Run, file: Path, estimated: list[Config]) -> None:
    ended = run("estimate", file, "inner.steps=1")
    assert (ended.code, ended.out.splitlines()) == (0, NEEDS.lines())
    assert json.loads(run("estimate", file, "--json").out) == NEEDS.as_json()
    assert estimated == [load_config(file, ["inner.steps=1"]), load_config(file)]


def test_the_other_processes_of_a_launch_print_no_estimate(
    run: Run, file: Path, estimated: list[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    ended = run("estimate", file)
    assert (ended.code, ended.out, len(estimated)) == (0, "", 1)


def test_corpora_are_checked(run: Run, tmp_path: Path) -> None:
    root = corpus(tmp_path, "qaa")
    clean = run("data", "check", f"conll:{root}")
    assert clean.code == 0, clean.err
    assert "qaa/train" in clean.out
    train = root / "qaa" / "train.conll"
    train.write_text(train.read_text("utf-8") + "\nname\tI-PER\n\n", "utf-8")
    # In a process of its own, whose imports could write to stdout too.
    command = [sys.executable, "-m", "metaprime", "data", "check", f"conll:{root}", "--json"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    content = json.loads(found.stdout)
    assert content["clean"] is False
    assert content["splits"]["qaa/train"]["sentences"] == SIZES["train"] + 1
    refused(run("data", "check", "conll:/no/such/folder"))


def test_a_corpus_with_problems_is_exit_code_1_with_a_table_and_its_findings(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    source = f"conll:{corpus(tmp_path, 'qaa')}"
    assert run("data", "check", source).code == 0
    (tmp_path / "qaa" / "test.conll").unlink()
    ended = run("data", "check", source)
    assert ended.code == 1
    assert "qaa/train" in ended.out
    assert "fatal: qaa/test: " in ended.out
    assert ended.out.splitlines()[-1].startswith("2 splits read: 1 fatal")


def test_sub_words_of_an_encoder_are_counted(run: Run, tmp_path: Path, toy_bert: Path) -> None:
    source = f"conll:{corpus(tmp_path, 'qaa')}"
    for words, counted in (((), False), (("--encoder", toy_bert), True)):
        report = json.loads(run("data", "check", source, "--json", *words).out)
        assert ("subwords_per_word" in report["splits"]["qaa/train"]) == counted


def test_a_mistake_in_what_is_checked_is_exit_code_2(run: Run, tmp_path: Path) -> None:
    refused(run("data", "check", tmp_path / "none.yaml"), "none.yaml does not exist")
    refused(run("data", "check", "conll:x", "task.lables=[PER]"), "did you mean labels?")
    refused(run("data", "check", "conl:x"), "did you mean conll:?")


def test_methods_are_listed_and_shown(toy_bert: Path) -> None:
    listed = json.loads(CliRunner().invoke(app, ["peft", "list", "--json", "--encoder", str(toy_bert)]).stdout)
    assert [row["method"] for row in listed] == list(METHODS)
    assert set(listed[0]) == {*METHOD_HEADER, *COUNTS}
    shown = CliRunner().invoke(app, ["peft", "show", "ia3", "--encoder", str(toy_bert)], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    for words in ("0.key_factors", "encoder.layer.0.attention.self.key", "factors (32,)", "self-check passed"):
        assert words in shown.stdout
    nowhere = CliRunner().invoke(app, ["peft", "show", "ia3"])
    assert isinstance(nowhere.exception, MetaprimeError)
    assert "--encoder" in str(nowhere.exception)


def test_without_an_encoder_nothing_is_counted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    listed = json.loads(run("peft", "list", "--json").out)
    assert [tuple(row) for row in listed] == [METHOD_HEADER] * len(METHODS)
    assert [list(row.values()) for row in listed] == list_rows(None)
    table = run("peft", "list")
    assert table.code == 0
    assert all(name in table.out for name in METHODS)


def test_a_method_is_shown_with_the_settings_of_the_command(
    run: Run, toy_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Config] = []

    def show(config: Config) -> tuple[Size, list[Module]]:
        shown.append(config)
        return Size(1234, 56, 7), [Module("0.key", {"factors": (32,), "shift": ()}, "layer.0.key")]

    monkeypatch.setattr(methods, "show", show)
    monkeypatch.setenv("COLUMNS", "160")
    ended = run("peft", "show", "lora", "peft.rank=2", "--encoder", toy_bert, "--trust-remote-code")
    keys = [f"encoder.name={toy_bert}", "encoder.trust_remote_code=true", "peft.method=lora", "peft.rank=2"]
    assert shown == [load_config(None, keys)]
    assert "factors (32,) shift ()" in ended.out
    assert "1,234 parameters trained, 56 stored, and 7 of the head" in ended.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show", "lora"), "--encoder"),
        (("show", "lra", "--encoder", "somewhere"), "did you mean lora?"),
        (("show", "lora", "--encoder", "./nowhere"), "there is no folder './nowhere'"),
        (("list", "--encoder", "./nowhere"), "there is no folder './nowhere'"),
        (("export", "nowhere", "out"), "nowhere"),
    ],
)
def test_a_mistake_about_a_method_is_exit_code_2(run: Run, words: tuple[str, ...], message: str) -> None:
    refused(run("peft", *words), message)


def test_an_export_is_told_folder_format_and_consent(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def written(*parts: Any) -> Path:
        asked.append(parts)
        return Path("written")

    monkeypatch.setattr(export, "export", written)
    # What the folder holds is looked at before anything heavy is loaded.
    monkeypatch.setattr(artifact, "check_card", lambda folder: None)
    ended = run("peft", "export", "cell", "out")
    assert (ended.code, ended.out) == (0, "exported for peft: written\n")
    ended = run("peft", "export", "cell", "out", "--format", "adapterhub", "--trust-remote-code")
    assert (ended.code, ended.out) == (0, "exported for adapterhub: written\n")
    places = (Path("cell"), Path("out"))
    assert asked == [(*places, "peft", False), (*places, "adapterhub", True)]
