"""Who may write into an output directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from metaprime.config.loading import load_config
from metaprime.config.presets import EMBEDDED
from metaprime.config.sections import Config
from metaprime.runs.folder import Claim, check_output, check_provenance, check_writable, open_output
from metaprime.runs.provenance import Provenance, versions
from metaprime.types import MetaprimeError


def config(output: Path, *overrides: str) -> Config:
    return load_config(None, [f"run.output={output}", *overrides]).at_rates(EMBEDDED, EMBEDDED)


def claim(output: Path, *overrides: str) -> Claim:
    return Claim(*config(output, *overrides).recorded())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def nothing(output: Path) -> None:
    pass


def empty(output: Path) -> None:
    output.mkdir()


def embedded_encoder(output: Path) -> None:
    (output / "base").mkdir(parents=True)


@pytest.mark.parametrize("before", [nothing, empty, embedded_encoder])
@pytest.mark.parametrize(("resume", "overwrite"), [(False, False), (True, False), (False, True)])
def test_a_free_directory_is_anyones(
    tmp_path: Path, before: Callable[[Path], None], resume: bool, overwrite: bool
) -> None:
    output = tmp_path / "run"
    before(output)
    there = names(output) if output.exists() else None
    check_output(claim(output), resume, overwrite)
    # To check is not to write.
    assert (names(output) if output.exists() else None) == there
    open_output(claim(output), overwrite)
    assert names(output) == sorted([*(there or []), "config.yaml", "run.json"])
    assert load_config(output / "config.yaml") == config(output)


def test_the_same_run_goes_on_or_starts_anew_when_told_to(tmp_path: Path) -> None:
    same = claim(tmp_path / "run")
    open_output(same, False)
    with pytest.raises(
        MetaprimeError, match="already holds this run: continue it with --resume, or start over with --overwrite"
    ):
        check_output(same, False, False)
    check_output(same, True, False)
    check_output(same, False, True)


def test_another_run_is_not_touched_without_overwrite(tmp_path: Path) -> None:
    open_output(claim(tmp_path / "run"), False)
    other = claim(tmp_path / "run", "inner.lr=0.7", "data.languages=[qaa]")
    for resume, force in ((False, False), (False, True), (True, False), (True, None)):
        with pytest.raises(
            MetaprimeError, match=r"holds another run .*config\.yaml.*another run\.output.*--overwrite"
        ) as refused:
            check_output(other, resume, False, force)
        first, *different = str(refused.value).splitlines()
        assert different == [
            'data.languages: ["qaa", "qab", "qac", "qaf", "qag", "qah", "qak", "qal", "qam", "qap", "qaq", "qar"] -> ["qaa"]',
            "inner.lr: 0.1 -> 0.7",
        ]
        assert ("--force" in first) == (resume and force is not None)
    check_output(other, False, True)


def test_force_goes_on_and_says_with_what(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    open_output(claim(tmp_path / "run"), False)
    assert check_output(claim(tmp_path / "run", "inner.lr=0.7"), True, False, True) == ["inner.lr: 0.1 -> 0.7"]
    assert "resuming with another config: inner.lr: 0.1 -> 0.7" in caplog.text
    caplog.clear()
    # No result depends on it.
    assert check_output(claim(tmp_path / "run", "run.cache=false"), True, False) == []
    assert caplog.text == ""


def test_other_sentences_weights_or_versions_are_named_and_need_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    same = claim(tmp_path / "run")
    then = Provenance(versions=versions(), weights={"encoder.name": "ab"}, sentences={"qaa": "11", "qab": "22"})
    now = Provenance(
        versions={**versions(), "torch": "9.9"},
        weights={"encoder.name": "cd"},
        sentences={"qaa": "11", "qab": "33"},
    )
    # There is nothing yet.
    check_provenance(same.output, now, False)
    open_output(same, False, then)
    check_provenance(same.output, then, False)
    lines = [
        f"version of torch: {versions()['torch']} -> 9.9",
        "weights of encoder.name: ab -> cd",
        "sentences of qab: 22 -> 33",
    ]
    with pytest.raises(MetaprimeError, match=r"started with different inputs: .*--overwrite.*--force") as refused:
        check_provenance(same.output, now, False)
    assert str(refused.value).splitlines()[1:] == lines
    check_provenance(same.output, now, True)
    assert [record.getMessage().partition("resuming with different inputs: ")[2] for record in caplog.records] == lines


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"config": "a1b2"}'])
def test_a_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(MetaprimeError, match=r"run\.json is damaged .*--overwrite"):
        check_output(claim(tmp_path), True, False)


def test_what_a_killed_start_left_is_not_foreign(tmp_path: Path) -> None:
    output = tmp_path / "run"
    for stray in (".base.123.partial", "base"):
        (output / stray).mkdir(parents=True)
    (output / ".run.json.77.partial").write_text("{")
    (output / ".lock").write_text("{}")
    check_output(claim(output), False, False)
    open_output(claim(output), False)
    assert names(output) == [".lock", "base", "config.yaml", "run.json"]


@pytest.mark.parametrize("killed_at", range(6))
def test_overwrite_that_is_killed_leaves_no_half_of_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    output = tmp_path / "run"
    open_output(claim(output), False)
    for name in ("primed", "state", "transfer"):
        (output / name).mkdir()
        (output / name / "weights").write_text("w")
    (output / "metrics.jsonl").write_text("{}")
    replaced = 0
    honest = os.replace

    def killed(source: Path, target: Path) -> None:
        nonlocal replaced
        if replaced == killed_at:
            raise KeyboardInterrupt
        replaced += 1
        honest(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        open_output(claim(output), True)
    left = [
        name for name in ("primed", "transfer", "state", "config.yaml", "metrics.jsonl") if (output / name).exists()
    ]
    assert left == ["primed", "transfer", "state", "config.yaml", "metrics.jsonl"][killed_at:]
    assert all((output / name / "weights").exists() for name in left if (output / name).is_dir())
    assert (output / "run.json").is_file()


def test_a_run_may_have_been_moved(tmp_path: Path) -> None:
    open_output(claim(tmp_path / "run"), False)
    (tmp_path / "run").rename(tmp_path / "moved")
    check_output(claim(tmp_path / "moved"), True, False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_that_are_no_run_are_never_touched(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(MetaprimeError, match=r"no metaprime run \(thesis\.tex\); choose another"):
        check_output(claim(tmp_path), False, overwrite)
    assert names(tmp_path) == ["thesis.tex"]


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(MetaprimeError, match="is a file; choose another"):
        check_output(claim(tmp_path / "run"), False, True)


def test_a_path_through_a_file_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("precious")
    output = tmp_path / "notes" / "deep" / "run"
    for check in (lambda: check_output(claim(output), False, False), lambda: check_writable(output)):
        with pytest.raises(MetaprimeError, match=r"notes/deep/run: .*/notes is a file; choose another"):
            check()
    assert (tmp_path / "notes").read_text() == "precious"
    assert check_writable(tmp_path / "new" / "run") == tmp_path / "new" / "run"
    assert names(tmp_path) == ["notes"]


def test_to_go_on_and_to_start_anew_exclude_each_other(tmp_path: Path) -> None:
    open_output(claim(tmp_path / "run"), False)
    with pytest.raises(MetaprimeError, match="--resume and --overwrite exclude each other"):
        check_output(claim(tmp_path / "run"), True, True)


def test_overwrite_empties_but_keeps_the_embedded_encoder(tmp_path: Path) -> None:
    output = tmp_path / "run"
    open_output(claim(output), False)
    for folder in ("base", "primed", "transfer"):
        (output / folder).mkdir()
    (output / "metrics.jsonl").write_text("{}\n")
    open_output(claim(output, "inner.lr=0.7"), True)
    assert names(output) == ["base", "config.yaml", "run.json"]
    assert load_config(output / "config.yaml").inner.lr == 0.7
