"""A suite's tables for table.md and the terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape

from metaprime.reports.compute import COUNTED, PrimingCost, Unit, how_equal, unit_of
from metaprime.reports.wording import markdown, spread, terminal
from metaprime.runs.records import headline, read_record
from metaprime.stats.intervals import Contrast, Interval, correct, t_interval

TABLE = "table.md"


METHOD_TITLES = {"pfeiffer": "AT", "head": "HT", "full": "FT"}
"""Adapter, head and full (fine-)tuning, as papers have them."""


Scores = dict[tuple[str, str, int], dict[int, float]]
"""F1 by (arm, method, K), then by seed: a mean over languages."""


def scores_of(results: Mapping[str, Any], folder: Path, reading: str = "lenient") -> Scores:
    """The replicates. A seed that lacks a language is left out: a mean over fewer is another quantity."""
    found: dict[tuple[str, str, int], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for entry in results["records"]:
        score = headline(read_record(folder / entry["path"]), reading)
        found[entry["arm"], entry["method"], entry["shots"]][entry["seed"]].append(score)
    whole = len(results["languages"])
    return {
        key: {seed: float(np.mean(values)) for seed, values in sorted(by_seed.items()) if len(values) == whole}
        for key, by_seed in found.items()
    }


def contrasts_of(results: Mapping[str, Any], scores: Scores) -> dict[tuple[str, str, str, int], Contrast]:
    """Every difference the table holds, (one, other, method, K), corrected for their number."""
    pairs = {}
    for one, other in results["contrasts"]:
        for shots in results["shots"]:
            for method in results["methods"]:
                mine, theirs = scores.get((one, method, shots), {}), scores.get((other, method, shots), {})
                if mine.keys() & theirs.keys():
                    pairs[one, other, method, shots] = (mine, theirs)
    return correct(pairs)


def table_of(results: Mapping[str, Any], folder: Path) -> str:
    """The results as Markdown."""
    scores = scores_of(results, folder)
    shots, seeds = results["shots"], results["seeds"]
    facts = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    text = (
        f"Entity F1 (lenient, micro), mean of {', '.join(results['languages'])} after K = {', '.join(map(str, shots))} "
        f"sentences each; mean ± standard deviation over {len(seeds)} priming seeds. Sentence passes and FLOPs are those up to "
        f"the stopping point of those allowed. {COUNTED}."
    )
    if matched := results["matched"]:
        text += f" {how_equal(matched, {name: _cost(arm) for name, arm in results['arms'].items()})}"
    text += f"\n\n{markdown(*arm_rows(results, scores))}"
    if contrasts := contrasts_of(results, scores):
        text += (
            f"\nDifferences, paired by seed, with 95 % t-intervals over priming seeds: alone, and corrected (Bonferroni) so that "
            f"all {len(contrasts)} hold at once; p after Holm. Bold: the corrected interval excludes zero.\n\n"
            f"{markdown(*contrast_rows(results, contrasts))}"
        )
    for failure in results["failed"]:
        text += f"\nFailed: arm {failure['arm']}, seed {failure['seed']}: {failure['error'].splitlines()[0]}\n"
    return f"{text}\nWritten by `{results['command']}`, seeds {', '.join(map(str, seeds))}; {facts}.\n"


def show(results: Mapping[str, Any], folder: Path) -> None:
    """Both tables on the terminal."""
    scores = scores_of(results, folder)
    console = Console()
    header, rows = arm_rows(results, scores)
    console.print(terminal("entity F1, mean ± deviation over priming seeds", header, _plain(rows)))
    if contrasts := contrasts_of(results, scores):
        header, rows = contrast_rows(results, contrasts)
        console.print(terminal("paired differences over priming seeds", header, _plain(rows)))


def _plain(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Without Markdown's marks, and with what rich would take for a mark of its own escaped."""
    return [[escape(cell.replace("**", "").replace("\\|", "|")) for cell in row] for row in rows]


def arm_rows(results: Mapping[str, Any], scores: Scores) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one row for each arm, a column for each method and K, and what priming took."""
    columns = [(method, shots) for method in results["methods"] for shots in results["shots"]]
    unit = unit_of(_cost(arm).flops for arm in results["arms"].values())
    matched = results["matched"]
    rows = []
    for name, arm in results["arms"].items():
        found = [scores.get((name, *column)) for column in columns]
        cells = [spread(t_interval(list(by_seed.values()))) if by_seed else "-" for by_seed in found]
        if matched:
            cells.append(_baseline(results, scores, matched[name]) if name in matched else "-")
        rows.append([_escaped(arm["title"]), *cells, *_compute(arm, unit)])
    many = len(results["shots"]) > 1
    titles = [METHOD_TITLES.get(method, method) + (f", K = {shots}" if many else "") for method, shots in columns]
    return [
        "priming",
        *titles,
        *(["at equal compute"] if matched else []),
        "sentence passes",
        unit.name,
        "seconds",
    ], rows


def _baseline(results: Mapping[str, Any], scores: Scores, arm: str) -> str:
    """Its means in one cell: by method, and for several K in their order."""
    told = []
    for method in results["methods"]:
        found = [scores.get((arm, method, shots)) for shots in results["shots"]]
        means = [f"{np.mean(list(by_seed.values())):.1f}" if by_seed else "-" for by_seed in found]
        told.append(f"{METHOD_TITLES.get(method, method)} {' / '.join(means)}")
    return ", ".join(told)


def _compute(arm: Mapping[str, Any], unit: Unit) -> list[str]:
    """Cells of what priming took: sentence passes, FLOPs, seconds."""
    if not arm["priming"]:
        return ["0", "0", "0"]
    if not (facts := arm["facts"]):
        return ["-", "-", "-"]
    cost = _cost(arm)
    return [
        f"{facts['sentence_passes_chosen']:,.0f} of {facts['sentence_passes']:,}",
        f"{unit.text(cost.chosen, '-')} of {unit.text(cost.flops, '-')}" if cost.flops is not None else "-",
        f"{facts['seconds']:.0f}",
    ]


def _cost(arm: Mapping[str, Any]) -> PrimingCost:
    if not arm["priming"]:
        return PrimingCost(arm["title"], 0.0, 0.0)
    facts = arm["facts"] or {}
    return PrimingCost(arm["title"], facts.get("flops"), facts.get("flops_chosen"))


def contrast_rows(
    results: Mapping[str, Any], contrasts: Mapping[tuple[str, str, str, int], Contrast]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one row for each difference, method and K."""
    many = len(results["shots"]) > 1
    rows = []
    for (one, other, method, shots), found in contrasts.items():
        tuned = METHOD_TITLES.get(method, method) + (f", K = {shots}" if many else "")
        difference = f"{found.difference:+.1f}"
        known = found.adjusted_p == found.adjusted_p  # nan where one seed gives no test
        p = ("< 0.001" if found.adjusted_p < 0.001 else f"{found.adjusted_p:.3f}") if known else "-"
        rows.append(
            [
                _escaped(f"{one} - {other}"),
                tuned,
                f"**{difference}**" if found.bold else difference,
                _ends(found.interval),
                _ends(found.corrected),
                p,
            ]
        )
    return ["difference", "tuned", "F1", "95 %", "corrected", "p"], rows


def _ends(interval: Interval) -> str:
    return "-" if interval.count < 2 else f"[{interval.low:+.1f}, {interval.high:+.1f}]"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
