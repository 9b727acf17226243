"""The order of a suite's cells: each runs once, after what it depends on, and an error fails those that use it."""

from __future__ import annotations

import json
import logging
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from toy_plan import ENCODER, KEPT, META, MULTITASK, NONE, plan_at, put, put_primed, put_rate, put_records

from metaprime.suite.cells import Priming, Rate, Transfers
from metaprime.suite.order import PRIMING, RATE, TRANSFER, CellOrder, Count, count_cells
from metaprime.suite.spec import ArmSection, SuitePlan
from metaprime.suite.workers import Job
from metaprime.types import MetaprimeError


def place(cell: Priming | Rate | Transfers) -> Path:
    return cell.file if isinstance(cell, Rate) else cell.folder


def kinds(jobs: list[Job]) -> Counter[str]:
    return Counter(job.kind for job in jobs)


def prime(order: CellOrder, job: Job) -> list[Job]:
    """Ends a priming run as a worker would."""
    put_primed(job.cell)
    return order.ended(job, None)


def choose(order: CellOrder, job: Job, rate: float = 0.3) -> list[Job]:
    put_rate(job.cell, rate)
    return order.ended(job, None, rate)


def run_all(plan: SuitePlan, shuffle: random.Random | None = None) -> list[Job]:
    """Runs a plan to its end, with files in place of results; jobs end in a random order if one is given."""
    order = CellOrder(plan, ENCODER)
    waiting, ran = order.first(), []
    while waiting:
        job = waiting.pop(shuffle.randrange(len(waiting)) if shuffle else 0)
        ran.append(job)
        if job.kind == PRIMING:
            waiting += prime(order, job)
        elif job.kind == RATE:
            waiting += choose(order, job)
        else:
            put_records(job.cell)
            waiting += order.ended(job, None)
    assert order.finished().failed == {}
    return ran


def test_priming_comes_first_and_what_needs_none(tmp_path: Path) -> None:
    jobs = CellOrder(plan_at(tmp_path), ENCODER).first()
    assert [job.kind for job in jobs] == [PRIMING] * 4 + [RATE] * 2
    primings = [(job.cell.config.learner.name, job.cell.seed) for job in jobs[:4]]
    assert primings == [("peft_maml", 0), ("multitask", 0), ("peft_maml", 1), ("multitask", 1)]
    assert [job.cell.config.transfer.encoder for job in jobs[4:]] == ["base", "base"]
    assert [job.cell.config.transfer.seeds for job in jobs[4:]] == [(0,), (0,)]


def test_rates_wait_for_the_first_seed_and_transfers_for_both(tmp_path: Path) -> None:
    order = CellOrder(plan_at(tmp_path, arms=(META,)), ENCODER)
    first, second = order.first()
    assert prime(order, second) == []
    pfeiffer, head = prime(order, first)
    assert (pfeiffer.kind, head.kind) == (RATE, RATE)
    assert [job.cell.config.transfer.methods for job in (pfeiffer, head)] == [("pfeiffer",), ("head",)]
    transfers = choose(order, head, 0.1)
    assert [(job.kind, job.cell.seed, job.cell.column) for job in transfers] == [(TRANSFER, 1, 1), (TRANSFER, 0, 1)]
    assert {job.cell.config.transfer.lr for job in transfers} == {(0.1,)}
    assert [order.ended(job, None) for job in transfers] == [[], []]
    assert order.done.rates == {("meta", 1): 0.1}


def test_with_one_rate_a_seed_waits_for_no_other(tmp_path: Path) -> None:
    order = CellOrder(plan_at(tmp_path, "transfer.lr=[0.2]", arms=(META,)), ENCODER)
    _, second = order.first()
    transfers = prime(order, second)
    assert [(job.kind, job.cell.seed) for job in transfers] == [(TRANSFER, 1)] * 2
    assert order.done.rates == {("meta", 0): 0.2, ("meta", 1): 0.2}


