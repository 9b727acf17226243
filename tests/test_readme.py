"""The README's Python example runs as printed; its tables are the ones a command wrote, its picture what a script draws."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_python_example(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "primed encoder: runs/readme/primed" in done.stdout
    assert re.search(r"^qai \d+\.\d+$", done.stdout, re.MULTILINE)
    assert "('Gipipe', '" in done.stdout
    assert (tmp_path / "runs/readme/primed/model.safetensors").is_file()


def test_tables_are_copies_of_results() -> None:
    parts = re.findall(r"<!-- \w+: (\S+) -->\n(.*?)<!-- /\w+ -->", README, re.DOTALL)
    assert parts
    for file, shown in parts:
        assert shown.strip() in (ROOT / file).read_text("utf-8"), f"README's copy of {file} is out of date"
        assert "|" in shown


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+?)\)", README))))
def test_links_lead_somewhere(link: str) -> None:
    assert link.startswith("https://") or (ROOT / link).exists()


def test_it_names_the_loop_and_the_mathematics() -> None:
    files = ("metaprime/priming/prime.py", "metaprime/meta/maml.py")
    loop, mathematics = (f"[{file}]({file})" for file in files)
    assert f"The loop is {loop}, the mathematics {mathematics}." in README


def test_it_is_short_and_soon_in_python() -> None:
    assert README.count("\n") <= 130
    assert README[: README.index("```python")].count("\n") < 59


def test_the_picture_is_what_the_script_draws() -> None:
    script = ROOT / "docs" / "pipeline.py"
    done = subprocess.run([sys.executable, "-I", script], capture_output=True, text=True, check=True)
    assert done.stdout == (ROOT / "docs" / "pipeline.svg").read_text("utf-8")
    assert "](docs/pipeline.svg)" in README
    first, second = list(ElementTree.fromstring(done.stdout))[:2]
    assert [part.tag.rpartition("}")[2] for part in (first, second)] == ["title", "desc"]


def test_the_page_of_methods_is_what_the_code_says() -> None:
    # In this process: importing the package takes most of the time.
    page = runpy.run_path(str(ROOT / "docs" / "methods.py"))["page"]()
    assert page.rstrip("\n") == (ROOT / "docs" / "methods.md").read_text("utf-8").rstrip("\n")


def test_the_page_of_learners_is_what_the_code_says(tmp_path: Path) -> None:
    for name in ("learners.py", "learners.md"):
        shutil.copy(ROOT / "docs" / name, tmp_path)
    runpy.run_path(str(tmp_path / "learners.py"), run_name="__main__")
    assert (tmp_path / "learners.md").read_text("utf-8") == (ROOT / "docs" / "learners.md").read_text("utf-8")
