"""Draws figures as inline SVG: panels are plain values, and `svg` draws them.

Colours are CSS variables, so that the page sets them for light and dark mode; text stays text. A
series number stands for one arm in all figures. Series 0 has the neutral colour; 1 to 7 have hues
that differ in lightness too, with a marker each, so that no reader depends on hue alone; from 8 to
14, hues and markers repeat with dashed lines. A figure of more series is drawn as several (`apart`).
"""

from __future__ import annotations

import io
import math
import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from metaprime.types import MetaprimeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HUES = 7
"""Number of hues besides the neutral colour."""

DISTINCT = 2 * HUES
"""Largest number of series, besides the neutral one, that look different from each other."""

MARKERS, SIGNS = "oos^DvPX", "○●■▲◆▼✚✖"
"""Marker of each hue, in the figure and in the legend."""

WIDTH = 4.3
"""Width of a panel in inches: as wide as a phone, so that its text is not scaled down there."""

CROWD = 4
"""Largest number of lines in a panel with strong bands; with more lines the bands are paler."""

INK, FAINT, PAPER = "#0a0b00", "#0a0b01", "#0a0b02"
"""Placeholders, each of which a CSS variable replaces in the SVG."""

VARIABLES = {INK: "var(--ink)", FAINT: "var(--faint)", PAPER: "var(--paper)"} | {
    f"#0a0a{hue:02d}": f"var(--series-{hue})" for hue in range(HUES + 1)
}
"""Placeholder -> CSS variable."""

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "metaprime",
    # A dollar sign in a title is a dollar sign.
    "text.parse_math": False,
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
"""matplotlib's settings."""


@dataclass(frozen=True)
class Line:
    """A curve: `Line(1, (0.0, 10.0), (0.7, 0.5))`.

    Attributes:
        series: number of its colour.
        x: m positions.
        y: m values.
        low: lower end of the band at each position; nan: no band there; empty: no band.
        high: upper end, likewise.
        marked: whether every point has a marker.
    """

    series: int
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    marked: bool = False


@dataclass(frozen=True)
class LinePanel:
    """Curves in one frame: `LinePanel("Query loss", "meta-step", "nats", (line,))`.

    Attributes:
        title: title of the panel.
        x_label: label of the x axis.
        y_label: label of the y axis.
        lines: the curves.
        log_x: whether the x axis is logarithmic.
        ticks: ticks of a logarithmic axis; empty: every x of the curves.
        y_limits: ends of the y axis; None: those of the curves.
    """

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    log_x: bool = False
    ticks: tuple[float, ...] = ()
    y_limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Dot:
    """A value in a row of a `DotPanel`, with its interval, or a note in place of limits that are nan.

    Example: `Dot(0, 1, 2.5, 1.0, 4.0)`
    """

    row: int
    series: int
    value: float
    low: float = math.nan
    high: float = math.nan
    note: str = ""


@dataclass(frozen=True)
class DotPanel:
    """Values with intervals in named rows, with a line at zero.

    Example: `DotPanel("lora", "points", ("qai",), (dot,))`
    """

    title: str
    x_label: str
    rows: tuple[str, ...]
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class BarPanel:
    """Stacked bars in named rows; `parts` are (series, length in each row).

    Example: `BarPanel("lora", "errors", ("meta",), parts)`
    """

    title: str
    x_label: str
    rows: tuple[str, ...]
    parts: tuple[tuple[int, tuple[float, ...]], ...]


@dataclass(frozen=True)
class HeatPanel:
    """Values in a grid, coloured by sign and size.

    Attributes:
        title: title of the panel.
        x_label: label of the x axis.
        rows: labels of R rows.
        columns: labels of C columns.
        values: R rows of C values; nan: no colour.
        texts: text of each value, likewise.
        marked: (row, column) of the cells that are framed.
    """

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
    """Panels side by side with one legend: `Figure("inner", "Inner loop", caption, (panel,))`.

    Attributes:
        key: its anchor in the page.
        title: its title.
        caption: explanation of what is drawn, bands and intervals included.
        panels: its panels.
        legend: (series, name) of each entry.
    """

    key: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    legend: tuple[tuple[int, str], ...] = ()


