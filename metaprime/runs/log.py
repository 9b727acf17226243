"""Writes and reads `metrics.jsonl`, one JSON object per line, and shows progress on stderr."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from metaprime.files import check_readable, write_text, writing
from metaprime.types import MetaprimeError

METRICS_FILE = "metrics.jsonl"
"""File of a priming run's metrics, one line per meta-step."""


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
    """A progress display on stderr: a bar on a terminal, elsewhere a line per tenth of the work.

    Example:
        with Display("priming", 100, shown=True) as display:
            display.show(1, "loss 0.70")
    """

    def __init__(self, title: str, total: int, shown: bool) -> None:
        """`total` is the number of units of work; only the first process is `shown`."""
        self.title, self.total = title, total
        self.console = Console(stderr=True)
        self.bar: Progress | None = None
        self.plain = shown and not self.console.is_terminal
        if shown and self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=self.console)
            self.task = self.bar.add_task(title, total=total, note="")

    def __enter__(self) -> Display:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()

    def show(self, done: int, note: str) -> None:
        """Shows that `done` units of `total` are done, with a short note."""
        if self.bar:
            self.bar.update(self.task, completed=done, note=note)
        elif self.plain and (done == self.total or done % max(1, self.total // 10) == 0):
            print(f"{self.title} {done}/{self.total} {note}", file=sys.stderr, flush=True)
