"""Stops a run early and in order: on a signal, or at the time limit of `--max-time`."""

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
from typing import TYPE_CHECKING, Any

from metaprime.types import MetaprimeError

if TYPE_CHECKING:
    from accelerate import Accelerator

IGNORABLE = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals of a lost terminal and of batch systems. One that is ignored at the start stays ignored: `nohup` does
so, and the workers of a suite, which are stopped by their parent."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, *IGNORABLE)
"""Signals that stop a run."""

CODES = {**{number: 128 + number for number in SIGNALS}, signal.SIGALRM: 75}
"""Signal -> exit code: 128 + its number, as in shells; 75, `EX_TEMPFAIL`, at the time limit."""

CAUSES = {**{128 + number: number.name for number in SIGNALS}, 75: "--max-time"}
"""Exit code -> cause, for messages."""

ECHO_S = 0.2
"""Seconds within which a second signal counts as an echo and is ignored: `timeout` signals both the
child and its group, and a launcher forwards what the terminal already sent to all. A later second
signal ends the process at once."""

log = logging.getLogger(__name__)


class Stopped(SystemExit):
    """The exit of a run that was stopped early and in order.

    Attributes:
        code: exit code, a key of `CAUSES`.
        reached: how far the run came, for the message, such as ` after step 3 of 50`.
    """

    code: int

    def __init__(self, code: int, reached: str = "") -> None:
        super().__init__(code, reached)
        self.code, self.reached = code, reached


class Stopping:
    """A context in which a signal or the time limit raises `Stopped`; in `deferred` it waits for `due`.

    Python can handle signals in the main thread only: in other threads signals are left alone and
    the time limit is checked by `due`.

    Example:
        with Stopping(3600, "resume with --resume") as stop, stop.deferred():
            code = stop.due(accelerator)
    """

    def __init__(self, seconds: float | None, advice: str) -> None:
        """`seconds` is the time limit from now, or None; `advice` ends the log message."""
        self.seconds, self.advice = seconds, advice
        self.began = self.last = time.monotonic()
        self.slowest = 0.0
        self.code = 0
        self.signalled: float | None = None
        self.waiting = False
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            ignored = {number for number in IGNORABLE if signal.getsignal(number) is signal.SIG_IGN}
            self.before = {number: signal.signal(number, self._caught) for number in CODES if number not in ignored}
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
        """Postpones `Stopped` within a `with` block, which asks `due` once per step."""
        self.last, self.waiting = time.monotonic(), True
        try:
            yield
        finally:
            self.waiting = False

    def due(self, accelerator: Accelerator) -> int:
        """Returns the exit code to stop with after this step, the same in all processes, or 0.

        The time limit counts as reached when a step as slow as the slowest so far would exceed it.
        """
        now = time.monotonic()
        self.slowest, self.last = max(self.slowest, now - self.last), now
        if not self.code and self.seconds is not None and now - self.began + self.slowest > self.seconds:
            self.code = CODES[signal.SIGALRM]
        if accelerator.num_processes == 1:
            return self.code
        # The command line reads durations before torch is loaded.
        import torch

        votes = torch.tensor([float(self.code == code) for code in CAUSES], device=accelerator.device)
        counts = accelerator.reduce(votes, reduction="sum").tolist()
        return next((code for code, count in zip(CAUSES, counts, strict=True) if count), 0)

    def check(self) -> None:
        """Raises `Stopped` if a stop was requested, in case other code swallowed the exception."""
        if self.code:
            raise Stopped(self.code)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal: requests a stop, ignores an echo, exits at once on a second signal."""
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
    """Returns the seconds of a duration: `90` and `90m` are minutes; `2h`, `1h30m`, `45s`; or None.

    Raises:
        MetaprimeError: the text is not a duration, or the duration is zero.

    Example:
        seconds_of("1h30m")  # 5400.0
    """
    if text is None:
        return None
    match = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)(?:m|$))?(?:([\d.]+)s)?", text.strip())
    try:
        hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0.0, 0.0, 0.0)
    except ValueError:
        hours = minutes = seconds = 0.0
    if total := 3600 * hours + 60 * minutes + seconds:
        return total
    raise MetaprimeError(f"--max-time {text!r} must be minutes above zero, or a duration such as 90m, 2h, 1h30m, 45s")
