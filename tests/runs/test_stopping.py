"""Signals and time: what is raised at once, what waits, and what a second signal does."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator

from metaprime.runs.stopping import CAUSES, ECHO_S, Stopped, Stopping, seconds_of
from metaprime.types import MetaprimeError

ALONE = cast(Accelerator, SimpleNamespace(num_processes=1, device="cpu"))


class Exited(Exception):
    pass


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        (signal.SIGINT, 130),
        (signal.SIGUSR1, 138),
        (signal.SIGUSR2, 140),
        (signal.SIGHUP, 129),
    ],
)
def test_a_signal_is_raised_at_once_or_waits_until_it_is_asked_for(
    number: signal.Signals, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as stopped, Stopping(None, "call again"):
        signal.raise_signal(number)
    assert stopped.value.code == code

    def asked() -> None:
        with Stopping(None, "call again") as stop, stop.deferred():
            assert stop.due(ALONE) == 0
            signal.raise_signal(number)
            assert stop.due(ALONE) == code
            raise Stopped(code, " after step 3")

    with pytest.raises(Stopped) as stopped:
        asked()
    assert stopped.value.code == code
    assert [record.getMessage() for record in caplog.records] == [
        f"stopped by {number.name}: call again",
        f"stopped by {number.name} after step 3: call again",
    ]
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_that_is_ignored_at_the_start_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Stopping(None, "call again") as stop:
            signal.raise_signal(number)
            assert stop.due(ALONE) == 0
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_second_signal_ends_at_once_but_an_echo_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]

    def leave(code: int) -> None:
        raise Exited(code)

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(os, "_exit", leave)
    with Stopping(None, "") as stop, stop.deferred():
        signal.raise_signal(signal.SIGTERM)
        now[0] += ECHO_S / 2
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        # The code is that of the first one.
        assert stop.due(ALONE) == 143
        now[0] += ECHO_S
        with pytest.raises(Exited, match="130"):
            signal.raise_signal(signal.SIGINT)


def test_time_that_is_up_ends_what_is_not_deferred(caplog: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()
    with pytest.raises(Stopped) as stopped, Stopping(0.05, "call again"):
        time.sleep(5)
    assert stopped.value.code == 75
    assert time.monotonic() < began + 4
    assert caplog.messages == ["stopped by --max-time: call again"]
    # No alarm is left behind.
    time.sleep(0.06)
    with Stopping(60, ""):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_no_step_is_begun_that_would_not_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Stopping(100, "") as stop, stop.deferred():
        # The slowest took 40.
        for ends, code in ((10, 0), (50, 0), (55, 0), (59, 0), (61, 75)):
            now[0] = float(ends)
            assert stop.due(ALONE) == code, ends


@pytest.mark.parametrize(
    ("mine", "others", "code"), [(0, 0, 0), (143, 0, 143), (0, 143, 143), (75, 130, 130), (0, 75, 75), (0, 138, 138)]
)
def test_processes_agree(mine: int, others: int, code: int) -> None:
    def reduce(asked: torch.Tensor, reduction: str) -> torch.Tensor:
        assert reduction == "sum"
        return asked + torch.tensor([float(others == one) for one in CAUSES])

    with Stopping(None, "") as stop, stop.deferred():
        stop.code = mine
        assert stop.due(cast(Any, SimpleNamespace(num_processes=2, device="cpu", reduce=reduce))) == code
        stop.code = 0


def test_an_exception_that_was_swallowed_is_raised_when_next_asked() -> None:
    with Stopping(None, "") as stop:
        # As Python does in a destructor.
        with contextlib.suppress(Stopped):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped) as again:
            stop.check()
    assert again.value.code == 143


def test_other_threads_leave_signals_alone() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with Stopping(0.0, "") as stop, stop.deferred():
            seen.extend([signal.getsignal(signal.SIGTERM), stop.due(ALONE)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, 75]


def test_it_travels_between_processes() -> None:
    again = pickle.loads(pickle.dumps(Stopped(143, " after step 3")))
    assert (again.code, again.reached) == (143, " after step 3")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("90m", 5400),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1h30", 5400),
        ("0.5", 30),
        ("45s", 45),
        (None, None),
    ],
)
def test_times(text: str | None, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5", "soon", "2d", "1.2.3", "90 h", "nan"])
def test_bad_times_are_refused(text: str) -> None:
    with pytest.raises(MetaprimeError, match=r"--max-time .*minutes above zero.*2h"):
        seconds_of(text)
