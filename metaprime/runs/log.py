"""Writes and reads `metrics.jsonl`, one JSON object a line, and shows people one progress display."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from metaprime.files import write_text, writing
from metaprime.types import MetaprimeError

METRICS_FILE = "metrics.jsonl"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Reads a priming run's `metrics.jsonl`: one mapping for each line that is whole and names its step.

    The last line of a run at work, or of one that was killed, may be cut off: it is left out.

    Args:
        folder: the priming run's, as `priming/KEY/seed0`.

    Raises:
        MetaprimeError: the file is missing or cannot be read.

    Example:
        losses = [line["query_loss"] for line in read_metrics(folder) if "query_loss" in line]
    """
    file = folder / METRICS_FILE
    try:
        texts = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise MetaprimeError(f"{file} cannot be read ({error}): run the command of the suite again") from None
    return [line for text in texts if (line := _whole(text)) is not None]


def _whole(text: str) -> dict[str, Any] | None:
    """Returns the values of a line, or None where it was cut off."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and "step" in line else None


class MetricsLog:
    """Appends lines to a file, on the first process alone.

    Lines past the step that a run resumes from are dropped: they are about to be written again.
    """

    def __init__(self, file: Path, resumed_at: int, shown: bool = True) -> None:
        self.file, self.shown = file, shown
        if shown:
            self._keep_until(resumed_at)

    def _keep_until(self, step: int) -> None:
        file, kept = self.file, []
        if file.is_file():
            for text in file.read_text(encoding="utf-8").splitlines():
                line = _whole(text)
                if line is not None and line["step"] <= step:
                    kept.append(text + "\n")
        write_text(file, "".join(kept))

    def write(self, values: dict[str, Any]) -> None:
        """Appends one line."""
        if not self.shown:
            return
        with writing(self.file), self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(values, ensure_ascii=False) + "\n")


class Display:
    """A bar on a terminal, a line every tenth elsewhere; nothing on processes that are not the first."""

    def __init__(self, title: str, total: int, shown: bool) -> None:
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
        """`done` of `total`, with a short note."""
        if self.bar:
            self.bar.update(self.task, completed=done, note=note)
        elif self.plain and (done == self.total or done % max(1, self.total // 10) == 0):
            print(f"{self.title} {done}/{self.total} {note}", file=sys.stderr, flush=True)