def hue(series: int) -> int:
    """Returns the number of a series' colour variable: `hue(8)` is 1."""
    return series if series <= 0 else (series - 1) % HUES + 1


def dashed(series: int) -> bool:
    """Returns True if a series repeats the hue of an earlier one and is dashed: `dashed(8)`."""
    return series > HUES


def apart(figure: Figure) -> tuple[Figure, ...]:
    """Returns a figure of lines as several of at most seven series each, if it has more than look different.

    Every part has the neutral series and the y axis of the whole.

    Example: `(figure,) = apart(figure)`
    """
    series = [number for number, _ in figure.legend if number]
    if max(series, default=0) <= DISTINCT or not all(isinstance(panel, LinePanel) for panel in figure.panels):
        return (figure,)
    count = math.ceil(len(series) / HUES)
    size = math.ceil(len(series) / count)
    parts = []
    for place in range(count):
        own = {0: 0} | {number: at for at, number in enumerate(series[place * size : (place + 1) * size], 1)}
        panels = (_part(panel, own) for panel in figure.panels if isinstance(panel, LinePanel))
        legend = tuple((own[number], name) for number, name in figure.legend if number in own)
        title = f"{figure.title} ({place + 1} of {count})"
        shown = tuple(panel for panel in panels if panel.lines)
        parts.append(replace(figure, key=f"{figure.key}-{place + 1}", title=title, panels=shown, legend=legend))
    return tuple(parts)


def _part(panel: LinePanel, own: Mapping[int, int]) -> LinePanel:
    """Returns a panel with some of its lines, by old series number -> new one, on the y axis of all."""
    lines = tuple(replace(line, series=own[line.series]) for line in panel.lines if line.series in own)
    known = [y for line in panel.lines for y in (*line.y, *line.low, *line.high) if math.isfinite(y)]
    space = 0.05 * (max(known) - min(known)) if known else 0.0
    limits = (min(known) - space, max(known) + space) if space else None
    return replace(panel, lines=lines, y_limits=limits)


def svg(panel: Panel, name: str) -> str:
    """Draws a panel as an `<svg>` element.

    Args:
        panel: the panel.
        name: prefix of all ids in the element, unique in the page.

    Raises:
        MetaprimeError: matplotlib is not installed.

    Example:
        svg(figure.panels[0], "inner-0")
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise MetaprimeError("the report needs matplotlib: pip install metaprime[report]") from None
    text = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # matplotlib warns of glyphs that its font lacks; the browser has fonts of its own.
        warnings.simplefilter("ignore")
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
    """Returns the height of a panel in inches."""
    match panel:
        case LinePanel():
            return 2.9 if len(panel.lines) <= HUES else 4.6
        case DotPanel():
            per_row = max((sum(dot.row == row for dot in panel.dots) for row in range(len(panel.rows))), default=1)
            return 0.75 + len(panel.rows) * max(0.2 + 0.13 * per_row, 0.08 + 0.14 * _tallest(panel.rows))
        case BarPanel():
            return 0.75 + len(panel.rows) * (0.08 + 0.14 * _tallest(panel.rows))
        case HeatPanel():
            return 0.8 + len(panel.rows) * max(0.34, 0.1 + 0.15 * _tallest(panel.rows))


def _tallest(labels: Sequence[str]) -> int:
    """Returns one more than the lines of the longest label; all rows have the same height."""
    return max((1 + wrapped(label).count("\n") for label in labels), default=1)


def wrapped(label: str) -> str:
    """Breaks a label into at most three lines of 22 characters.

    Example: `wrapped("meta-priming on shuffled tags")`
    """
    return "\n".join(textwrap.wrap(label, 22, max_lines=3, placeholder=" ...")) or " "


def _colour(series: int) -> str:
    """Returns the placeholder of a series' colour."""
    return f"#0a0a{hue(series):02d}"


def _look(series: int) -> dict[str, Any]:
    """Returns matplotlib's arguments for a series' line and marker, hollow for the control."""
    colour = _colour(series)
    fill = colour if series else PAPER
    line = {"color": colour, "linewidth": 1.4, "linestyle": "--" if dashed(series) else "-"}
    return line | {"marker": MARKERS[hue(series)], "markersize": 4.5, "markerfacecolor": fill}


