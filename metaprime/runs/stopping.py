"""Ending before the end, in order: on SIGTERM, on SIGINT, or when the time of `--max-time` is up."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

import torch
from accelerate import Accelerator

from metaprime.types import MetaprimeError

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGALRM: 75}
"""Exit codes: 128 + the signal's number as shells have it; 75, `EX_TEMPFAIL` (try again), when time is up."""

CAUSES = {143: "SIGTERM", 130: "SIGINT", 75: "--max-time"}

ECHO_S = 0.2
"""A second signal within these seconds is the first one's echo: `timeout` sends it to the child and to its group, a
launcher passes on what the terminal has sent to everybody. Later ones mean it."""

log = logging.getLogger(__name__)


class Stopped(SystemExit):
    """A run that ended early and in order. `code` is the exit code, `reached` says how far it came."""

    code: int

    def __init__(self, code: int, reached: str = "") -> None:
        super().__init__(code, reached)
        self.code, self.reached = code, reached


class Stopping:
    """Within its `with` block a signal, or the end of the time, raises `Stopped`; within `deferred` it waits to be asked.

    Signals are Python's to catch in the main thread only: elsewhere none is, and time is looked at when asked.
    """

    def __init__(self, seconds: float | None, advice: str) -> None:
        """`seconds` from now, or no limit; `advice` is what to do next, for the message."""
        self.seconds, self.advice = seconds, advice
        self.began = self.last = time.monotonic()
        self.slowest = 0.0
        self.code = 0
        self.signalled: float | None = None
        self.waiting = False
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._caught) for number in CODES}
            if self.seconds is not None:
                signal.setitimer(signal.ITIMER_REAL, self.seconds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if isinstance(error, Stopped) and os.environ.get("RANK", "0") == "0":
            log.warning("stopped by %s%s: %s", CAUSES[error.code], error.reached, self.advice)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """In here nothing is raised: `due` says when to stop."""
        self.last, self.waiting = time.monotonic(), True
        try:
            yield
        finally:
            self.waiting = False

    def due(self, accelerator: Accelerator) -> int:
        """Asked once a step: the exit code to stop with now, the same in all processes; 0 to go on.

        It is time when another step as slow as the slowest so far would not end within the limit.
        """
        now = time.monotonic()
        self.slowest, self.last = max(self.slowest, now - self.last), now
        if not self.code and self.seconds is not None and now - self.began + self.slowest > self.seconds:
            self.code = CODES[signal.SIGALRM]
        if accelerator.num_processes == 1:
            return self.code
        asked = torch.tensor([float(self.code == code) for code in CAUSES], device=accelerator.device)
        counts = accelerator.reduce(asked, reduction="sum").tolist()
        return next((code for code, count in zip(CAUSES, counts, strict=True) if count), 0)

    def check(self) -> None:
        """Raises what was asked for before, should the exception have been lost in a place that swallows them."""
        if self.code:
            raise Stopped(self.code)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number != signal.SIGALRM:
            if self.signalled is not None:
                if now - self.signalled > ECHO_S:
                    os._exit(128 + number)
                return
            self.signalled = now
        if not self.code:
            self.code = CODES[signal.Signals(number)]
            if not self.waiting:
                raise Stopped(self.code)


def seconds_of(text: str | None) -> float | None:
    """`90` and `90m` are minutes; `2h`, `1h30m`, `45s`.

    Raises:
        MetaprimeError: it is none of these.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)(?:m|$))?(?:([\d.]+)s)?", text.strip())
    try:
        hours, minutes, seconds = (float(part or 0) for part in found.groups()) if found else (0.0, 0.0, 0.0)
    except ValueError:
        hours = minutes = seconds = 0.0
    if total := 3600 * hours + 60 * minutes + seconds:
        return total
    raise MetaprimeError(f"--max-time {text!r} must be minutes above zero, or like 90m, 2h, 1h30m, 45s")
