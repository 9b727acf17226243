"""The results of a suite: entries of what is there, the cost of priming by hand, and errors."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from toy_plan import ENCODER, META, MULTITASK, NONE, plan_at, put, put_primed, put_records

from metaprime.runs.provenance import versions
from metaprime.runs.results import Facts, Failure, as_json, read_results, write_results
from metaprime.suite.cells import Priming
from metaprime.suite.results import Done, results_of
from metaprime.suite.spec import ArmSection, SuitePlan

PASSES = 4 * (4 * 5 + 8)
"""Sentence passes of a meta-step with the defaults: T episodes of n inner steps' support and a query."""


def put_metrics(cell: Priming, subwords: tuple[int | None, ...], flops: dict[int, int], seconds: float) -> None:
    """Writes a validation and one line for each meta-step; `flops`: step -> its count."""
    lines: list[dict[str, Any]] = [{"step": 0, "validation_f1": 10.0}]
    for step, words in enumerate(subwords, 1):
        line: dict[str, Any] = {"step": step, "query_loss": 1.0, "volatile": {"seconds": seconds}}
        if words is not None:
            line["subwords"] = words
        if step in flops:
            line["volatile"]["flops"] = flops[step]
        lines.append(line)
    put(cell.folder / "metrics.jsonl", lines)


def all_done(plan: SuitePlan) -> Done:
    """The cells of a plan, all of them finished, at the rate 0.3."""
    done = Done()
    for name, arm in plan.arms.items():
        for column in range(len(plan.columns)):
            done.rates[name, column] = 0.3
        for seed in plan.seeds:
            source = arm.primer.cell(seed, ENCODER.name) if arm.primer else None
            done.primings[name, seed] = source
            if source:
                put_primed(source, steps=3)
                put_metrics(source, (10, 20, 30, 40), {1: 1000}, 0.5)
            for column in reversed(range(len(plan.columns))):
                cell = arm.target.transfers(source, column, 0.3, seed, ENCODER.name)
                put_records(cell)
                done.transfers[name, seed].append(cell)
    return done


def test_entries_are_sorted_and_lead_to_their_records(tmp_path: Path) -> None:
    plan = plan_at(tmp_path, "transfer.shots=[8, 30]", arms=(META, NONE), seeds=(1, 0))
    results = results_of(plan, all_done(plan), tmp_path / "tried")
    assert [(one.arm, one.seed, one.method, one.shots, one.language) for one in results.records] == [
        (arm, seed, method, shots, language)
        for arm in ("meta", "none")
        for seed in (1, 0)
        for method in ("pfeiffer", "head")
        for shots in (8, 30)
        for language in ("qai", "qao")
    ]
    for one in results.records:
        file = tmp_path / "tried" / one.path
        assert not Path(one.path).is_absolute()
        assert file.resolve().is_file()
        assert file.parent.name == f"{one.language}-{one.method}-k{one.shots}-s{one.seed}"


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    plan = plan_at(tmp_path, arms=(META,))
    done = all_done(plan)
    done.transfers["meta", 1][1].files["qao", 8].unlink()
    del done.transfers["meta", 0], done.rates["meta", 1]
    left = results_of(plan, done, tmp_path / "tried")
    assert [(one.seed, one.method, one.language) for one in left.records] == [
        (1, "pfeiffer", "qai"),
        (1, "head", "qai"),
        (1, "head", "qao"),
    ]
    assert left.arms["meta"].rates == {"pfeiffer": 0.3}


def test_the_suite_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["metaprime", "ablate", "my suite.yaml"])
    plan = plan_at(tmp_path, contrasts=(("meta", "none"),), matched={"meta": "multitask"})
    results = results_of(plan, all_done(plan), tmp_path / "tried")
    assert (results.name, results.setting, results.task) == ("tried", None, "tagging")
    assert shlex.split(results.command) == ["metaprime", "ablate", "my suite.yaml"]
    assert (results.seeds, results.methods) == ((0, 1), ("pfeiffer", "head"))
    assert (results.languages, results.shots) == (("qai", "qao"), (8,))
    assert (results.contrasts, results.matched) == ((("meta", "none"),), {"meta": "multitask"})
    assert results.titles == {"pfeiffer": "AT", "head": "HT"}
    assert results.versions == versions()
    assert results.config == plan.base.model_dump(mode="json")
    assert list(results.arms) == ["none", "meta", "kept", "multitask"]
    none, meta, kept, multitask = results.arms.values()
    assert (none.title, none.priming, none.facts, none.simulates) == ("no priming", None, None, None)
    assert meta.priming == kept.priming != multitask.priming
    assert (meta.simulates, multitask.simulates) == ("pfeiffer", "full")
    assert (kept.set, kept.transfer) == ((), ("transfer.start_head=primed",))
    assert multitask.set == ("outer.lr=0.001", "learner.name=multitask")
    assert meta.rates == {"pfeiffer": 0.3, "head": 0.3}
    (tmp_path / "tried").mkdir()
    write_results(tmp_path / "tried", results)
    assert as_json(read_results(tmp_path / "tried")) == as_json(results)