def test_a_cell_that_arms_share_runs_once(tmp_path: Path) -> None:
    four, two = (
        ArmSection(name=name, priming=None, transfer=(f"transfer.methods=[{{method: lora, rank: {rank}}}, head]",))
        for name, rank in (("four", 4), ("two", 2))
    )
    order = CellOrder(plan_at(tmp_path, arms=(four, two), seeds=(0,)), ENCODER)
    jobs = order.first()
    assert [job.cell.file.name.split("-", 1)[1] for job in jobs] == [
        "lora-rank4-seed0.json",
        "head-seed0.json",
        "lora-rank2-seed0.json",
    ]
    (transfer,) = choose(order, jobs[1])
    assert order.done.rates == {("four", 1): 0.3, ("two", 1): 0.3}
    assert [cell.folder for cells in order.done.transfers.values() for cell in cells] == [transfer.cell.folder] * 2
    order.ended(transfer, ZeroDivisionError("the sky fell"))
    assert set(order.done.failed) == {("four", 0), ("two", 0)}


@pytest.mark.parametrize("seed", range(3))
def test_in_any_order_each_cell_runs_once_after_what_it_needs(tmp_path: Path, seed: int) -> None:
    plan = plan_at(tmp_path)
    ran = run_all(plan, random.Random(seed))
    places = [place(job.cell) for job in ran]
    assert len(set(places)) == len(places)
    assert kinds(ran) == {PRIMING: 4, RATE: 8, TRANSFER: 16}
    primed = {str(job.cell.folder / "primed"): index for index, job in enumerate(ran) if job.kind == PRIMING}
    for index, job in enumerate(ran):
        source = "base" if job.kind == PRIMING else job.cell.config.transfer.encoder
        assert source == "base" or primed[source] < index
    counts = count_cells(plan)
    assert counts == {PRIMING: Count(4, 4, 0), RATE: Count(8, 8, 0), TRANSFER: Count(32, 32, 0)}
    assert CellOrder(plan, ENCODER).first() == []


def test_finished_cells_are_in_the_results_and_do_not_run_again(tmp_path: Path) -> None:
    plan = plan_at(tmp_path)
    run_all(plan)
    order = CellOrder(plan, ENCODER)
    assert order.first() == []
    done = order.finished()
    assert done.failed == {}
    assert done.rates == {(arm, column): 0.3 for arm in plan.arms for column in (0, 1)}
    assert {user: len(cells) for user, cells in done.transfers.items()} == {
        (arm, seed): 2 for arm in plan.arms for seed in (0, 1)
    }
    assert {user for user, cell in done.primings.items() if cell is None} == {("none", 0), ("none", 1)}
    missing = done.transfers["meta", 1][0].files["qao", 8]
    missing.unlink()
    missing.parent.rmdir()
    (job,) = CellOrder(plan, ENCODER).first()
    assert (job.kind, job.cell.folder) == (TRANSFER, done.transfers["meta", 1][0].folder)


def test_a_failed_priming_fails_the_arms_that_start_from_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    order = CellOrder(plan_at(tmp_path), ENCODER)
    jobs = order.first()
    with caplog.at_level(logging.WARNING):
        assert order.ended(jobs[0], ZeroDivisionError("the sky fell")) == []
    assert order.done.failed == dict.fromkeys((("meta", 0), ("kept", 0)), "ZeroDivisionError: the sky fell")
    assert [record.getMessage() for record in caplog.records] == [
        f"arm {arm}, seed 0 failed: ZeroDivisionError: the sky fell" for arm in ("meta", "kept")
    ]
    # Seed 1 has no rate, for which seed 0 is named.
    assert prime(order, jobs[2]) == []
    for rate in [*prime(order, jobs[1]), *jobs[4:]]:
        choose(order, rate)
    assert kinds(prime(order, jobs[3])) == {TRANSFER: 2}
    assert order.finished().failed == {
        **{(arm, 0): "ZeroDivisionError: the sky fell" for arm in ("meta", "kept")},
        **{(arm, 1): "no rate was chosen: see seed 0" for arm in ("meta", "kept")},
    }


def test_a_failed_choice_fails_the_first_seed(tmp_path: Path) -> None:
    order = CellOrder(plan_at(tmp_path, arms=(NONE,)), ENCODER)
    pfeiffer, head = order.first()
    assert order.ended(pfeiffer, MetaprimeError("no rate today")) == []
    assert kinds(choose(order, head)) == {TRANSFER: 2}
    assert order.finished().failed == {("none", 0): "no rate today"}


