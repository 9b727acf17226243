"""Arguments and options that commands share: how they are parsed, and that one process of a launch prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from metaprime.cli.options import (
    ConfigFile,
    MaxTime,
    Overrides,
    Overwrite,
    Resume,
    TrustRemoteCode,
    check_folder,
    first_process,
    print_versions,
    read_config,
    say,
    without_file,
)
from metaprime.types import MetaprimeError

DEFAULTS = {
    "config": "x.yaml",
    "overrides": None,
    "resume": False,
    "overwrite": False,
    "max_time": None,
    "trust_remote_code": False,
}


def parsed(*words: str) -> dict[str, Any]:
    """What a command that has all of them is called with."""
    values: dict[str, Any] = {}
    app = typer.Typer()

    @app.command()
    def command(
        config: ConfigFile,
        overrides: Overrides = None,
        resume: Resume = False,
        overwrite: Overwrite = False,
        max_time: MaxTime = None,
        trust_remote_code: TrustRemoteCode = False,
    ) -> None:
        values.update(locals())

    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return {key: values[key] for key in DEFAULTS}


def test_a_config_alone_has_the_defaults() -> None:
    assert parsed("x.yaml") == DEFAULTS


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (("inner.steps=1", "outer.lr=5e-5"), {"overrides": ["inner.steps=1", "outer.lr=5e-5"]}),
        (("--resume",), {"resume": True}),
        (("--overwrite",), {"overwrite": True}),
        (("--max-time", "1h30m"), {"max_time": "1h30m"}),
        (("--trust-remote-code",), {"trust_remote_code": True}),
        (
            ("--resume", "inner.steps=1", "--max-time", "90", "outer.lr=1"),
            {"overrides": ["inner.steps=1", "outer.lr=1"], "resume": True, "max_time": "90"},
        ),
    ],
)
def test_options_and_overrides_may_be_mixed(words: tuple[str, ...], changes: dict[str, Any]) -> None:
    assert parsed("x.yaml", *words) == DEFAULTS | changes


@pytest.mark.parametrize("words", [(), ("x.yaml", "--no-resume"), ("x.yaml", "--max-time")])
def test_a_missing_config_an_unknown_flag_and_a_missing_value_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(AssertionError, match=r"assert 2 == 0"):
        parsed(*words)


@pytest.mark.parametrize(("rank", "first"), [(None, True), ("0", True), ("1", False), ("10", False)])
def test_the_first_process_of_a_launch_prints(
    rank: str | None, first: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    say("results: runs/demo")
    assert first_process() == first
    assert capsys.readouterr().out == ("results: runs/demo\n" if first else "")


def test_a_first_word_that_is_no_file_is_an_override(tmp_path: Path) -> None:
    assert without_file("outer.steps=5", ["inner.steps=1"]) == (None, ["outer.steps=5", "inner.steps=1"])
    assert without_file("none.yaml", []) == ("none.yaml", [])
    assert without_file(None, ["a=1"]) == (None, ["a=1"])
    assert read_config("outer.steps=5", ["data.source=conll://x//y"]).data.source == "conll://x//y"
    file = tmp_path / "lr=1.yaml"
    file.touch()
    assert without_file(str(file), ["a=1"]) == (str(file), ["a=1"])


def test_a_folder_that_is_missing_is_refused(tmp_path: Path) -> None:
    check_folder(tmp_path, "give one")
    with pytest.raises(MetaprimeError, match=r"none does not exist: give one$"):
        check_folder(tmp_path / "none", "give one")


def test_versions_are_those_of_the_packages(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    import transformers

    import metaprime

    monkeypatch.delenv("RANK", raising=False)
    print_versions(False)
    with pytest.raises(typer.Exit):
        print_versions(True)
    assert capsys.readouterr().out.splitlines() == [
        f"metaprime {metaprime.__version__}",
        f"torch {torch.__version__}",
        f"transformers {transformers.__version__}",
    ]


def test_a_path_in_an_override_is_no_file(tmp_path: Path) -> None:
    # A transfer needs the run's own config: the defaults are another task.
    from metaprime.config.loading import load_config

    with pytest.raises(MetaprimeError, match="does not exist: give the file of the config before any key=value"):
        load_config(f"run.output={tmp_path}/run")
