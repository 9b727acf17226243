"""The files of a report, and the page: one well-formed file that needs nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from toy_suite import section
from typer.testing import CliRunner

from metaprime.cli.app import app
from metaprime.reports.document import Report
from metaprime.reports.write import as_html, report
from metaprime.types import MetaprimeError

VOID = {"meta", "link", "br", "path", "use"}


class Tags(HTMLParser):
    """Every tag of a page; fails on one that closes what is not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.ids += [value for name, value in attributes if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_all_forms_are_written(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    done = CliRunner().invoke(app, ["report", str(folder), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert sorted(file.name for file in out.iterdir()) == ["report.csv", "report.html", "report.md", "report.tex"]
    assert report(folder, out)[0].read_bytes() == (out / "report.html").read_bytes()
    assert not (folder / "report.html").exists()


def test_the_page_is_one_well_formed_file_with_every_figure(report: Report) -> None:
    text = as_html(report)
    page = Tags(text)
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids)
    panels = sum(len(figure.panels) for one in report.sections for figure in one.figures)
    assert page.seen.count("svg") == panels
    assert page.seen.count("figure") == page.seen.count("figcaption") == 7
    outside = re.findall(r'(?:src|href)="([^"#][^"]*)"', re.sub(r'xmlns(:\w+)?="[^"]*"', "", text))
    assert outside == ["data:,"]
    assert "@import" not in text
    assert "prefers-color-scheme" in text


def test_an_example_stands_in_all_versions_with_the_kind_of_each_match(report: Report) -> None:
    page = as_html(report)
    versions = [version for example in section(report, "sentences").examples for version in example.versions]
    assert re.findall(r"<dt>([^<]*)", page) == [version.label for version in versions]
    kinds = [piece.kind for version in versions for piece in version.pieces if piece.type]
    assert {"gold", "correct"} < set(kinds)
    # Those of the gold answer are of no kind.
    number = {kind: f" kind-{place}" for place, kind in enumerate(report.kinds)} | {"gold": ""}
    assert re.findall(r'<mark class="entity([^"]*)" title="([^"]*)">', page) == [(number[kind], kind) for kind in kinds]


def test_nothing_from_corpus_titles_or_errors_acts_on_the_page(hostile: Report) -> None:
    page = as_html(hostile)
    assert "script" not in Tags(page).seen
    assert page.count("&lt;script&gt;alert(1)") > 20


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MetaprimeError, match=r"nothing is no folder: give the run\.output of a command"):
        report(tmp_path / "nothing")


def test_help_does_not_import_what_draws() -> None:
    code = "import sys, metaprime.cli.app; sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_the_reports_loads_neither_torch_nor_what_draws() -> None:
    heavy = "{'torch', 'transformers', 'matplotlib'}"
    code = f"import sys, metaprime.reports.write, metaprime.reports.summary; sys.exit(str({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stderr.strip() == "set()"
