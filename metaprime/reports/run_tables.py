"""Builds the tables of plain runs: one row for each transfer, one for each priming run."""

from __future__ import annotations

from typing import Any

from metaprime.reports.document import ReportSection, Table, TableCell
from metaprime.reports.read import Suite, Transfer
from metaprime.reports.wording import NOTHING, UNKNOWN, listed, number, whole
from metaprime.runs.folder import PRIMED
from metaprime.runs.records import headline


def transfers_section(suite: Suite) -> ReportSection:
    """Returns the table of transfers: `transfers_section(read_suite(Path("runs/smoke")))`."""
    metrics = suite.kind.listed
    if not suite.transfers:
        return ReportSection("transfers", "Transfers", "No transfer (record.json) lies here.")
    header = (
        "encoder",
        "method",
        "K",
        "language",
        "seed",
        "priming seed",
        *(m.label for m in metrics),
        "rate",
        "seconds",
    )
    caption = (
        f"{', '.join(metric.described for metric in metrics)} on the test split, a row for each transfer. The encoder is named "
        "by the folder of its transfers; seed: of the K sentences and the fresh values."
    )
    rows = tuple(_transfer_row(suite, transfer) for transfer in suite.transfers)
    return ReportSection("transfers", "Transfers", "", (Table(caption, header, rows),))


def _transfer_row(suite: Suite, transfer: Transfer) -> tuple[TableCell, ...]:
    """Returns one row of the table of transfers."""
    entry, record = transfer.entry, transfer.record
    seed, rate = record["cell"].get("priming_seed"), record["training"].get("lr")
    named = (suite.title(entry.arm), entry.method, entry.shots, entry.language, entry.seed)
    note = NOTHING if transfer.silent else ""
    return (
        *(TableCell(str(value)) for value in (*named, UNKNOWN if seed is None else seed)),
        *(TableCell(number(headline(record, metric)), note) for metric in suite.kind.listed),
        TableCell(UNKNOWN if rate is None else f"{rate:g}"),
        TableCell(whole(record.get("volatile", {}).get("seconds"))),
    )


def run_rows(suite: Suite) -> list[dict[str, Any]]:
    """Returns column -> value of each priming run: `run_rows(suite)[0]["state"]`; None: unknown."""
    rows = []
    for name, arm in suite.results.arms.items():
        if arm.priming is None:
            continue
        settings = arm.set or {}
        lines = next(iter(suite.metrics.get(name, {}).values()), [])
        steps, wanted = max((line["step"] for line in lines), default=0), settings.get("outer.steps")
        losses = [line["query_loss"] for line in lines if "query_loss" in line]
        seconds = [line["volatile"]["seconds"] for line in lines if "seconds" in line.get("volatile", {})]
        rows.append(
            {
                "run": arm.title,
                "learner": settings.get("learner.name"),
                "method": settings.get("peft.method"),
                "seed": next(iter(suite.results.primings.get(name, {})), None),
                "state": "finished" if (suite.folder / arm.priming / PRIMED).is_dir() else "not finished",
                "steps": steps,
                "of": wanted,
                "query_loss": losses[-1] if losses else None,
                "seconds": sum(seconds) if seconds else None,
            }
        )
    return rows


def primings_section(suite: Suite) -> ReportSection:
    """Returns the table of priming runs: `primings_section(read_suite(Path("runs/smoke")))`."""
    rows = []
    for row in run_rows(suite):
        loss = UNKNOWN if row["query_loss"] is None else f"{row['query_loss']:.3f}"
        known = (
            UNKNOWN if row[key] is None else str(row[key]) for key in ("run", "learner", "method", "seed", "state")
        )
        steps = TableCell(whole(row["steps"]), f"of {whole(row['of'])}" if row["of"] else "")
        rows.append((*map(TableCell, known), steps, TableCell(loss), TableCell(whole(row["seconds"]))))
    if not rows:
        return ReportSection("primings", "Priming runs", "No priming run (run.json) lies here.")
    caption = (
        "State: finished if the primed encoder is there; a run that is not may be active, stopped or killed. Query loss: of the "
        f"last meta-step, in nats per {suite.kind.unit}. Seconds: of all meta-steps."
    )
    header = ("run", "learner", "method", "seed", "state", "meta-steps", "query loss", "seconds")
    return ReportSection("primings", "Priming runs", "", (Table(caption, header, tuple(rows)),))


def runs_summary(suite: Suite) -> list[str]:
    """Returns the summary of plain runs: `runs_summary(suite)[0]`."""
    results, runs = suite.results, run_rows(suite)
    finished = sum(row["state"] == "finished" for row in runs)
    encoders = len({transfer.entry.arm for transfer in suite.transfers})
    return [
        f"Transfers: {len(suite.transfers)}, encoders: {encoders}, methods {listed(results.methods)}, target languages "
        f"{listed(results.languages)}, K = {listed(results.shots)}, seeds {listed(results.seeds)}.",
        f"Priming runs: {len(runs)}, finished: {finished}.",
    ]
