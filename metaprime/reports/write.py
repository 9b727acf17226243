"""Writes a report: one HTML page that needs nothing else, and the same as Markdown, LaTeX and CSV."""

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
    """Reports on a suite that `ablate` or `demo` left, finished or not: writes `report.html`, `.md`, `.tex` and `.csv`.

    Args:
        folder: the suite's, which holds `results.json`.
        out: where to write; None: in `folder`.

    Returns:
        The files.

    Raises:
        MetaprimeError: `folder` holds no suite, matplotlib is not installed, or `out` cannot be written.

    Example:
        >>> [file.name for file in metaprime.report(folder / "suite" / "one")]
        ['report.html', 'report.md', 'report.tex', 'report.csv']
    """
    found = gather(read_suite(Path(folder)))
    forms = {"html": as_html(found), "md": as_markdown(found), "tex": as_latex(found), "csv": as_csv(found)}
    out = Path(out or folder)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    files = [out / f"report.{ending}" for ending in forms]
    for file, text in zip(files, forms.values(), strict=True):
        write_text(file, text)
    return files


def as_html(report: Report) -> str:
    """Returns the page. Its only unescaped part is what matplotlib has drawn.

    Raises:
        MetaprimeError: matplotlib is not installed.
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
    return [(panel.title, Markup(svg(panel, f"{figure.key}-{place}"))) for place, panel in enumerate(figure.panels)]
