"""The learning-rate factor by step."""

from __future__ import annotations

import pytest

from metaprime.optim import warmup_decay


def test_up_over_the_warm_up_then_down_in_equal_steps() -> None:
    factors = [warmup_decay(step, 10, 0.4) for step in range(10)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1.0, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7])
    assert warmup_decay(10, 10, 0.4) == 0


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
def test_one_peak_of_one_and_never_nothing(steps: int, warmup: float) -> None:
    factors = [warmup_decay(step, steps, warmup) for step in range(steps)]
    peak = factors.index(max(factors))
    assert factors[peak] == 1
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert min(factors) > 0
    assert peak == max(1, round(warmup * steps)) - 1
