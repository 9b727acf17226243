"""Writes and reads `metrics.jsonl`, one JSON object per line, and shows progress on stderr."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from metaprime.files import check_readable, write_text, writing
from metaprime.types import MetaprimeError

METRICS_FILE = "metrics.jsonl"
"""File of a priming run's metrics, one line per meta-step."""

EVERY_S = 15.0
"""Longest time without a line of progress, where there is no terminal."""


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Reads the metrics of a priming run.

    The last line of a run that is active or was killed may be truncated: it is skipped.

    Args:
        folder: the priming run's, such as `priming/KEY/seed0`.

    Returns:
        One mapping for each complete line with a `step`, in the order of the file.

    Raises:
        MetaprimeError: the file is missing or cannot be read.

    Example:
        losses = [line["query_loss"] for line in read_metrics(folder) if "query_loss" in line]
    """
    file = folder / METRICS_FILE
    check_readable(file)
    try:
        texts = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise MetaprimeError(f"{file} cannot be read ({error}): run the command of the suite again") from None
    return [line for text in texts if (line := _whole(text)) is not None]


def _whole(text: str) -> dict[str, Any] | None:
    """Returns the values of a line; None if it is truncated or names no step."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and "step" in line else None


class MetricsLog:
    """An append-only writer of `metrics.jsonl`, active in the first process only.

    Lines after the step that a run resumes from are removed: the run writes them again.

    Example:
        MetricsLog(folder / METRICS_FILE, resumed_at=0).write({"step": 1, "query_loss": 0.7})
    """

    def __init__(self, file: Path, resumed_at: int, shown: bool = True) -> None:
        """Removes lines after meta-step `resumed_at`; without `shown`, leaves the file alone."""
        self.file, self.shown = file, shown
        if shown:
            self._keep_until(resumed_at)

    def _keep_until(self, step: int) -> None:
        """Rewrites the file with the complete lines up to a step."""
        kept = []
        if self.file.is_file():
            for text in self.file.read_text(encoding="utf-8").splitlines():
                line = _whole(text)
                if line is not None and line["step"] <= step:
                    kept.append(text + "\n")
        write_text(self.file, "".join(kept))

    def write(self, values: dict[str, Any]) -> None:
        """Appends one line: `log.write({"step": 3, "query_loss": 0.5})`."""
        if not self.shown:
            return
        with writing(self.file), self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(values, ensure_ascii=False) + "\n")


class Display:
    """A progress display on stderr: a bar on a terminal; elsewhere lines, at each tenth of the work and every 15 s.

    Example:
        with Display("priming", 100, shown=True) as display:
            display.show(1, "loss 0.70")
    """

    def __init__(self, title: str, total: int, shown: bool, unit: str = "step", every: float = EVERY_S) -> None:
        """`total` is the number of units of work; only the first process is `shown`; `every` is in seconds."""
        self.title, self.total, self.unit, self.every = title, total, unit, every
        self.console = Console(stderr=True)
        self.bar: Progress | None = None
        self.plain = shown and not self.console.is_terminal
        self.began = self.printed = time.monotonic()
        # Units that were done before, of a run that is resumed; None until the first of this run.
        self.before: int | None = None
        self.done, self.note = 0, ""
        self.ended = threading.Event()
        if shown and self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=self.console)
            self.task = self.bar.add_task(title, total=total, note="")

    def __enter__(self) -> Display:
        self.began = self.printed = time.monotonic()
        if self.bar:
            self.bar.start()
        elif self.plain:
            # A thread, since one step or cell may take longer than the time between two lines.
            threading.Thread(target=self._remind, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        if self.bar:
            self.bar.stop()

    def show(self, done: int, note: str) -> None:
        """Shows that `done` units of `total` are done, with a short note."""
        if self.bar:
            self.bar.update(self.task, completed=done, note=note)
            return
        if self.before is None:
            self.before = max(0, done - 1) if self.unit == "step" else 0
        tenths = 10 * done // max(1, self.total), 10 * self.done // max(1, self.total)
        self.done, self.note = done, note
        if self.plain and (tenths[0] > tenths[1] or time.monotonic() - self.printed >= self.every):
            self._print()

    def _print(self) -> None:
        """Prints how far the work is, how long a unit takes, and how long the rest will."""
        self.printed = time.monotonic()
        line = f"{self.title} {self.done}/{self.total} {self.note}".rstrip()
        if new := self.done - (self.before or 0):
            each = (self.printed - self.began) / new
            line += f" ({each:.2g} s/{self.unit}, {duration(each * (self.total - self.done))} left)"
        print(line, file=sys.stderr, flush=True)

    def _remind(self) -> None:
        """Prints a line whenever there was none for a while, until the work ends."""
        while not self.ended.wait(max(0.01, self.printed + self.every - time.monotonic())):
            if time.monotonic() - self.printed >= self.every:
                self._print()


def duration(seconds: float) -> str:
    """Writes a duration: `duration(4000)` is `1 h 7 min`, `duration(200)` is `3 min`, `duration(9.6)` is `10 s`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
