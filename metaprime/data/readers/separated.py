"""Reads tables of whole texts: `DIR/<language>/<split>.csv` with commas, or `.tsv` with tabs.

The first line names the columns. A field with a separator, a quote or a line end in it stands in double
quotes, and a quote in it is doubled (RFC 4180). GLUE's TSV files quote nothing, and have stray quotes in
their texts: a `.tsv` file is split at tabs alone, and its quotes are text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from metaprime.data.readers import columns, folders
from metaprime.data.readers.text import read_lines
from metaprime.data.reading import UNSTATED, Corpus, Format, Problem, Reading, TableRow, TableRows, one_table, shown
from metaprime.types import MetaprimeError


def _languages(root: str, extension: str) -> list[str]:
    """Lists the languages for which a folder has a file."""
    return folders.languages(root, (extension,))


def _read(root: str, language: str, split: str, form: Format, extension: str) -> Reading:
    """Refuses to read tagged sentences, which no such file holds."""
    raise MetaprimeError(
        f"{extension}:{root}: a table of texts, one on each line; read tagged sentences by conll:, jsonl: or parquet:, "
        "or set task.name: classification"
    )


def _records(root: str, language: str, split: str, names: Mapping[str, str], form: Format, extension: str) -> TableRows:
    """Reads some columns of one split."""
    paths = folders.locate_all(root, language, split, (extension,))
    return one_table([parsed(path, names, form) for path in paths])


def parsed(path: Path, names: Mapping[str, str], form: Format = UNSTATED) -> TableRows:
    """Reads some columns of one file; an `origin` names the line on which a row ends, counted from 1.

    Args:
        path: the file; with the extension `tsv` it is split at tabs, else at commas.
        names: columns by the config key that names each.
        form: its encoding, as far as it is stated.

    Raises:
        MetaprimeError: the file cannot be read, has no line, or lacks a column; a quote is never closed.

    Example: `parsed(Path("train.csv"), {"task.text": "text"}).rows[0].values`.
    """
    lines = read_lines(path, form)
    found = TableRows(place=str(path), problems=list(lines.problems))
    if lines.bad:
        # A row may span lines: with one line unread, where the next row begins is unknown.
        raise MetaprimeError(f"{path}: {next(iter(lines.bad.values())).text}")
    tabs = path.suffix == ".tsv"
    rules = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {"delimiter": ",", "strict": True}
    # Texts may be longer than the module's limit of 131,072 characters.
    csv.field_size_limit(1 << 30)
    table = csv.reader(io.StringIO("\n".join(lines.texts), newline=""), **rules)  # type: ignore[arg-type]
    try:
        header = next(table, [])
        columns.required(str(path), header, names)
        if twice := next((name for name in names.values() if header.count(name) > 1), None):
            raise MetaprimeError(f"{path}: the first line names {twice!r} twice; rename one of the columns")
        for row in table:
            if not row:
                continue
            if len(row) != len(header):
                text = f"{len(row)} columns in {shown(chr(9).join(row))}, but the first line names {len(header)}; correct it"
                found.problems.append(Problem("column count", f"{path}:{table.line_num}", text, dropped=True))
                continue
            values = dict(zip(header, row, strict=True))
            found.rows.append(
                TableRow(f"{path}:line {table.line_num}", {name: values[name] for name in names.values()})
            )
    except csv.Error as error:
        raise MetaprimeError(
            f"{path}:{table.line_num}: {error}; put a field with a quote or a comma in it in double quotes, and double its quotes"
        ) from None
    return found


def _corpus(extension: str) -> Corpus:
    """Returns the reader of an extension."""
    return Corpus(
        partial(_read, extension=extension),
        partial(_languages, extension=extension),
        partial(folders.locate_all, extensions=(extension,)),
        partial(_records, extension=extension),
    )


CSV, TSV = _corpus("csv"), _corpus("tsv")
