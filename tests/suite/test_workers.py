"""Jobs in parallel: their order, what follows from them, errors that are handed on, and processes that end."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from metaprime.runs.stopping import Stopped
from metaprime.suite import workers as module
from metaprime.suite.workers import Job, Pool, in_parallel, workers
from metaprime.types import MetaprimeError

PID = "__import__('os').getpid()"
DIE = "__import__('os').kill(__import__('os').getpid(), 9)"
WORK: dict[str, Callable[[Any], Any]] = {"eval": eval, "sleep": time.sleep}
"""Functions that a fresh process finds without a file of tests."""


def collected(
    pool: Pool, work: dict[str, Callable[[Any], Any]], first: Sequence[Job], then: dict[Any, list[Job]] | None = None
) -> list[tuple[Job, Any]]:
    """Runs jobs, and those in `then` after the cell that they are listed under; returns what ended, in order."""
    ended: list[tuple[Job, Any]] = []

    def follow(job: Job, outcome: Any) -> list[Job]:
        ended.append((job, outcome))
        return (then or {}).get(job.cell, [])

    in_parallel(pool, work, first, follow)
    return ended


def assert_gone() -> None:
    """Waits for terminated workers, which end in a moment."""
    deadline = time.monotonic() + 60
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert multiprocessing.active_children() == []


def test_one_worker_is_this_process_and_runs_jobs_in_order() -> None:
    seen: list[int] = []

    def double(value: int) -> int:
        seen.append(value)
        return 2 * value

    work = {"double": double, "pid": lambda value: os.getpid()}
    first = [Job("double", 1), Job("pid", 2), Job("double", 3)]
    with workers(1) as pool:
        ended = collected(pool, work, first, {1: [Job("double", 10), Job("double", 11)], 10: [Job("double", 100)]})
    assert seen == [1, 3, 10, 11, 100]
    assert [outcome for _, outcome in ended] == [2, os.getpid(), 6, 20, 22, 200]


def test_no_jobs_are_no_work() -> None:
    with workers(1) as pool:
        assert collected(pool, {}, []) == []


def test_an_error_is_an_outcome_and_the_others_run() -> None:
    with workers(1) as pool:
        ended = collected(pool, {"invert": lambda value: 1 / value}, [Job("invert", 0), Job("invert", 2)])
    (_, error), (_, half) = ended
    assert isinstance(error, ZeroDivisionError)
    assert half == 0.5


@pytest.mark.parametrize("stop", [Stopped(143), KeyboardInterrupt()])
def test_a_stop_ends_all(stop: BaseException) -> None:
    seen: list[int] = []

    def work(value: int) -> None:
        seen.append(value)
        if value == 2:
            raise stop

    with workers(1) as pool, pytest.raises(type(stop)):
        collected(pool, {"work": work}, [Job("work", value) for value in (1, 2, 3)])
    assert seen == [1, 2]


def test_an_unknown_kind_is_no_outcome() -> None:
    with workers(1) as pool, pytest.raises(KeyError, match="juggle"):
        collected(pool, {}, [Job("juggle", 1)])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_more_jobs_run_at_a_time_than_the_pool_has_room_for(size: int) -> None:
    lock, running, most = threading.Lock(), 0, 0
    together = threading.Barrier(size, timeout=20)

    def work(cell: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        # All of the first jobs wait for one another: they do run at once.
        if cell < size:
            together.wait()
        time.sleep(0.01)
        with lock:
            running -= 1

    with ThreadPoolExecutor(8) as executor:
        ended = collected(
            Pool(executor, size), {"work": work}, [Job("work", n) for n in range(8)], {0: [Job("work", 8)]}
        )
    assert most == size
    assert sorted(job.cell for job, _ in ended) == list(range(9))
    assert {outcome for _, outcome in ended} == {None}


def test_two_workers_are_other_processes() -> None:
    with workers(2) as pool:
        ended = collected(pool, WORK, [Job("eval", PID), Job("eval", "1 / 0")])
    outcomes = {job.cell: outcome for job, outcome in ended}
    assert outcomes[PID] != os.getpid()
    assert isinstance(outcomes["1 / 0"], ZeroDivisionError)


def test_what_a_batch_system_sends_to_all_is_left_to_the_parent() -> None:
    """Each worker stays alive under its own USR1, and the next job finds it so."""
    send = "[__import__('os').kill(__import__('os').getpid(), number) for number in (1, 10, 12)]"
    with workers(2) as pool:
        ended = collected(pool, WORK, [Job("eval", send), Job("eval", "7")])
    assert {str(outcome) for _, outcome in ended} == {"[None, None, None]", "7"}


def test_a_killed_worker_is_an_error_with_a_remedy() -> None:
    message = "^a worker process was killed: the same command resumes; fewer --jobs take less memory$"
    with pytest.raises(MetaprimeError, match=message), workers(2) as pool:
        collected(pool, WORK, [Job("eval", DIE)])
    assert_gone()


def test_leaving_the_block_by_an_error_stops_what_runs() -> None:
    def follow(job: Job, outcome: Any) -> list[Job]:
        raise Stopped(143)

    started = time.monotonic()
    with pytest.raises(Stopped), workers(2) as pool:
        in_parallel(pool, WORK, [Job("sleep", 600), Job("eval", "1")], follow)
    assert time.monotonic() - started < 300
    assert_gone()


def test_a_worker_ends_with_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    killed, exits, ended = threading.Event(), [], threading.Event()

    class Parent:
        def join(self) -> None:
            killed.wait(20)

    def leave(code: int) -> None:
        exits.append(code)
        ended.set()

    monkeypatch.setattr(multiprocessing, "parent_process", Parent)
    monkeypatch.setattr(module.os, "_exit", leave)
    module._end_with_parent()
    assert not ended.wait(0.05)
    killed.set()
    assert ended.wait(20)
    assert exits == [1]
