"""Learning-rate schedule as a function of the step: nothing to save, nothing to resume."""

from __future__ import annotations


def warmup_decay(step: int, steps: int, warmup: float) -> float:
    """Factor of the peak rate at a step counted from 0: linear up over `warmup * steps`, then linear down to zero."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return max(0.0, (steps - step) / max(1, steps - rising + 1))
