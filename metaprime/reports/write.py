"""Writes a report as one self-contained HTML page, and as Markdown, LaTeX and CSV."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from metaprime.files import write_text, writing
from metaprime.reports.document import Report
from metaprime.reports.figures import HUES, SIGNS, Figure, dashed, hue, svg
from metaprime.reports.formats import as_csv, as_latex, as_markdown
from metaprime.reports.read import read_suite
from metaprime.reports.sections import gather


def report(folder: str | Path, out: str | Path | None = None) -> list[Path]:
    """Writes `report.html`, `.md`, `.tex` and `.csv` for a suite, finished or not, or for plain runs.

    Args:
        folder: output folder of `ablate` or `demo`, which holds `results.json`; or of `prime` and
            `transfer`, or a folder above several of them.
        out: folder to write to; None: `folder`.

    Returns:
        Paths of the files.

    Raises:
        MetaprimeError: `folder` holds nothing, matplotlib is not installed, or `out` cannot be
            written.

    Example:
        >>> [file.name for file in metaprime.report(folder / "suite" / "one")]
        ['report.html', 'report.md', 'report.tex', 'report.csv']
    """
    content = gather(read_suite(Path(folder)))
    forms = {"html": as_html(content), "md": as_markdown(content), "tex": as_latex(content), "csv": as_csv(content)}
    out = Path(out or folder)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    files = [out / f"report.{ending}" for ending in forms]
    for file, text in zip(files, forms.values(), strict=True):
        write_text(file, text)
    return files


def as_html(report: Report) -> str:
    """Returns the report as an HTML page. Everything but matplotlib's drawings is escaped.

    Raises:
        MetaprimeError: matplotlib is not installed.

    Example:
        page = as_html(gather(read_suite(folder)))
    """
    environment = Environment(
        loader=PackageLoader("metaprime.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        report=report, drawn=_drawn, hue=hue, dashed=dashed, signs=SIGNS, hues=range(HUES + 1)
    )


def _drawn(figure: Figure) -> list[tuple[str, Markup]]:
    """Draws the panels of a figure: (title, SVG) of each."""
    return [(panel.title, Markup(svg(panel, f"{figure.key}-{place}"))) for place, panel in enumerate(figure.panels)]
