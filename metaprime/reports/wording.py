"""Writes numbers, intervals and tables as text, for reports and the terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metaprime.runs.records import Record, headline, select
from metaprime.stats.intervals import Interval, t_interval

if TYPE_CHECKING:
    from metaprime.tasks.task import Metric, TaskKind

UNKNOWN = "–"
"""Text of a value that is not known."""

TOO_FEW, NOTHING = "too few seeds", "nothing predicted"
"""Texts in place of an interval: it is wider than the scale; it compares empty predictions."""


def listed(items: Iterable[Any]) -> str:
    """Joins items by commas: `listed(("qai", "qao"))` is `qai, qao`, of no items `none`."""
    return ", ".join(map(str, items)) or "none"


def number(value: float) -> str:
    """Writes a value with one decimal: `number(70)` is `70.0`."""
    return f"{value:.1f}" if math.isfinite(value) else UNKNOWN


def signed(value: float) -> str:
    """Writes a difference with one decimal and its sign: `signed(-2)` is `−2.0`."""
    return f"{value:+.1f}".replace("-", "−") if math.isfinite(value) else UNKNOWN


def whole(value: float | None) -> str:
    """Writes a value without decimals, with thousands separators: `whole(1234.5)` is `1,234`."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:,.0f}"


def interval_text(interval: Interval) -> str:
    """Writes `mean ± standard deviation`, or the mean alone with one replicate.

    Example: `interval_text(t_interval([1, 3]))`
    """
    both = math.isfinite(interval.deviation)
    return f"{number(interval.mean)} ± {number(interval.deviation)}" if both else number(interval.mean)


def limits(interval: Interval, sign: bool = False, scale: float = math.inf) -> str:
    """Writes `[low, high]`, `too few seeds` if that is wider than a scale, or nothing without an interval.

    Example: `limits(t_interval([1, 3]), sign=True, scale=100.0)`
    """
    if not math.isfinite(interval.low):
        return ""
    if interval.wider_than(scale):
        return TOO_FEW
    low, high = (signed(end) if sign else number(end) for end in (interval.low, interval.high))
    return f"[{low}, {high}]"


def means(intervals: Iterable[Interval | None]) -> str:
    """Writes several means in one cell: `means([t_interval([70.0]), None])` is `70.0 / –`."""
    return " / ".join(number(interval.mean) if interval else UNKNOWN for interval in intervals)


def subtraction(arm: str, subtracted: str) -> str:
    """Returns the name of a contrast: `subtraction("meta", "none")` is `meta − none`."""
    return f"{arm} − {subtracted}"


def p_text(p: float) -> str:
    """Writes a p-value with three decimals: `p_text(0.0123)` is `0.012`."""
    if not math.isfinite(p):
        return UNKNOWN
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table, the first column left-aligned, the others right-aligned.

    Args:
        header: names of the columns.
        rows: cells, which are not escaped.

    Example:
        markdown(["arm", "F1"], [["meta", "70.0"]])
    """
    marks = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, marks, *rows]) + "\n"


def terminal(title: str, header: Sequence[str], rows: Sequence[Sequence[str | Text]], left: int = 1) -> Table:
    """Returns a table for a terminal; in a narrow one cells are wrapped, the names in the first column last, and none is cut.

    Args:
        title: its title.
        header: names of the columns.
        rows: cells; rich reads markup in a `str` and none in a `Text`.
        left: number of left-aligned columns; the others are right-aligned.

    Example:
        Console().print(terminal("F1", ["arm", "F1"], [["meta", "70.0"]]))
    """
    # Names need room for all of their text, other columns for their longest word.
    columns = [list(map(str, column)) for column in zip(header, *rows, strict=True)]
    names = max(map(len, columns[0]))
    words = sum(max(len(word) for text in column for word in (text.split() or [""])) for column in columns[1:])
    room = Console().width - words - names
    # Lines and spaces between columns are left out of a table that is too wide for them.
    wide = room > 3 * len(columns)
    table = Table(title=title) if wide else Table(title=title, box=box.SIMPLE_HEAD, padding=0)
    for place, name in enumerate(header):
        justify: Literal["left", "right"] = "left" if place < left else "right"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=place == 0 and room > len(columns))
    for row in rows:
        table.add_row(*row)
    return table


def transfer_table(records: Sequence[Record], metrics: Sequence[Metric]) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows of a table of transfers: mean ± deviation by language, method and K.

    Args:
        records: records of one task.
        metrics: metrics to show; the first is the task's headline.

    Example:
        header, rows = transfer_table([read_record(file) for file in files], TAGGING.listed)
    """
    rows = []
    for language, method, shots in sorted({(c["language"], c["method"], c["shots"]) for c in _cells(records)}):
        chosen = select(records, language=language, method=method, shots=shots)
        rates = "/".join(f"{rate:g}" for rate in sorted({record["training"]["lr"] for record in chosen}))
        scores = [interval_text(t_interval([headline(record, metric) for record in chosen])) for metric in metrics]
        rows.append([language, method, str(shots), rates, *scores, str(len(chosen))])
    return ["language", "method", "K", "rate", *(metric.heading or metric.label for metric in metrics), "runs"], rows


def beside_trivial(records: Sequence[Record], kind: TaskKind, names: Sequence[str]) -> list[str]:
    """Returns a sentence with the score of an answer that reads no text, and with the runs that are no better or worse.

    Args:
        records: records of one task.
        kind: its kind.
        names: what each run is counted by, such as its arm.

    Returns:
        No sentence if the task has no such answer, or a record of an older version lacks it.

    Example:
        beside_trivial(records, task_kind(config.task), [record["cell"]["method"] for record in records])
    """
    metric = kind.metric
    try:
        floors = [kind.trivial.of(record["scores"], metric) for record in records] if kind.trivial else []
    except KeyError:
        return []
    if not floors or not kind.trivial:
        return []
    by_language: dict[str, list[float]] = {}
    for cell, floor in zip(_cells(records), floors, strict=True):
        by_language.setdefault(cell["language"], []).append(floor)
    scores = listed(f"{name} {number(sum(own) / len(own))}" for name, own in by_language.items())
    # One point of a scale of a hundred; of others, one part in a hundred.
    near = Counter(
        name
        for name, record, floor in zip(names, records, floors, strict=True)
        if record["scores"].get("constant")
        or abs(headline(record, metric) - floor) <= (1 if metric.unit else abs(floor) / 100)
    )
    counted = "; ".join(f"{name} {count}" for name, count in near.items())
    within = f"within {'one point' if metric.unit else '1 %'} of that"
    collapsed = (
        f"{near.total()} of {len(records)} runs collapsed, to one answer or {within}: {counted}"
        if near
        else f"No run has one answer alone or is {within}"
    )
    return [f"{kind.trivial.text} gives {metric.label} {scores}. {collapsed}."]


def _cells(records: Sequence[Record]) -> list[Record]:
    """Returns the cell of each record."""
    return [record["cell"] for record in records]
