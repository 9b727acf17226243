"""Draws figures as inline SVG: panels are plain values, and one function draws them.

Colours are names of CSS variables, so that the page chooses them for light and dark; text stays text. A series is one
arm everywhere: 0 is drawn in the neutral colour, 1 to 7 in seven hues that differ in lightness too and have a marker
each, so that no reader depends on hue alone; from 8 on hues and markers come again, dashed.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from metaprime.types import MetaprimeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HUES = 7
MARKERS, SIGNS = "oos^DvPX", "○●■▲◆▼✚✖"
"""By hue, in the figure and in the legend."""
WIDTH = 4.3
"""Inches. Narrow, so that a panel is as wide as a phone and its text is not scaled down there."""
CROWD = 4
"""Lines in one frame whose bands may be strong; of more they are paler."""
INK, FAINT, PAPER = "#0a0b00", "#0a0b01", "#0a0b02"
"""Stand-ins that the SVG does not keep: each becomes a CSS variable."""
VARIABLES = {INK: "var(--ink)", FAINT: "var(--faint)", PAPER: "var(--paper)"} | {
    f"#0a0a{hue:02d}": f"var(--series-{hue})" for hue in range(HUES + 1)
}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "metaprime",
    "text.parse_math": False,  # a dollar sign in a title is a dollar sign
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.5,
    "grid.color": FAINT,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


@dataclass(frozen=True)
class Line:
    """y over x; `low` and `high` are the band around it, nan where there is none."""

    series: int
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    marked: bool = False


@dataclass(frozen=True)
class LinePanel:
    """Lines in one frame. A logarithmic axis shows exactly the x there are, or the `ticks`."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    log_x: bool = False
    ticks: tuple[float, ...] = ()


@dataclass(frozen=True)
class Dot:
    """One value in a row, with its interval; nan limits draw none."""

    row: int
    series: int
    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class DotPanel:
    """Values with intervals in named rows, and zero as a line."""

    title: str
    x_label: str
    rows: tuple[str, ...]
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class BarPanel:
    """Stacked bars in named rows: each part is a series and its length in every row."""

    title: str
    x_label: str
    rows: tuple[str, ...]
    parts: tuple[tuple[int, tuple[float, ...]], ...]


@dataclass(frozen=True)
class HeatPanel:
    """Values in a grid, coloured by sign and size; `marked` cells have a frame."""

    title: str
    x_label: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    texts: tuple[tuple[str, ...], ...]
    marked: frozenset[tuple[int, int]] = frozenset()


Panel: TypeAlias = LinePanel | DotPanel | BarPanel | HeatPanel


@dataclass(frozen=True)
class Figure:
    """Panels side by side with one legend (series and name) and a caption that says what a band is."""

    key: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    legend: tuple[tuple[int, str], ...] = ()


def hue(series: int) -> int:
    """Returns the number of a series' colour variable."""
    return series if series <= 0 else (series - 1) % HUES + 1


def dashed(series: int) -> bool:
    """Says whether the series' hue has been used before."""
    return series > HUES


