"""Runs independent jobs in parallel, each in a process with one thread."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from metaprime.config.code import loaded_code, run_code
from metaprime.runs.stopping import IGNORABLE
from metaprime.types import MetaprimeError


@dataclass(frozen=True)
class Job:
    """A job of a worker.

    Attributes:
        kind: key of the function that runs it.
        cell: the function's argument.
    """

    kind: str
    cell: Any


@dataclass(frozen=True)
class Pool:
    """An executor and the number of jobs that it runs in parallel."""

    executor: Executor
    size: int


@contextlib.contextmanager
def workers(jobs: int) -> Iterator[Pool]:
    """Opens a pool of processes; after an exception in the block, its workers are terminated.

    Args:
        jobs: number of processes; 1: jobs run in this process.

    Example:
        with workers(2) as pool:
            in_parallel(pool, {"double": double}, [Job("double", 2)], follow)
    """
    if jobs == 1:
        yield Pool(_Here(), 1)
        return
    # Spawned processes have threads and locks of their own.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start, initargs=(loaded_code(),)) as executor:
        try:
            yield Pool(executor, jobs)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                # By SIGTERM, at which a priming run saves its step.
                process.terminate()
            raise


def in_parallel(
    pool: Pool,
    work: Mapping[str, Callable[[Any], Any]],
    first: Sequence[Job],
    follow: Callable[[Job, Any], Sequence[Job]],
) -> None:
    """Runs jobs in order, and the jobs that follow from them, until none remains.

    Args:
        pool: processes that run the jobs.
        work: kind of job -> function that runs it, `work[kind](cell)`.
        first: jobs to begin with.
        follow: function of an ended job and its outcome, a result or an exception; returns further jobs.

    Raises:
        MetaprimeError: a worker process was killed.
        Stopped: a signal arrived; all jobs are stopped.
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
    """Returns the result of a job or the exception that it ended in."""
    try:
        return future.result()
    except BrokenProcessPool:
        raise MetaprimeError(
            "a worker process was killed: the same command resumes; fewer --jobs take less memory"
        ) from None
    except Exception as error:
        # The caller records it, and other jobs run on.
        return error


class _Here(Executor):
    """An executor that runs each call when it is submitted."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Runs a call and returns its outcome."""
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _start(code: dict[str, bytes]) -> None:
    """Begins a worker: it follows its parent, and has the parent's own code, whose objects jobs hold."""
    _depend_on_parent()
    run_code(code)


def _depend_on_parent() -> None:
    """Ignores what a batch system or a lost terminal sends to all processes, and ends with the parent."""
    # The parent gets the signal too, and stops its workers by SIGTERM: two would end them at once.
    for number in IGNORABLE:
        signal.signal(number, signal.SIG_IGN)
    _end_with_parent()


def _end_with_parent() -> None:
    """Ends a worker whose parent was killed; otherwise it would hold its cell's lock and wait forever."""
    parent = multiprocessing.parent_process()
    assert parent

    def watch() -> None:
        """Waits for the parent's end."""
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
