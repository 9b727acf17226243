"""Formats a meta-step as a line of metrics.jsonl and as a note for the progress display."""

from __future__ import annotations

from typing import Any

from metaprime.meta import Outcome
from metaprime.priming.best import validated
from metaprime.priming.setup import Run
from metaprime.runs.flops import Spent


def metrics(run: Run, step: int, outcome: Outcome, norm: float, spent: Spent, seconds: float) -> dict[str, Any]:
    """Returns the line of one meta-step for metrics.jsonl.

    Args:
        run: the run.
        step: meta-step, counted from 0.
        outcome: result of the whole meta-batch: query loss (T,) and support loss (T, 2) in nats.
        norm: norm of the outer gradient before clipping.
        spent: sub-words and FLOPs over all processes.
        seconds: duration of the step.

    Returns:
        JSON values by key; those that differ between equal runs are under `volatile`.
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
        # Volatile, because the step that is counted depends on where a run was resumed.
        line["volatile"]["flops"] = spent.flops
    if run.learner.adapts:
        line["support_loss_before"], line["support_loss_after"] = outcome.support_loss.mean(0).tolist()
        # A single inner step has only one support loss; fresh batches are of different sentences.
        if run.asked.inner.steps > 1 and run.asked.inner.support == "same":
            before_T, after_T = outcome.support_loss.unbind(-1)
            line["support_falls"] = (after_T < before_T).double().mean().item()
    if run.guards.halvings:
        line["outer_halvings"] = run.guards.halvings
    return line


def note(line: dict[str, Any], metric: str) -> str:
    """Returns a short note on a meta-step for the progress display.

    Args:
        line: the step's line of metrics.jsonl.
        metric: label of the task's headline metric.

    Example: `note({"query_loss": 1.5, "validation_f1": 61.5}, "F1")` is
    `"query loss 1.500  held-out F1 61.5"`.
    """
    text = f"query loss {line['query_loss']:.3f}"
    if "support_loss_before" in line:
        text += f"  support {line['support_loss_before']:.3f} -> {line['support_loss_after']:.3f}"
    # Only losses of the same sentences are compared.
    pairs = [("same_support_before", "same_support_after")]
    pairs += [("support_loss_before", "support_loss_after")] if "support_falls" in line else []
    if any(before in line and line[after] >= line[before] for before, after in pairs):
        text += " (not falling)"
    if (score := validated(line)) is not None:
        text += f"  held-out {metric} {score:.1f}"
    return text
