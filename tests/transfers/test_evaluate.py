"""Scoring a model on rows."""

from __future__ import annotations

from toy_config import Parts

from metaprime.transfers.evaluate import evaluate


def test_predictions_come_in_the_order_of_the_rows(parts: Parts) -> None:
    values = dict(parts.model.named_parameters())
    # More than one batch, of mixed lengths.
    rows = parts.rows[:100]
    scores, together = evaluate(parts.model, parts.task, values, rows)
    alone = [evaluate(parts.model, parts.task, values, [row])[1][0] for row in rows]
    assert together == alone
    assert len({tuple(tags) for tags in together}) > 10
    assert scores.details["sentences"] == 100
    assert scores.headline == scores.details["lenient"]["overall"]["f1"]
