"""Rows of text as Markdown or on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from metaprime.evaluation.records import Record, headline, select
from metaprime.evaluation.statistics import Interval, t_interval

Rows = Sequence[Sequence[str]]


def markdown(header: Sequence[str], rows: Rows) -> str:
    """A Markdown table; the first column left-aligned, the others right."""
    marks = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, marks, *rows]) + "\n"


def terminal(title: str, header: Sequence[str], rows: Rows, left: int = 1) -> Table:
    """The same for a terminal, with so many columns left-aligned."""
    table = Table(title=title)
    for place, name in enumerate(header):
        table.add_column(name, justify="left" if place < left else "right")
    for row in rows:
        table.add_row(*row)
    return table


def spread(interval: Interval) -> str:
    """`mean +- standard deviation` over replicates, the mean alone where there is one."""
    if interval.count < 2:
        return f"{interval.mean:.1f}"
    return f"{interval.mean:.1f} ± {interval.deviation:.1f}"


def with_interval(interval: Interval) -> str:
    """A contrast: signed mean and its 95 % interval."""
    if interval.count < 2:
        return f"{interval.mean:+.1f}"
    return f"{interval.mean:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}]"


TRANSFER_HEADER = ("language", "method", "K", "rate", "lenient F1", "strict F1", "runs")


def transfer_rows(records: Sequence[Record]) -> list[list[str]]:
    """One row for each language, method and K: mean and deviation over seed pairs."""
    rows = []
    for language, method, shots in sorted({(c["language"], c["method"], c["shots"]) for c in _cells(records)}):
        chosen = select(records, language=language, method=method, shots=shots)
        rates = sorted({record["training"]["lr"] for record in chosen})
        scores = [spread(t_interval([headline(r, reading) for r in chosen])) for reading in ("lenient", "strict")]
        rows.append([language, method, str(shots), "/".join(f"{rate:g}" for rate in rates), *scores, str(len(chosen))])
    return rows


def _cells(records: Sequence[Record]) -> list[Record]:
    return [record["cell"] for record in records]
