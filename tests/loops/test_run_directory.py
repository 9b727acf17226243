"""Who may write into an output directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from metaprime.config import Config, load_config
from metaprime.loops.run_directory import check_output, check_writable, open_output, versions
from metaprime.types import MetaprimeError


def config(output: Path, *overrides: str) -> Config:
    return load_config(None, [f"run.output={output}", *overrides])


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
    check_output(config(output), resume, overwrite)
    assert (names(output) if output.exists() else None) == there  # to check is not to write
    open_output(config(output), resume, overwrite)
    assert names(output) == sorted([*(there or []), "config.yaml", "run.json"])
    assert load_config(output / "config.yaml") == config(output)


def test_the_same_run_goes_on_or_starts_anew_when_told_to(tmp_path: Path) -> None:
    same = config(tmp_path / "run")
    open_output(same, False, False)
    with pytest.raises(
        MetaprimeError, match="holds this run already: go on with --resume, or start anew with --overwrite"
    ):
        check_output(same, False, False)
    check_output(same, True, False)
    check_output(same, False, True)


def test_another_run_is_not_touched_without_overwrite(tmp_path: Path) -> None:
    open_output(config(tmp_path / "run"), False, False)
    other = config(tmp_path / "run", "inner.lr=0.7")
    for resume in (False, True):
        with pytest.raises(MetaprimeError, match=r"holds another run .*config\.yaml.*another run\.output.*--overwrite"):
            check_output(other, resume, False)
    check_output(other, False, True)


def test_a_run_may_have_been_moved(tmp_path: Path) -> None:
    open_output(config(tmp_path / "run"), False, False)
    (tmp_path / "run").rename(tmp_path / "moved")
    check_output(config(tmp_path / "moved"), True, False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_that_are_no_run_are_never_touched(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(MetaprimeError, match=r"no metaprime run \(thesis\.tex\); choose another"):
        check_output(config(tmp_path), False, overwrite)
    assert names(tmp_path) == ["thesis.tex"]


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(MetaprimeError, match="is a file; choose another"):
        check_output(config(tmp_path / "run"), False, True)


def test_a_path_through_a_file_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("precious")
    output = tmp_path / "notes" / "deep" / "run"
    for check in (lambda: check_output(config(output), False, False), lambda: check_writable(config(output))):
        with pytest.raises(MetaprimeError, match=r"notes/deep/run: .*/notes is a file; choose another"):
            check()
    assert (tmp_path / "notes").read_text() == "precious"
    assert check_writable(config(tmp_path / "new" / "run")) == tmp_path / "new" / "run"
    assert names(tmp_path) == ["notes"]


def test_to_go_on_and_to_start_anew_exclude_each_other(tmp_path: Path) -> None:
    open_output(config(tmp_path / "run"), False, False)
    with pytest.raises(MetaprimeError, match="--resume and --overwrite exclude each other"):
        check_output(config(tmp_path / "run"), True, True)


def test_overwrite_empties_but_keeps_the_embedded_encoder(tmp_path: Path) -> None:
    output = tmp_path / "run"
    open_output(config(output), False, False)
    for folder in ("base", "primed", "transfer"):
        (output / folder).mkdir()
    (output / "metrics.jsonl").write_text("{}\n")
    open_output(config(output, "inner.lr=0.7"), False, True)
    assert names(output) == ["base", "config.yaml", "run.json"]
    assert load_config(output / "config.yaml").inner.lr == 0.7


def test_versions_name_what_results_depend_on() -> None:
    found = versions()
    assert {"python", "platform", "metaprime", "torch", "transformers", "accelerate", "tokenizers"} <= set(found)
    assert all(found.values())
