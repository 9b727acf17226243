"""Calls that do not depend on one another, some at a time, each in a process of its own that runs on one thread."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from metaprime.types import MetaprimeError


@dataclass(frozen=True)
class Job:
    """What a worker is to do with a cell, in one word, and the cell."""

    kind: str
    cell: Any


@dataclass(frozen=True)
class Pool:
    """An executor and how many jobs it runs at a time."""

    executor: Executor
    size: int


@contextlib.contextmanager
def workers(jobs: int) -> Iterator[Pool]:
    """A pool of so many processes; with one job, this very process. Left early, it stops what runs in them."""
    if jobs == 1:
        yield Pool(_Here(), 1)
        return
    context = multiprocessing.get_context("spawn")  # fresh processes: each gets one thread, none inherits a lock
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent) as executor:
        try:
            yield Pool(executor, jobs)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()  # SIGTERM: a priming run saves its step
            raise


def in_parallel(
    pool: Pool,
    work: Mapping[str, Callable[[Any], Any]],
    first: Sequence[Job],
    follow: Callable[[Job, Any], Sequence[Job]],
) -> None:
    """Runs jobs in the order they come in, `work[kind](cell)`, and those that `follow(job, outcome)` adds when one has ended.

    The outcome is the result, or the exception it ended in; a stop by signal ends all.

    Raises:
        MetaprimeError: a process was killed from outside.
    """
    queue = deque(first)
    running: dict[Future[Any], Job] = {}
    while queue or running:
        while queue and len(running) < pool.size:
            job = queue.popleft()
            running[pool.executor.submit(work[job.kind], job.cell)] = job
        ended, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in ended:
            queue.extend(follow(running.pop(future), _outcome(future)))


def _outcome(future: Future[Any]) -> Any:
    try:
        return future.result()
    except BrokenProcessPool:
        raise MetaprimeError(
            "a worker process was killed, perhaps for want of memory: the same command goes on, with fewer --jobs"
        ) from None
    except Exception as error:  # of one cell; the others go on, and the caller records it
        return error


class _Here(Executor):
    """Runs each call when it is submitted."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _end_with_parent() -> None:
    """A worker whose parent was killed would otherwise finish its cell, hold its lock, and then wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
