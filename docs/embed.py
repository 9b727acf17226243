"""python docs/embed.py runs/demo/table.md docs/results/demo.md

Puts a table that a command wrote where it is shown: into its page under docs/results (between the page's first heading and
what was written by hand below a rule), and into the README between the markers that name the page.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def embed(table: Path, page: Path) -> None:
    text = table.read_text(encoding="utf-8").strip()
    heading, _, remarks = page.read_text(encoding="utf-8").partition("\n\n---\n\n")
    heading = heading.split("\n\n")[0]
    page.write_text(f"{heading}\n\n{text}\n\n---\n\n{remarks}", encoding="utf-8")
    readme = ROOT / "README.md"
    name = page.resolve().relative_to(ROOT).as_posix()
    block = re.compile(rf"(<!-- (\w+): {re.escape(name)} -->\n).*?(<!-- /\2 -->)", re.DOTALL)
    shown = text.partition("\nWritten by ")[0].strip()
    readme.write_text(
        block.sub(lambda m: f"{m[1]}\n{shown}\n\n{m[3]}", readme.read_text(encoding="utf-8")), encoding="utf-8"
    )


if __name__ == "__main__":
    embed(Path(sys.argv[1]), Path(sys.argv[2]))
