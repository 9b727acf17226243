"""Measures the CPU time of refusals: of each mistake that is found without a model, by each command, in a new process.

    python benchmarks/refusals.py

Commands, mistakes and files are those of `tests/toys/toy_refusals.py`, for which a test shows that torch is not loaded.
Writes `benchmarks/results/refusals.md`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from processes import COMMAND, run_measured

from metaprime.reports.wording import markdown
from metaprime.runs.provenance import versions

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "toys"))
from toy_refusals import OFFLINE, REFUSALS, lay_out

PAGE = Path(__file__).parent / "results" / "refusals.md"
SHARED = 5
"""Mistakes of at least so many commands are rows of a table with a column for each command."""


def tables(found: Mapping[str, float]) -> tuple[str, str]:
    """Returns the table of mistakes that many commands share, and that of the others.

    Args:
        found: `command: mistake` -> CPU seconds.
    """
    by_mistake: dict[str, dict[str, str]] = {}
    for name, cpu in found.items():
        command, _, mistake = name.partition(": ")
        by_mistake.setdefault(mistake, {})[command] = f"{cpu:.1f}"
    shared = {mistake: cells for mistake, cells in by_mistake.items() if len(cells) >= SHARED}
    columns = list(dict.fromkeys(command for cells in shared.values() for command in cells))
    rows = [[mistake, *(cells.get(command, "") for command in columns)] for mistake, cells in shared.items()]
    others = [
        [command, mistake, cpu]
        for mistake, cells in by_mistake.items()
        if mistake not in shared
        for command, cpu in cells.items()
    ]
    return markdown(("mistake", *columns), rows), markdown(("command", "mistake", "CPU seconds"), sorted(others))


def main() -> None:
    """Runs the commands, writes the page and prints it."""
    with tempfile.TemporaryDirectory() as name:
        lay_out(Path(name))
        found = {
            refusal: run_measured(COMMAND, words, Path(name), OFFLINE, expected=2).cpu
            for refusal, words in REFUSALS.items()
        }
    shared, others = tables(found)
    facts = ", ".join(f"{key} {value}" for key, value in versions().items())
    summary = f"{len(found)} refusals, {min(found.values()):.1f} to {max(found.values()):.1f} CPU seconds."
    written = f"Written by `python benchmarks/refusals.py`; {facts}."
    PAGE.write_text(
        f"{summary}\n\nCPU seconds of mistakes in a config:\n\n{shared}\n{others}\n{written}\n", encoding="utf-8"
    )
    print(PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
