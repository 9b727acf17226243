"""Calls that do not depend on one another, some at a time, each in a process of its own that runs on one thread."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from metaprime.loops.metrics_log import Display
from metaprime.types import MetaprimeError


@contextlib.contextmanager
def workers(jobs: int) -> Iterator[Executor]:
    """A pool of so many processes; with one job, this very process. Left early, it stops what runs in them."""
    if jobs == 1:
        yield _Here()
        return
    context = multiprocessing.get_context("spawn")  # fresh processes: each gets one thread, none inherits a lock
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()  # SIGTERM: a priming run saves its step
            raise


def in_parallel(
    title: str, pool: Executor, work: Callable[..., Any], calls: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[int, Any]]:
    """(number of the call, its result or the exception it ended in), as they end. A stop by signal ends all.

    Raises:
        MetaprimeError: a process was killed from outside.
    """
    with Display(title, len(calls), bool(calls)) as display:
        for done, (number, outcome) in enumerate(_outcomes(pool, work, calls), 1):
            if isinstance(outcome, BrokenProcessPool):
                raise MetaprimeError(
                    "a worker process was killed, perhaps for want of memory: the same command goes on, with fewer --jobs"
                )
            display.show(done, "")
            yield number, outcome


def _outcomes(pool: Executor, work: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
    if isinstance(pool, _Here):
        for number, call in enumerate(calls):
            yield number, _outcome(pool.submit(work, *call))
        return
    numbers = {pool.submit(work, *call): number for number, call in enumerate(calls)}
    for future in as_completed(numbers):
        yield numbers[future], _outcome(future)


def _outcome(future: Future[Any]) -> Any:
    try:
        return future.result()
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
