"""Writes a report as Markdown, LaTeX and CSV. Titles, errors and corpus text are escaped."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING

from metaprime.reports.document import Report, Table, TableCell
from metaprime.reports.sentences import Version
from metaprime.reports.wording import markdown

if TYPE_CHECKING:
    from metaprime.tasks.task import Piece

IN_LATEX = ("scores", "transfers", "primings", "contrasts", "gains", "errors")
"""Keys of the sections whose tables are written as LaTeX."""


def as_markdown(report: Report) -> str:
    """Returns all sections as Markdown, with captions in place of figures.

    Example:
        text = as_markdown(gather(read_suite(folder)))
    """
    parts = [f"# {markdown_text(report.title)}", "\n".join(f"- {markdown_text(line)}" for line in report.summary)]
    for section in report.sections:
        parts.append(f"## {markdown_text(section.title)}")
        if section.note:
            parts.append(markdown_text(section.note))
        parts += map(markdown_table, section.tables)
        parts += [
            f"*{markdown_text(figure.title)}, a figure of report.html.* {markdown_text(figure.caption)}"
            for figure in section.figures
        ]
        for example in section.examples:
            parts.append("\n".join([f"- {markdown_text(example.title)}", *map(_md_version, example.versions)]))
        for label, text in section.code:
            fence = "`" * (3 + max(map(len, re.findall("`+", text)), default=0))
            parts.append(f"{markdown_text(label)}:\n\n{fence}\n{text.rstrip()}\n{fence}")
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """Returns a table below its caption, without a final line break.

    Example: `markdown_table(section.tables[0])`
    """
    header = [markdown_text(name) for name in table.header]
    rows = [[_md_cell(cell) for cell in row] for row in table.rows]
    return f"{markdown_text(table.caption)}\n\n{markdown(header, rows)}".rstrip("\n")


def _md_cell(cell: TableCell) -> str:
    """Writes a cell with its note on the same line."""
    text = f"**{markdown_text(cell.text)}**" if cell.bold else markdown_text(cell.text)
    return f"{text} {markdown_text(cell.note)}" if cell.note else text


def _md_version(version: Version) -> str:
    """Writes one reading of an example as an item of a list."""
    words = " ".join(map(_md_piece, version.pieces))
    note = f" ({markdown_text(version.note)})" if version.note else ""
    return f"  - {markdown_text(version.label)}: {words}{note}"


def _md_piece(piece: Piece) -> str:
    """Writes a stretch of text, in bold with its label if it has one."""
    if not piece.type:
        return markdown_text(piece.text)
    kind = "" if piece.kind == "gold" else f", {piece.kind}"
    return f"**{markdown_text(piece.text)}** ({markdown_text(piece.type + kind)})"


INTERVAL = r"\[[+−]?[\d.]+, [+−]?[\d.]+\](?![(\[:])"
MARKS = re.compile(rf"{INTERVAL}|([\\`*\[\]|#~$]|(?<![^\W_])_|_(?![^\W_]))")
"""Special characters of Markdown, in the group. Intervals match without it: they are no links.

An underscore inside a word has no effect and is not matched."""


def markdown_text(text: str) -> str:
    """Escapes a text for Markdown and HTML and puts it on one line: `markdown_text("a | <b>")`."""
    text = MARKS.sub(lambda found: f"\\{found[0]}" if found[1] else found[0], " ".join(text.split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def as_latex(report: Report) -> str:
    r"""Returns the tables as LaTeX for `\input`; they need the package booktabs.

    Example:
        text = as_latex(gather(read_suite(folder)))
    """
    parts = [f"% {' '.join(report.title.split())}. Needs \\usepackage{{booktabs}}."]
    for section in report.sections:
        if section.key in IN_LATEX:
            parts += [_latex_table(table, f"{section.key}-{place}") for place, table in enumerate(section.tables, 1)]
    return "\n\n".join(parts) + "\n"


def _latex_table(table: Table, label: str) -> str:
    """Writes a floating table with caption and label."""
    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{_tex(table.caption)}}}\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"\toprule",
        " & ".join(map(_tex, table.header)) + r" \\",
        r"\midrule",
        *(" & ".join(map(_tex_cell, row)) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _tex_cell(cell: TableCell) -> str:
    """Writes a cell, with its note as a second, smaller line."""
    text = rf"\textbf{{{_tex(cell.text)}}}" if cell.bold else _tex(cell.text)
    if not cell.note:
        return text
    return rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{text}\\{{\scriptsize {_tex(cell.note)}}}\end{{tabular}}"


TEX = {
    "\\": r"\textbackslash{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    # In braces: after a line break a bracket would be read as an argument.
    "[": "{[}",
    "]": "{]}",
    "±": r"$\pm$",
    "−": r"$-$",
    "–": "--",
    "°": r"$^\circ$",
}
"""Character -> LaTeX that prints it."""


def _tex(text: str) -> str:
    """Escapes a text for LaTeX and puts it on one line."""
    return "".join(TEX.get(mark, mark) for mark in " ".join(text.split()))


def as_csv(report: Report) -> str:
    """Returns one row per transfer, the data from which all tables are computed.

    Example:
        text = as_csv(gather(read_suite(folder)))
    """
    text = io.StringIO()
    if report.runs:
        writer = csv.DictWriter(text, list(report.runs[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(report.runs)
    return text.getvalue()
