"""The figures' lines, dots and grids, from metrics and records whose numbers are known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_suite import MakeSuite, section

from metaprime.reports import curves
from metaprime.reports.curves import moved, over_parameters
from metaprime.reports.document import Report
from metaprime.reports.figures import DotPanel, HeatPanel, LinePanel
from metaprime.reports.read import Suite, cost, read_suite
from metaprime.reports.scores import all_scores, contrasts_of, gains_over
from metaprime.stats.intervals import Contrast, Interval, t_interval


def test_what_moved(sized: Suite) -> None:
    found = moved(sized, "meta", "own", 50)
    assert found
    assert (found.count, found.share) == (100, 10.0)
    assert found.change == t_interval([2.0, 3.0, 4.0])
    assert found.gap == t_interval([0.5, 0.5, 0.5])
    other = moved(sized, "shuffled", "own", 50)
    assert other
    assert (other.change, other.gap) == (None, None)


def test_the_figure_has_a_line_for_each_line(sized: Suite) -> None:
    scores, _ = all_scores(sized)
    figure = over_parameters(sized, scores, 50)
    assert figure
    assert figure.legend == ((1, "one line"), (2, "another"))
    (panel,) = figure.panels
    assert isinstance(panel, LinePanel)
    one, other = panel.lines
    assert (one.x, other.x) == ((1.0, 10.0), (100.0,))
    assert one.y == tuple(scores[arm, "own", 50].mean for arm in ("none", "meta"))


def test_arms_that_share_a_priming_run_share_a_line(suite: Suite) -> None:
    figure = curves.learning_curves(suite)
    assert figure is not None
    assert [label for _, label in figure.legend] == [
        "multi-task full fine-tuning",
        "meta-priming",
        "meta-priming, the head alone",
    ]
    assert "multi-task full fine-tuning = multi-task, its head kept" in figure.caption
    assert [len(panel.lines) for panel in figure.panels if isinstance(panel, LinePanel)] == [3, 3]
    inner = curves.inner_curves(suite)
    assert inner is not None
    assert [panel.title for panel in inner.panels] == ["meta-priming", "meta-priming, the head alone"]


def test_a_curve_ends_where_the_slowest_seed_is() -> None:
    metrics: dict[int, list[dict[str, Any]]] = {
        0: [{"step": 0}, *({"step": step, "x": float(step)} for step in range(1, 5))],
        1: [{"step": 1, "x": 3.0}, {"step": 2, "x": math.nan}, {"step": 3, "x": None}],
        2: [],
    }
    line = curves.curve(metrics, "x", 1)
    assert line is not None
    assert line.x == (1, 2, 3)
    assert line.y[0] == 2.0
    assert math.isnan(line.y[1])
    assert (line.low[0], line.high[0]) == pytest.approx((2 - math.sqrt(2), 2 + math.sqrt(2)))
    assert curves.curve(metrics, "y", 1) is None


def test_a_long_curve_is_shown_in_stretches() -> None:
    metrics = {0: [{"step": step, "x": float(step)} for step in range(1, 601)]}
    line = curves.curve(metrics, "x", 1)
    assert line is not None
    assert len(line.x) == curves.POINTS
    assert line.x == line.y
    assert line.x[0] == 5.5


def test_the_destination_frames_what_was_primed_for(suite: Suite, report: Report) -> None:
    (figure,) = section(report, "destination").figures
    (panel,) = figure.panels
    assert isinstance(panel, HeatPanel)
    assert panel.rows[-1] == "meta-priming, the head alone"
    # Multi-task training is for full fine-tuning, which is no column here.
    assert panel.marked == {(2, 0), (3, 1)}
    gain = suite.by_seed("meta", "head", 20), suite.by_seed("none", "head", 20)
    assert panel.values[2][1] == pytest.approx(np.mean(list(gain[0].values())) - np.mean(list(gain[1].values())))


def test_no_sentence_has_a_place_on_the_axis(make_suite: MakeSuite, tmp_path: Path) -> None:
    for shots, is_log in (((0, 20), False), ((5, 20), True)):
        suite = read_suite(make_suite(tmp_path / str(is_log), arms=("none", "meta"), shots=shots))
        figure = curves.shot_curves(suite, all_scores(suite)[0])
        assert figure
        for panel in figure.panels:
            assert isinstance(panel, LinePanel)
            assert [line.x for line in panel.lines] == [shots, shots]
            assert (panel.log_x, "(log)" in panel.x_label) == (is_log, is_log)
        # Nothing is trained on without a sentence, which is a known number of passes.
        assert cost(suite.select(shots=20)).passes == 1600.0
        assert cost(suite.select(shots=shots[0])).passes == 100 * min(16, shots[0])


def test_the_forest_shows_each_contrast_with_its_corrected_interval(suite: Suite) -> None:
    contrasts = contrasts_of(suite)
    figure = curves.forest(suite, contrasts)
    assert figure is not None
    assert len(figure.panels) == 4
    dots = [dot for panel in figure.panels if isinstance(panel, DotPanel) for dot in panel.dots]
    assert sorted((dot.value, dot.low, dot.high) for dot in dots) == sorted(
        (one.difference, one.corrected.low, one.corrected.high) for one in contrasts.values()
    )
    assert [dot.series for dot in dots].count(1) == sum(one.bold for one in contrasts.values())
    assert curves.forest(suite, {}) is None


def test_an_interval_wider_than_the_scale_is_not_drawn(suite: Suite) -> None:
    wide = Interval(7.0, 5.0, -150.0, 164.0, 2)
    figure = curves.forest(suite, {("meta", "none", "head", 20): Contrast(wide, 0.5, 1.0, wide)})
    assert figure is not None
    (panel,) = figure.panels
    assert isinstance(panel, DotPanel)
    assert (panel.dots[0].value, panel.dots[0].note, math.isnan(panel.dots[0].low)) == (7.0, "too few seeds", True)


def test_gains_have_a_row_with_the_title_of_each_arm(suite: Suite) -> None:
    gains = gains_over(suite, "none", 20)
    figure = curves.gain_dots(suite, gains, 20)
    assert figure is not None
    assert [panel.title for panel in figure.panels] == ["qai, pfeiffer", "qao, pfeiffer", "qai, head", "qao, head"]
    panel = figure.panels[0]
    assert isinstance(panel, DotPanel)
    assert panel.rows == tuple(suite.title(arm) for arm in suite.results.arms if arm != "none")
    assert [dot.value for dot in panel.dots] == [
        gain.mean for key, gain in gains.items() if key[1:] == ("pfeiffer", "qai")
    ]
