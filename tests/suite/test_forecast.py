"""What cells took, and what is made of it: means by kind, a damaged line named, one that was cut off left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metaprime.suite.forecast import TIMINGS, Forecast, add_timing, seconds_per_unit
from metaprime.suite.order import PRIMING, RATE, TRANSFER, Count
from metaprime.types import MetaprimeError


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Three timings: 15 meta-steps in 30 seconds, and 4 fine-tunings in 2."""
    add_timing(tmp_path, PRIMING, 20.0, 10)
    add_timing(tmp_path, PRIMING, 10.0, 5)
    add_timing(tmp_path, TRANSFER, 2.0, 4)
    return tmp_path


def test_the_mean_of_each_kind_that_was_timed(output: Path, tmp_path: Path) -> None:
    assert seconds_per_unit(output) == {PRIMING: 2.0, TRANSFER: 0.5}
    assert seconds_per_unit(tmp_path / "nothing") == {}


def test_what_took_no_work_has_no_mean(output: Path) -> None:
    add_timing(output, RATE, 0.1, 0)
    assert RATE not in seconds_per_unit(output)


@pytest.mark.parametrize(
    "damage",
    [
        '{"kind": "pri',
        "",
        "[]",
        '{"seconds": 1, "units": 1}',
        '{"kind": "juggling", "seconds": 1, "units": 1}',
        '{"kind": "priming", "seconds": "long", "units": 1}',
        '{"kind": "priming", "seconds": 1}',
    ],
)
def test_a_damaged_line_is_refused_by_file_and_number(output: Path, damage: str) -> None:
    file = output / TIMINGS
    first, *rest = file.read_text("utf-8").splitlines()
    file.write_text("\n".join([first, damage, *rest, ""]), encoding="utf-8")
    with pytest.raises(MetaprimeError, match=rf"{file}:2 is damaged \(.*\): remove that line"):
        seconds_per_unit(output)
    file.write_text("\n".join([first, *rest, ""]), encoding="utf-8")
    assert seconds_per_unit(output) == {PRIMING: 2.0, TRANSFER: 0.5}


def test_a_last_line_that_was_cut_off_is_left_out(output: Path) -> None:
    file = output / TIMINGS
    whole = file.read_text("utf-8")
    last = json.dumps({"kind": TRANSFER, "seconds": 90.0, "units": 1})
    for length in range(1, len(last) + 1):
        file.write_text(whole + last[:length], encoding="utf-8")
        assert seconds_per_unit(output) == {PRIMING: 2.0, TRANSFER: 0.5}
    file.write_text(whole + last + "\n", encoding="utf-8")
    assert seconds_per_unit(output)[TRANSFER] == 92.0 / 5


def test_timings_go_on_after_a_line_that_was_cut_off(output: Path) -> None:
    file = output / TIMINGS
    file.write_text(file.read_text("utf-8") + '{"kind": "pri', encoding="utf-8")
    add_timing(output, TRANSFER, 4.0, 2)
    add_timing(output, TRANSFER, 4.0, 2)
    assert seconds_per_unit(output) == {PRIMING: 2.0, TRANSFER: 10.0 / 8}


@pytest.mark.parametrize(
    ("seconds", "told"), [(None, "time: unknown"), (600.0, "time: about 10 minutes with 3 at a time")]
)
def test_a_forecast_in_lines(seconds: float | None, told: str) -> None:
    *counted, time = Forecast({PRIMING: Count(4, 1, 30), RATE: Count(8, 8, 0)}, seconds).lines(3)
    assert counted == ["priming: 3 to run, 1 of 4 done", "rates: 0 to run, 8 of 8 done"]
    assert time.startswith(told)
