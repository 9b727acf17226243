"""Ends a demonstration: a tagged example, the report, and what to type next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaprime.files import write_text
from metaprime.reports.write import report
from metaprime.runs.folder import PRIMED
from metaprime.runs.records import PREDICTIONS

EXAMPLE = "example.tsv"
"""Name of the file with the tagged example."""


def closing(results: Mapping[str, Any], output: Path, arm: str) -> list[str]:
    """Writes the tagged example and the report, and returns lines that say where all is.

    Args:
        results: content of `results.json`.
        output: folder of the demonstration.
        arm: arm whose first transfer tags the example; where it is not among the results, the first of them.

    Example: `print(*closing(results, Path("runs/demo"), "meta"), sep="\\n")`
    """
    cell = next((entry for entry in results["records"] if entry["arm"] == arm), results["records"][0])
    tuned = output / Path(cell["path"]).parent
    # The first sentence of the test split, as it was predicted to be scored.
    with (tuned / PREDICTIONS).open(encoding="utf-8") as predictions:
        first = json.loads(next(predictions))
    columns = zip(first["words"], first["gold"], first["predicted"], strict=True)
    write_text(output / EXAMPLE, "word\tgold\tpredicted\n" + "".join("\t".join(row) + "\n" for row in columns))
    page = report(output)[0]
    primed = output / PRIMED
    lines = [f"The primed encoder, an ordinary Hugging Face folder: {primed}"] if primed.is_dir() else []
    return [
        *lines,
        f"A sentence of {cell['language']} as {tuned.name} tags it: {output / EXAMPLE}",
        f"The report: {page}",
        "Next:",
        f"  metaprime predict {tuned} 'TEXT'",
        "  metaprime prime CONFIG.yaml          an encoder and languages of your own: recipes/configs/minilm_wikiann.yaml",
        "  metaprime transfer CONFIG.yaml       then tune it on few sentences of a new language, and score it",
    ]