def svg(panel: Panel, name: str) -> str:
    """Draws one panel as an `<svg>` element whose ids all begin with `name`, so that several fit on a page.

    Raises:
        MetaprimeError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise MetaprimeError("the report needs matplotlib: pip install metaprime[report]") from None
    text = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that matplotlib's font lacks: the reader's browser has its own
        canvas = Canvas(figsize=(WIDTH, _height(panel)), layout="constrained")
        axes = canvas.subplots()
        match panel:
            case LinePanel():
                _lines(axes, panel)
            case DotPanel():
                _dots(axes, panel)
            case BarPanel():
                _bars(axes, panel)
            case HeatPanel():
                _heat(axes, panel)
        canvas.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inlined(text.getvalue(), panel.title, name)


def _height(panel: Panel) -> float:
    match panel:
        case LinePanel():
            return 2.9 if len(panel.lines) <= HUES else 4.6
        case DotPanel():
            per_row = max((sum(dot.row == row for dot in panel.dots) for row in range(len(panel.rows))), default=1)
            return 0.75 + len(panel.rows) * (0.2 + 0.13 * per_row)
        case BarPanel():
            return 0.75 + len(panel.rows) * (0.08 + 0.14 * _tallest(panel.rows))
        case HeatPanel():
            return 0.8 + len(panel.rows) * max(0.34, 0.1 + 0.15 * _tallest(panel.rows))


def _tallest(labels: Sequence[str]) -> int:
    """Returns the lines of the longest label, and one more: rows are of equal height."""
    return max((1 + wrapped(label).count("\n") for label in labels), default=1)


def wrapped(label: str) -> str:
    """Breaks a label into lines that leave room beside them."""
    return "\n".join(textwrap.wrap(label, 22, max_lines=3, placeholder=" ...")) or " "


def _colour(series: int) -> str:
    return f"#0a0a{hue(series):02d}"


def _look(series: int) -> dict[str, Any]:
    colour = _colour(series)
    inside = colour if series else PAPER
    line = {"color": colour, "linewidth": 1.4, "linestyle": "--" if dashed(series) else "-"}
    return line | {"marker": MARKERS[hue(series)], "markersize": 4.5, "markerfacecolor": inside}


def _lines(axes: Axes, panel: LinePanel) -> None:
    strength = 0.16 if len(panel.lines) <= CROWD else 0.07
    for place, line in enumerate(panel.lines):
        size = len(line.x)
        every = 1 if line.marked else (place % 4 * size // 24, max(1, size // 6))  # staggered: none hides another
        axes.plot(line.x, line.y, markevery=every, **_look(line.series))
        if line.low and any(map(math.isfinite, line.low)):
            axes.fill_between(line.x, line.low, line.high, color=_colour(line.series), alpha=strength, linewidth=0)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    if panel.log_x:
        ticks = panel.ticks or sorted({x for line in panel.lines for x in line.x})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()


def _dots(axes: Axes, panel: DotPanel) -> None:
    axes.axvline(0, color=INK, linewidth=0.8)
    for row in range(len(panel.rows)):
        mine = [dot for dot in panel.dots if dot.row == row]
        for place, dot in enumerate(mine):
            y = row + (0.7 * ((place + 0.5) / len(mine) - 0.5))
            ends = (dot.low, dot.high) if math.isfinite(dot.low) else (dot.value, dot.value)
            axes.plot([ends[0], dot.value, ends[1]], [y, y, y], markevery=[1], **_look(dot.series))
    _rows(axes, panel.rows, panel.x_label)


def _bars(axes: Axes, panel: BarPanel) -> None:
    begins = [0.0] * len(panel.rows)
    for series, lengths in panel.parts:
        known = [length if math.isfinite(length) else 0.0 for length in lengths]
        axes.barh(range(len(known)), known, 0.7, begins, color=_colour(series), edgecolor=PAPER, linewidth=0.8)
        begins = [begin + length for begin, length in zip(begins, known, strict=True)]
    _rows(axes, panel.rows, panel.x_label)


def _rows(axes: Axes, rows: Sequence[str], x_label: str) -> None:
    axes.set_yticks(range(len(rows)), [""] * len(rows))
    for row, label in enumerate(map(wrapped, rows)):
        lines = label.split("\n")
        for number, line in enumerate(lines):  # one text each: the browser aligns it, whatever its font's widths
            shift = (-6, 11 * ((len(lines) - 1) / 2 - number))
            axes.annotate(line, (0, row), shift, ("axes fraction", "data"), "offset points", ha="right", va="center")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(x_label)


def _heat(axes: Axes, panel: HeatPanel) -> None:
    from matplotlib.patches import Rectangle

    largest = max((abs(v) for row in panel.values for v in row if math.isfinite(v)), default=0.0) or 1.0
    for row, values in enumerate(panel.values):
        for column, value in enumerate(values):
            corner = (column - 0.5, row - 0.5)
            if math.isfinite(value):
                colour, strength = _colour(1 if value > 0 else 2), 0.6 * abs(value) / largest
                axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, alpha=strength, linewidth=0))
            if (row, column) in panel.marked:
                inner = (column - 0.46, row - 0.44)
                axes.add_patch(Rectangle(inner, 0.92, 0.88, fill=False, edgecolor=INK, linewidth=1.2))
            axes.text(column, row, panel.texts[row][column], ha="center", va="center")
    axes.set_xlim(-0.5, len(panel.columns) - 0.5)
    axes.set_xticks(range(len(panel.columns)), panel.columns)
    _rows(axes, panel.rows, panel.x_label)
    axes.grid(False)
    axes.tick_params(axis="both", length=0)
    axes.spines[:].set_visible(False)


def _inlined(text: str, title: str, name: str) -> str:
    """Returns the SVG without what only a file of its own needs; colours, fonts and ids as the page wants them."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font-family: [^;]*", "font-family: system-ui, sans-serif", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    text = re.sub(r' (width|height)="[0-9.]+pt"', "", text, count=2)
    return text.replace("<svg", f'<svg role="img" aria-label="{_attribute(title)}"', 1).strip()


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