def test_a_column_that_arms_fill_differently_has_no_short_name(tmp_path: Path) -> None:
    other = ArmSection(name="other", priming=None, transfer=("transfer.methods=[lora, head]",))
    plan = plan_at(tmp_path, arms=(NONE, other))
    results = results_of(plan, all_done(plan), tmp_path / "tried")
    assert (results.methods, results.titles) == (("own", "head"), {"head": "HT"})
    assert results.arms["other"].methods == ("lora", "head")
    assert {one.method for one in results.records if one.arm == "other"} == {"own", "head"}


def test_the_cost_of_priming_is_a_mean_over_seeds(tmp_path: Path) -> None:
    plan = plan_at(tmp_path, arms=(META,))
    done = all_done(plan)
    second = done.primings["meta", 1]
    assert second
    put_primed(second, steps=1)
    # The second count is one after a resume, which is ignored.
    put_metrics(second, (20, 20, 20, 20), {1: 1000, 3: 7000}, 1.5)
    results = results_of(plan, done, tmp_path / "tried")
    assert results.arms["meta"].facts == Facts(
        sentence_passes=4 * PASSES,
        sentence_passes_chosen=2 * PASSES,
        steps_chosen=(3, 1),
        # 100 FLOPs for each of 100 sub-words, and 50 for each of 80; chosen: 60 and 20.
        flops=(10_000 + 4_000) / 2,
        flops_chosen=(6_000 + 1_000) / 2,
        seconds=(2.0 + 6.0) / 2,
    )


def test_a_run_that_ended_early_was_allowed_as_much_as_any(tmp_path: Path) -> None:
    plan = plan_at(tmp_path, arms=(META,))
    done = all_done(plan)
    for seed in plan.seeds:
        cell = done.primings["meta", seed]
        assert cell
        put_primed(cell, steps=1)
        put_metrics(cell, (20, 30), {1: 1000}, 1.5)
    facts = results_of(plan, done, tmp_path / "tried").arms["meta"].facts
    assert facts
    # Four steps are allowed; the two that were taken have 50 sub-words at 50 FLOPs each.
    assert (facts.sentence_passes, facts.sentence_passes_chosen) == (4 * PASSES, PASSES)
    assert (facts.flops, facts.flops_chosen) == (5_000, 1_000)


@pytest.mark.parametrize(
    ("subwords", "flops"), [((10, 20, None, 40), {1: 1000}), ((10, 20, 30, 40), {})], ids=["sub-words", "count"]
)
def test_flops_that_one_seed_does_not_know_are_unknown(
    tmp_path: Path, subwords: tuple[int | None, ...], flops: dict[int, int]
) -> None:
    plan = plan_at(tmp_path, arms=(META,))
    done = all_done(plan)
    second = done.primings["meta", 1]
    assert second
    put_metrics(second, subwords, flops, 0.5)
    facts = results_of(plan, done, tmp_path / "tried").arms["meta"].facts
    assert facts
    assert (facts.flops, facts.flops_chosen) == (None, None)
    assert (facts.seconds, facts.steps_chosen) == (2.0, (3, 3))


def test_priming_that_is_not_finished_has_no_path_and_no_cost(tmp_path: Path) -> None:
    plan = plan_at(tmp_path, arms=(META, MULTITASK))
    done = all_done(plan)
    for user in (("meta", 0), ("meta", 1), ("multitask", 1)):
        cell = done.primings[user]
        assert cell
        (cell.folder / "primed").rename(cell.folder / "partial")
    results = results_of(plan, done, tmp_path / "tried")
    assert {arm: set(paths) for arm, paths in results.primings.items()} == {"multitask": {0}}
    assert (tmp_path / "tried" / results.primings["multitask"][0]).resolve().is_dir()
    assert results.arms["meta"].facts is None
    assert results.arms["meta"].priming is not None
    facts = results.arms["multitask"].facts
    assert facts
    assert facts.steps_chosen == (3,)


def test_errors_are_listed_by_arm_and_seed(tmp_path: Path) -> None:
    plan = plan_at(tmp_path)
    done = all_done(plan)
    done.failed |= {("none", 1): "third", ("meta", 1): "second", ("meta", 0): "first"}
    assert results_of(plan, done, tmp_path / "tried").failed == (
        Failure(arm="meta", seed=0, error="first"),
        Failure(arm="meta", seed=1, error="second"),
        Failure(arm="none", seed=1, error="third"),
    )
