"""Figures: well-formed SVG whose text is text, whose colours are the page's, and which fits beside others on a page."""

from __future__ import annotations

import math
import re
import sys
from xml.etree import ElementTree

import pytest

from metaprime.reports.figures import (
    DISTINCT,
    HUES,
    MARKERS,
    SIGNS,
    BarPanel,
    Dot,
    DotPanel,
    Figure,
    HeatPanel,
    Line,
    LinePanel,
    Panel,
    apart,
    dashed,
    hue,
    svg,
    wrapped,
)
from metaprime.types import MetaprimeError

NAN = math.nan
HOSTILE = 'meta <b>&"$x_1$ 語'
PANELS: dict[str, Panel] = {
    "lines": LinePanel(
        HOSTILE,
        "step",
        HOSTILE,
        (
            Line(0, (1, 2, 3), (1, NAN, 3), (0, NAN, 2), (2, NAN, 4)),
            Line(9, (1, 2, 3), (2, 2, 2), (NAN,) * 3, (NAN,) * 3, marked=True),
            Line(3, (1,), (1,)),
        ),
    ),
    "log": LinePanel("over K", "K", "F1", (Line(1, (10, 300), (40, 50), (38, 45), (42, 55), marked=True),), log_x=True),
    "dots": DotPanel(HOSTILE, "gain", ("qai", HOSTILE), (Dot(0, 1, 2.0, 1.0, 3.0), Dot(1, 9, 2.0), Dot(1, 0, NAN))),
    "bars": BarPanel(HOSTILE, "errors", ("none", HOSTILE), ((1, (10.0, NAN)), (2, (5.0, 3.0)))),
    "heat": HeatPanel(
        HOSTILE, "tuned", (HOSTILE, "b"), ("c",), ((NAN,), (-2.0,)), (("–",), ("−2.0",)), frozenset({(1, 0)})
    ),
    "nothing": LinePanel("nothing", "x", "y", (Line(1, (1.0, 2.0), (NAN, NAN)),)),
    "level": HeatPanel("level", "x", ("a",), ("b",), ((0.0,),), (("0.0",),)),
}


@pytest.mark.parametrize("name", PANELS)
def test_an_svg_that_fits_into_a_page(name: str) -> None:
    text = svg(PANELS[name], f"p-{name}")
    root = ElementTree.fromstring(text)
    assert root.get("aria-label") == PANELS[name].title
    assert root.get("role") == "img"
    ids = [part.get("id", "") for part in root.iter() if part.get("id")]
    assert ids
    assert len(set(ids)) == len(ids)
    assert all(one.startswith(f"p-{name}-") for one in ids)
    used = re.findall(r'(?:url\(#|href="#)([^")]+)', text)
    assert set(used) <= set(ids)
    # A style would hold for the whole page.
    assert not root.findall(".//{*}style")
    assert not re.findall(r"#[0-9a-f]{6}\b", text), "a colour that the page cannot choose"


def test_text_stays_text_and_is_escaped() -> None:
    text = svg(PANELS["heat"], "p")
    assert "<b>" not in text
    found = [part.text for part in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}text")]
    assert {"tuned", "c", "b", "−2.0", HOSTILE} <= set(found)


def test_equal_panels_give_equal_text() -> None:
    assert svg(PANELS["lines"], "p") == svg(PANELS["lines"], "p")


def test_a_band_is_drawn_where_there_is_one() -> None:
    def areas(low: float) -> int:
        line = Line(1, (1, 2), (1, 2), (low, low), (3, 3))
        return svg(LinePanel("t", "x", "y", (line,)), "p").count("fill-opacity")

    assert areas(0.5) > areas(NAN) == 0


def test_no_two_series_look_alike() -> None:
    looks = [(hue(series), MARKERS[hue(series)], dashed(series)) for series in range(2 * HUES + 1)]
    assert len(set(looks)) == len(looks)
    assert len(MARKERS) == len(SIGNS) == HUES + 1


def test_long_labels_are_wrapped_and_cut() -> None:
    assert wrapped("meta-priming on shuffled tags") == "meta-priming on\nshuffled tags"
    assert wrapped("word " * 40).count("\n") == 2
    assert wrapped("") == " "


def test_without_matplotlib_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MetaprimeError, match=r"pip install metaprime\[report\]"):
        svg(PANELS["lines"], "p")


def test_no_two_series_of_a_figure_look_alike() -> None:
    lines = tuple(Line(series, (0.0, 1.0), (float(series), 50.0)) for series in range(44))
    legend = tuple((series, f"arm {series}") for series in range(44))
    figure = Figure("many", "Many", "caption", (LinePanel("loss", "step", "nats", lines),), legend)
    parts = apart(figure)
    names = [name for part in parts for series, name in part.legend if series]
    assert names == [f"arm {series}" for series in range(1, 44)]
    assert len({part.key for part in parts}) == len(parts) == 7
    for part in parts:
        looks = [(hue(series), MARKERS[hue(series)], dashed(series)) for series, _ in part.legend]
        assert len(set(looks)) == len(looks)
        assert (0, "arm 0") in part.legend
        (panel,) = part.panels
        assert isinstance(panel, LinePanel)
        # The line is still that of the arm in the legend, on the axis of all.
        assert {f"arm {line.y[0]:.0f}" for line in panel.lines} == {name for _, name in part.legend}
        assert panel.y_limits == (-2.5, 52.5)


def test_a_figure_whose_series_differ_stays_whole() -> None:
    lines = tuple(Line(series, (0.0, 1.0), (1.0, 2.0)) for series in range(DISTINCT + 1))
    figure = Figure("few", "Few", "", (LinePanel("", "", "", lines),), tuple((n, str(n)) for n in range(DISTINCT + 1)))
    assert apart(figure) == (figure,)


def test_a_note_stands_in_place_of_an_interval() -> None:
    drawn = svg(DotPanel("gain", "points", ("qai",), (Dot(0, 1, 2.0, note="too few seeds"),)), "x")
    assert "too few seeds" in drawn