def test_the_first_of_several_errors_is_kept(tmp_path: Path) -> None:
    order = CellOrder(plan_at(tmp_path, arms=(NONE,)), ENCODER)
    for number, job in enumerate(order.first()):
        order.ended(job, MetaprimeError(f"error {number}"))
    assert order.finished().failed["none", 0] == "error 0"


def test_an_encoder_that_was_primed_from_other_weights_is_refused(tmp_path: Path) -> None:
    plan = plan_at(tmp_path, arms=(META,), seeds=(0,))
    (job,) = CellOrder(plan, ENCODER).first()
    put_primed(job.cell, weights="c" * 64)
    order = CellOrder(plan, ENCODER)
    assert order.first() == []
    (message,) = order.done.failed.values()
    assert message == (
        f"{job.cell.folder} was primed from weights {'c' * 12}, base-encoder has {'a' * 12}: choose another run.output"
    )


def test_damaged_files_fail_their_seed_alone(tmp_path: Path) -> None:
    plan = plan_at(tmp_path, arms=(NONE, META))
    for job in run_all(plan):
        if job.kind == RATE and job.cell.config.transfer.encoder != "base" and "head" in job.cell.file.name:
            job.cell.file.write_text("{", encoding="utf-8")
        if job.kind == TRANSFER and job.cell.config.transfer.encoder == "base" and job.cell.seed == 1:
            put(job.cell.files["qao", 8], {})
    order = CellOrder(plan, ENCODER)
    assert order.first() == []
    done = order.finished()
    assert set(done.failed) == {("meta", 0), ("none", 1)}
    assert "head-seed0.json is damaged" in done.failed["meta", 0]
    assert "qao-pfeiffer-k8-s1/record.json lacks cell" in done.failed["none", 1]
    assert "none" in {arm for arm, seed in done.transfers if done.transfers[arm, seed] and seed == 0}
    assert done.transfers.get(("none", 1), []) == []


@pytest.mark.parametrize(
    ("changes", "suite", "counts"),
    [
        ((), {}, {PRIMING: Count(4, 0, 16), RATE: Count(8, 0, 16), TRANSFER: Count(32, 0, 32)}),
        (
            ("transfer.lr=[0.1]", "transfer.shots=[8, 30]"),
            {"arms": (META, KEPT), "seeds": (0, 1, 2)},
            {PRIMING: Count(3, 0, 12), RATE: Count(0, 0, 0), TRANSFER: Count(48, 0, 48)},
        ),
        (
            ("transfer.shots=[8, 30]", "data.validation_languages=[qac, qad]"),
            {"arms": (NONE,), "seeds": (3,)},
            # Two rates, K and held-out languages for each of two methods.
            {PRIMING: Count(0, 0, 0), RATE: Count(2, 0, 16), TRANSFER: Count(8, 0, 8)},
        ),
    ],
)
def test_cells_are_counted_with_their_work(
    tmp_path: Path, changes: tuple[str, ...], suite: dict[str, Any], counts: dict[str, Count]
) -> None:
    assert count_cells(plan_at(tmp_path, *changes, **suite)) == counts
    assert list(tmp_path.iterdir()) == []


def test_work_that_is_done_is_not_counted(tmp_path: Path) -> None:
    plan = plan_at(tmp_path, arms=(MULTITASK,), seeds=(0, 1))
    order = CellOrder(plan, ENCODER)
    first, second = order.first()
    rate, _ = prime(order, first)
    (transfer,) = choose(order, rate)
    put(transfer.cell.files["qai", 8], {})
    # A validation, three meta-steps, and one that a kill has cut off.
    lines = [{"step": 0}, *({"step": step, "query_loss": 1.0} for step in (1, 2, 3))]
    metrics = put(second.cell.folder / "metrics.jsonl", lines)
    metrics.write_text(metrics.read_text("utf-8") + json.dumps({"step": 4, "query_loss": 1.0})[:-3], encoding="utf-8")
    assert count_cells(plan) == {PRIMING: Count(2, 1, 1), RATE: Count(2, 1, 2), TRANSFER: Count(8, 1, 7)}
