"""A report as Markdown, LaTeX and CSV. Whatever comes from titles, errors and corpora is escaped for its form."""

from __future__ import annotations

import csv
import io
import re

from metaprime.reports.document import Cell, Report, Table
from metaprime.reports.sentences import Piece
from metaprime.reports.wording import markdown

IN_LATEX = ("scores", "contrasts", "gains", "errors")
"""Sections whose tables a paper may want."""


def as_markdown(report: Report) -> str:
    """All sections; of figures the captions."""
    parts = [f"# {_md(report.title)}", "\n".join(f"- {_md(line)}" for line in report.summary)]
    for section in report.sections:
        parts.append(f"## {_md(section.title)}")
        if section.note:
            parts.append(_md(section.note))
        for table in section.tables:
            rows = [[_md_cell(cell) for cell in row] for row in table.rows]
            parts += [_md(table.caption), markdown([_md(name) for name in table.header], rows).rstrip("\n")]
        parts += [
            f"*{_md(figure.title)}, a figure of report.html.* {_md(figure.caption)}" for figure in section.figures
        ]
        for example in section.examples:
            lines = [
                f"  - {_md(one.label)}: {' '.join(map(_md_piece, one.pieces))}{_md(f' ({one.note})') if one.note else ''}"
                for one in example.readings
            ]
            parts.append("\n".join([f"- {_md(example.title)}", *lines]))
        for label, text in section.code:
            fence = "`" * (3 + max(map(len, re.findall("`+", text)), default=0))
            parts.append(f"{_md(label)}:\n\n{fence}\n{text.rstrip()}\n{fence}")
    return "\n\n".join(parts) + "\n"


def _md_cell(cell: Cell) -> str:
    text = f"**{_md(cell.text)}**" if cell.bold else _md(cell.text)
    return f"{text} {_md(cell.note)}" if cell.note else text


def _md_piece(piece: Piece) -> str:
    if not piece.type:
        return _md(piece.text)
    kind = "" if piece.kind == "gold" else f", {piece.kind}"
    return f"**{_md(piece.text)}** ({_md(piece.type + kind)})"


def _md(text: str) -> str:
    """On one line, with nothing that Markdown or HTML would act on."""
    text = re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", " ".join(text.split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def as_latex(report: Report) -> str:
    r"""Tables to be read by `\input`; needs the package booktabs."""
    parts = [f"% {' '.join(report.title.split())}. Needs \\usepackage{{booktabs}}."]
    for section in report.sections:
        if section.key in IN_LATEX:
            parts += [_latex_table(table, f"{section.key}-{place}") for place, table in enumerate(section.tables, 1)]
    return "\n\n".join(parts) + "\n"


def _latex_table(table: Table, label: str) -> str:
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


def _tex_cell(cell: Cell) -> str:
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
    "[": "{[}",  # after a line break it would be read as an argument
    "]": "{]}",
    "±": r"$\pm$",
    "−": r"$-$",
    "–": "--",
    "°": r"$^\circ$",
}


def _tex(text: str) -> str:
    return "".join(TEX.get(mark, mark) for mark in " ".join(text.split()))


def as_csv(report: Report) -> str:
    """One row for each transfer: what every table here is computed from."""
    text = io.StringIO()
    if report.runs:
        writer = csv.DictWriter(text, list(report.runs[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(report.runs)
    return text.getvalue()
