"""Reports a meta-step: a line of metrics.jsonl, and a short note for the progress display."""

from __future__ import annotations

from typing import Any

from metaprime.meta import Outcome
from metaprime.priming.best import validated
from metaprime.priming.setup import Run
from metaprime.runs.flops import Spent


def metrics(run: Run, step: int, outcome: Outcome, norm: float, spent: Spent, seconds: float) -> dict[str, Any]:
    """Returns the line of one meta-step.

    Args:
        run: the run.
        step: meta-step, counted from 0.
        outcome: of the whole meta-batch.
        norm: of the outer gradient before clipping.
        spent: sub-words and FLOPs over all processes.
        seconds: that the step took.
    """
    line: dict[str, Any] = {
        "step": step + 1,
        "languages": run.sampler.languages_of(step),
        "query_loss": outcome.query_loss.mean().item(),
        "gradient_norm": norm,
        "lr": run.outer.rate,
        "subwords": spent.subwords,
        "volatile": {"seconds": seconds},
    }
    if spent.flops is not None:
        # Volatile: which step was counted depends on where a run was resumed.
        line["volatile"]["flops"] = spent.flops
    if run.learner.adapts:
        line["support_loss_before"], line["support_loss_after"] = outcome.support_loss.mean(0).tolist()
        # One step has no loss after it to compare with.
        if run.asked.inner.steps > 1:
            before_T, after_T = outcome.support_loss.unbind(-1)
            line["support_falls"] = (after_T < before_T).double().mean().item()
    if run.guards.halvings:
        line["outer_halvings"] = run.guards.halvings
    return line


def note(line: dict[str, Any], metric: str) -> str:
    """Returns a short note on a line; `metric` is the name of what held-out languages are scored by."""
    text = f"query loss {line['query_loss']:.3f}"
    if "support_loss_before" in line:
        text += f"  support {line['support_loss_before']:.3f} -> {line['support_loss_after']:.3f}"
        if "support_falls" in line and line["support_loss_after"] >= line["support_loss_before"]:
            text += " (not falling)"
    if (score := validated(line)) is not None:
        text += f"  held-out {metric} {score:.1f}"
    return text
