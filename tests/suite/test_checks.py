"""A suite's arms are checked before its first cell, each input once, and a mistake names its arms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from toy_plan import plan_at

from metaprime.build import data as build_data
from metaprime.data.rows import Example
from metaprime.suite import checks
from metaprime.suite.checks import check_plan
from metaprime.suite.order import Count
from metaprime.types import MetaprimeError

SMALL = ("inner.steps=2", "episodes.support=2", "episodes.query=4", "outer.validate_every=2", "peft.bottleneck=4")


def refusal(output: Path, encoder: Path, *changes: str) -> list[str]:
    with pytest.raises(MetaprimeError) as error:
        check_plan(plan_at(output, f"encoder.name={encoder}", *SMALL, *changes))
    assert not output.exists()
    return str(error.value).splitlines()


def test_a_plan_without_a_mistake_passes_and_nothing_is_written(tmp_path: Path, toy_bert: Path) -> None:
    check_plan(plan_at(tmp_path / "runs", f"encoder.name={toy_bert}", *SMALL))
    # The embedded encoder need not be there yet.
    embedded = ("encoder.name=synthetic:", "encoder.pretrain={layers: 1, hidden: 16, heads: 2, vocabulary: 400}")
    check_plan(plan_at(tmp_path / "runs", *embedded, *SMALL))
    assert not (tmp_path / "runs").exists()


def test_a_mistake_of_all_arms_is_one_line_and_one_of_some_names_them(tmp_path: Path, toy_bert: Path) -> None:
    runs = tmp_path / "runs"
    (line,) = refusal(runs, toy_bert, "data.target_languages=[xx]")
    assert line.startswith("data.target_languages: synthetic: has no language 'xx'")
    # The three arms that are primed, of which one takes what another primed.
    (line,) = refusal(runs, toy_bert, "data.languages=[qaa, xx]")
    assert line.startswith("arm 'meta' and 2 more: data.languages: synthetic: has no language 'xx'")
    (line,) = refusal(runs, toy_bert, "outer.head=reset")
    assert line.startswith("arm 'kept': transfer.start_head: the encoder was primed with outer.head reset or keep")


def test_several_rates_need_a_language_to_choose_on(tmp_path: Path, toy_bert: Path) -> None:
    (line,) = refusal(tmp_path / "runs", toy_bert, "data.validation_languages=[]")
    assert line == "transfer.lr lists several rates: data.validation_languages must name languages to choose on"


def test_each_text_is_read_once(tmp_path: Path, toy_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[str, str]] = []
    build = build_data.build_task

    def spying(*words: object) -> object:
        task = build(*words)  # type: ignore[arg-type]

        def seen(source: str, language: str, split: str) -> list[Example]:
            read.append((language, split))
            return task.read(source, language, split)

        return replace(task, read=seen)

    monkeypatch.setattr(build_data, "build_task", spying)
    check_plan(plan_at(tmp_path / "runs", f"encoder.name={toy_bert}", *SMALL))
    scored = [("qac", "validation"), ("qai", "test"), ("qao", "test")]
    assert sorted(read) == sorted([*scored, *((name, "train") for name in ("qaa", "qaf", "qac", "qai", "qao"))])


def test_a_suite_that_is_done_is_not_checked(tmp_path: Path, toy_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "count_cells", lambda plan: {"priming": Count(2, 2, 0), "transfer": Count(4, 4, 0)})
    check_plan(plan_at(tmp_path / "runs", f"encoder.name={tmp_path / 'gone'}", "data.target_languages=[xx]"))
    monkeypatch.setattr(checks, "count_cells", lambda plan: {"priming": Count(2, 2, 0), "transfer": Count(4, 3, 1)})
    assert "gone" in refusal(tmp_path / "runs", tmp_path / "gone")[0]