def _lines(axes: Axes, panel: LinePanel) -> None:
    """Draws curves with their bands."""
    strength = 0.16 if len(panel.lines) <= CROWD else 0.07
    for place, line in enumerate(panel.lines):
        # Markers of the lines are staggered, so that none hides another.
        size = len(line.x)
        every = 1 if line.marked else (place % 4 * size // 24, max(1, size // 6))
        axes.plot(line.x, line.y, markevery=every, **_look(line.series))
        if line.low and any(map(math.isfinite, line.low)):
            axes.fill_between(line.x, line.low, line.high, color=_colour(line.series), alpha=strength, linewidth=0)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    if panel.y_limits:
        axes.set_ylim(*panel.y_limits)
    if panel.log_x:
        ticks = panel.ticks or sorted({x for line in panel.lines for x in line.x})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()


def _dots(axes: Axes, panel: DotPanel) -> None:
    """Draws values with intervals, those of one row below each other."""
    axes.axvline(0, color=INK, linewidth=0.8)
    for row in range(len(panel.rows)):
        dots = [dot for dot in panel.dots if dot.row == row]
        for place, dot in enumerate(dots):
            y = row + (0.7 * ((place + 0.5) / len(dots) - 0.5))
            ends = (dot.low, dot.high) if math.isfinite(dot.low) else (dot.value, dot.value)
            axes.plot([ends[0], dot.value, ends[1]], [y, y, y], markevery=[1], **_look(dot.series))
            if dot.note:
                axes.annotate(dot.note, (dot.value, y), (7, 0), textcoords="offset points", va="center", fontsize=7.5)
    _rows(axes, panel.rows, panel.x_label)


def _bars(axes: Axes, panel: BarPanel) -> None:
    """Draws stacked bars; an unknown length counts as zero."""
    starts = [0.0] * len(panel.rows)
    for series, lengths in panel.parts:
        known = [length if math.isfinite(length) else 0.0 for length in lengths]
        axes.barh(range(len(known)), known, 0.7, starts, color=_colour(series), edgecolor=PAPER, linewidth=0.8)
        starts = [start + length for start, length in zip(starts, known, strict=True)]
    _rows(axes, panel.rows, panel.x_label)


def _rows(axes: Axes, rows: Sequence[str], x_label: str) -> None:
    """Labels the rows from top to bottom, and the x axis."""
    axes.set_yticks(range(len(rows)), [""] * len(rows))
    for row, label in enumerate(map(wrapped, rows)):
        lines = label.split("\n")
        # Each line is a text of its own: the browser aligns it, whatever the widths of its font.
        for number, line in enumerate(lines):
            shift = (-6, 11 * ((len(lines) - 1) / 2 - number))
            axes.annotate(line, (0, row), shift, ("axes fraction", "data"), "offset points", ha="right", va="center")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(x_label)


def _heat(axes: Axes, panel: HeatPanel) -> None:
    """Draws a grid of coloured cells with their texts."""
    from matplotlib.patches import Rectangle

    # Cells: the colour shows the sign, its strength the size relative to the largest.
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

    # Axes without lines.
    axes.set_xlim(-0.5, len(panel.columns) - 0.5)
    axes.set_xticks(range(len(panel.columns)), panel.columns)
    _rows(axes, panel.rows, panel.x_label)
    axes.grid(False)
    axes.tick_params(axis="both", length=0)
    axes.spines[:].set_visible(False)


def _inlined(text: str, title: str, name: str) -> str:
    """Returns the SVG to be put into a page, with the page's colours and fonts and prefixed ids."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font-family: [^;]*", "font-family: system-ui, sans-serif", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    text = re.sub(r' (width|height)="[0-9.]+pt"', "", text, count=2)
    return text.replace("<svg", f'<svg role="img" aria-label="{_attribute(title)}"', 1).strip()


def _attribute(text: str) -> str:
    """Escapes a text for an XML attribute."""
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
