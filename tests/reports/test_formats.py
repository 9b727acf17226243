"""Markdown, LaTeX and CSV: whole, balanced, and nothing from a corpus, a title or an error acts."""

from __future__ import annotations

import csv
import io
import re

import pytest

from metaprime.reports.document import Report
from metaprime.reports.formats import as_csv, as_latex, as_markdown, markdown_text
from metaprime.reports.read import Suite


def test_latex_is_balanced(report: Report) -> None:
    text = as_latex(report)
    assert text.count(r"\begin{") == text.count(r"\end{")
    plain = re.sub(r"\\[{}\\]", "", text)
    assert plain.count("{") == plain.count("}")
    assert r"\textbf{" in text
    assert "±" not in text


def test_csv_has_a_row_for_each_transfer(suite: Suite, report: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(report))))
    assert len(rows) == len(suite.transfers)
    assert {row["arm"] for row in rows} == set(suite.results.arms)
    assert float(rows[0]["lenient_f1"]) == suite.transfers[0].score
    assert int(rows[0]["correct"]) > 0
    # Nothing was primed.
    assert rows[0]["priming_seconds"] == rows[0]["priming_flops"] == ""
    assert float(rows[0]["transfer_flops"]) == 1.6e10
    assert {row["priming_flops_chosen"] for row in rows if row["arm"] == "meta"} == {"2688000000000.0"}


def test_nothing_from_corpus_titles_or_errors_acts(hostile: Report) -> None:
    text = as_markdown(hostile)
    outside_code = re.sub(r"^(`{3,})\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "<script" not in outside_code
    assert r"\[d\](http://e)" in outside_code
    tables = [line for line in outside_code.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) >= 2 for line in tables)
    latex = as_latex(hostile)
    assert r"\input{y}" not in latex
    assert r"\textbackslash{}input\{y\} 100 \% \#1 \textasciitilde{} \textasciicircum{}" in latex


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("outer.steps of one_step", "outer.steps of one_step"),
        ("_a_ __init__ a__b", r"\_a\_ \_\_init\_\_ a\_\_b"),
        ("+1.2 [−0.4, +2.8]", "+1.2 [−0.4, +2.8]"),
        (
            "[1.0, 2.0](http://d) [1.0, 2.0][d] [1.0, 2.0]: d",
            r"\[1.0, 2.0\](http://d) \[1.0, 2.0\]\[d\] \[1.0, 2.0\]: d",
        ),
        ("[d] *a* `b` a|b # ~ $ \\", r"\[d\] \*a\* \`b\` a\|b \# \~ \$ \\"),
        ("a <b> & c\n d", "a &lt;b&gt; &amp; c d"),
    ],
)
def test_markdown_has_what_acts_escaped_and_nothing_else(text: str, written: str) -> None:
    assert markdown_text(text) == written


def test_the_count_of_matches_stands_apart_from_the_sentence(report: Report) -> None:
    lines = [line for line in as_markdown(report).splitlines() if line.startswith("  - meta-priming: ")]
    assert lines
    assert all(re.search(r" \([\w, ]+\)$", line) for line in lines if line.endswith(")"))
