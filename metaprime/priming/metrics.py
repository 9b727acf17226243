"""What a meta-step reports: a line of metrics.jsonl, and a short note for the progress display."""

from __future__ import annotations

from typing import Any

from metaprime.meta import LEARNERS, Outcome
from metaprime.priming.setup import Run
from metaprime.runs.flops import Spent


def metrics(run: Run, step: int, outcome: Outcome, norm: float, spent: Spent, seconds: float) -> dict[str, Any]:
    line: dict[str, Any] = {
        "step": step + 1,
        "languages": run.episodes.languages_of(step),
        "query_loss": outcome.query_loss.mean().item(),
        "gradient_norm": norm,
        "lr": run.outer.optimizer.param_groups[0]["lr"],
        "subwords": spent.subwords,
        "volatile": {"seconds": seconds},
    }
    if spent.flops is not None:
        line["volatile"]["flops"] = spent.flops  # volatile: which step was counted depends on where a run was resumed
    if LEARNERS[run.config.learner.name].adapts:
        line["support_loss_before"], line["support_loss_after"] = outcome.support_loss.mean(0).tolist()
    if "support_loss_before" in line and run.config.inner.steps > 1:  # one step has no loss after it to compare with
        before_T, after_T = outcome.support_loss.unbind(-1)
        line["support_falls"] = (after_T < before_T).double().mean().item()
    if run.guards.halvings:
        line["outer_halvings"] = run.guards.halvings
    return line


def note(line: dict[str, Any]) -> str:
    note = f"query loss {line['query_loss']:.3f}"
    if "support_loss_before" in line:
        note += f"  support {line['support_loss_before']:.3f} -> {line['support_loss_after']:.3f}"
        if "support_falls" in line and line["support_loss_after"] >= line["support_loss_before"]:
            note += " (not falling)"
    if "validation_f1" in line:
        note += f"  held-out F1 {line['validation_f1']:.1f}"
    return note
