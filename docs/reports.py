"""python docs/reports.py [RUNS]

Writes the report of every suite below RUNS (`runs/` unless given) into the suite's folder, and, if docs/results has a page
of the suite, its CSV beside the page: one line for each run.
"""

import shutil
import sys
from pathlib import Path

from metaprime.reports.write import report
from metaprime.runs.results import RESULTS
from metaprime.types import MetaprimeError

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "results"


def write_reports(runs: Path, pages: Path = PAGES) -> list[Path]:
    """Writes the reports of the suites below a folder and returns their HTML pages.

    Raises:
        MetaprimeError: no suite is there, or one cannot be read.
    """
    folders = [file.parent for file in sorted(runs.rglob(RESULTS))]
    if not folders:
        raise MetaprimeError(
            f"{runs} holds no recorded suite: run `make demo`, or `metaprime ablate recipes/ablations/NAME.yaml`"
        )
    written = []
    for folder in folders:
        html, *others = report(folder)
        written.append(html)
        if (pages / f"{folder.name}.md").is_file():
            shutil.copy(next(file for file in others if file.suffix == ".csv"), pages / f"{folder.name}.csv")
    return written


if __name__ == "__main__":
    try:
        print(*write_reports(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "runs"), sep="\n")
    except MetaprimeError as error:
        sys.exit(f"docs/reports.py: {error}")
