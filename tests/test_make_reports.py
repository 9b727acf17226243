"""`make reports` writes the report of every recorded suite, and the CSV beside the page of a suite that has one."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from metaprime.types import MetaprimeError

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "docs" / "reports.py"
SUITE = ROOT / "tests" / "fixtures" / "from_2db22c3" / "suite" / "arms"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reports_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_suite_is_reported_and_a_page_gets_its_csv(script: ModuleType, tmp_path: Path) -> None:
    runs, pages = tmp_path / "runs", tmp_path / "pages"
    shutil.copytree(SUITE, runs / "ablations" / "arms")
    shutil.copytree(SUITE, runs / "other")
    pages.mkdir()
    (pages / "arms.md").touch()
    written = script.write_reports(runs, pages)
    assert written == [runs / "ablations" / "arms" / "report.html", runs / "other" / "report.html"]
    assert all(page.read_text("utf-8").startswith("<!doctype html>") for page in written)
    assert [file.name for file in sorted(pages.iterdir())] == ["arms.csv", "arms.md"]
    assert (pages / "arms.csv").read_text("utf-8") == (runs / "other" / "report.csv").read_text("utf-8")


def test_a_folder_without_a_suite_is_an_error_that_says_what_to_run(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(MetaprimeError, match=r"holds no recorded suite: run `make demo`"):
        script.write_reports(tmp_path)
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"docs/reports.py: {tmp_path} holds no recorded suite")


def test_no_page_is_kept_in_git() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no checkout of git")
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "docs"], capture_output=True, text=True, check=True)
    assert not [name for name in listed.stdout.split() if name.endswith(".html")]
