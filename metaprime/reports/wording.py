"""Writes numbers, intervals and tables as text, in every report and on the terminal alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from metaprime.runs.records import Record, headline, select
from metaprime.stats.intervals import Interval, t_interval

if TYPE_CHECKING:
    from metaprime.tasks.task import Metric

UNKNOWN = "–"


def listed(items: Iterable[Any]) -> str:
    """Returns the items with commas between them."""
    return ", ".join(map(str, items)) or "none"


def number(value: float) -> str:
    """Writes a value with one digit after the point."""
    return f"{value:.1f}" if math.isfinite(value) else UNKNOWN


def signed(value: float) -> str:
    """Writes a difference with one digit after the point and its sign, a true minus."""
    return f"{value:+.1f}".replace("-", "−") if math.isfinite(value) else UNKNOWN


def whole(value: float | None) -> str:
    """Writes a value without digits after the point, with commas between thousands."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:,.0f}"


def interval_text(interval: Interval) -> str:
    """Writes `mean ± standard deviation`, or the mean alone where there is one replicate."""
    both = math.isfinite(interval.deviation)
    return f"{number(interval.mean)} ± {number(interval.deviation)}" if both else number(interval.mean)


def limits(interval: Interval, sign: bool = False) -> str:
    """Writes `[low, high]`, or nothing where there is no interval."""
    if not math.isfinite(interval.low):
        return ""
    low, high = (signed(end) if sign else number(end) for end in (interval.low, interval.high))
    return f"[{low}, {high}]"


def means(found: Iterable[Interval | None]) -> str:
    """Returns several means in one cell, in the order given."""
    return " / ".join(number(one.mean) if one else UNKNOWN for one in found)


def subtraction(one: str, other: str) -> str:
    """Returns the name of a contrast, with a true minus."""
    return f"{one} − {other}"


def p_text(p: float) -> str:
    """Writes a p-value with three digits after the point."""
    if not math.isfinite(p):
        return UNKNOWN
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table, the first column left-aligned, the others right. Cells are written as they are.

    Example:
        markdown(["arm", "F1"], [["meta", "70.0"]])
    """
    marks = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, marks, *rows]) + "\n"


def terminal(title: str, header: Sequence[str], rows: Sequence[Sequence[str | Text]], left: int = 1) -> Table:
    """Returns a table for a terminal, with so many columns left-aligned. In a `Text` rich takes nothing for a mark.

    Example:
        Console().print(terminal("F1", ["arm", "F1"], [["meta", "70.0"]]))
    """
    table = Table(title=title)
    for place, name in enumerate(header):
        table.add_column(name, justify="left" if place < left else "right")
    for row in rows:
        table.add_row(*row)
    return table


def transfer_table(records: Sequence[Record], metrics: Sequence[Metric]) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows of a table of transfers: mean and deviation over seed pairs by language, method and K.

    Args:
        records: of one task.
        metrics: those to show; the first is the task's headline.

    Example:
        header, rows = transfer_table([result.record for result in transfer(config)], TAGGING.listed)
    """
    rows = []
    for language, method, shots in sorted({(c["language"], c["method"], c["shots"]) for c in _cells(records)}):
        chosen = select(records, language=language, method=method, shots=shots)
        rates = "/".join(f"{rate:g}" for rate in sorted({record["training"]["lr"] for record in chosen}))
        scores = [interval_text(t_interval([headline(record, metric) for record in chosen])) for metric in metrics]
        rows.append([language, method, str(shots), rates, *scores, str(len(chosen))])
    return ["language", "method", "K", "rate", *(metric.heading or metric.label for metric in metrics), "runs"], rows


def _cells(records: Sequence[Record]) -> list[Record]:
    return [record["cell"] for record in records]
