"""The conversion script, run as a user runs it: round trip, manifest, and nothing written where it fails."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from metaprime.data.readers import conll, parquet

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "data_scripts" / "conll_to_parquet.py"
TEXT = "Ada\tB-PER\nLovelace\tI-PER\nnaps\tO\n\nBerlin\tB-LOC\n"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module, for what needs no process of its own."""
    spec = importlib.util.spec_from_file_location("conll_to_parquet", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def manifest(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((out / "manifest.json").read_text("utf-8"))
    return loaded


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for name, text in {
        "de/train.conll": TEXT,
        "de/test.tsv": "x\tO\n",
        "nl/train.txt": "0 Ada I-PER\n1 Eva B-PER\n",
    }.items():
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return tmp_path / "raw"


def test_a_tree_comes_back_equal_with_a_manifest(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(raw, out)
    assert (done.returncode, done.stderr) == (0, "")
    assert files(out) == ["de/test.parquet", "de/train.parquet", "manifest.json", "nl/train.parquet"]
    for language, split in (("de", "train"), ("de", "test"), ("nl", "train")):
        before, after = conll.read(str(raw), language, split), parquet.read(str(out), language, split)
        assert [(s.words, s.gold) for s in before.sentences] == [(s.words, s.gold) for s in after.sentences]
    assert manifest(out)["de/train.parquet"] == {
        "source": "train.conll",
        "source_sha256": hashlib.sha256(TEXT.encode()).hexdigest(),
        "sha256": hashlib.sha256((out / "de" / "train.parquet").read_bytes()).hexdigest(),
        "sentences": 2,
        "tokens": 4,
        "entities": {"LOC": 1, "PER": 1},
        "tag_scheme": "IOB2",
    }
    assert manifest(out)["nl/train.parquet"]["entities"] == {"PER": 2}
    assert manifest(out)["nl/train.parquet"]["tag_scheme"] == "IOB1"


def test_one_file_joins_the_manifest(raw: Path, tmp_path: Path) -> None:
    out, source = tmp_path / "out", tmp_path / "swa_dev.txt"
    assert run(raw, out).returncode == 0
    before = manifest(out)
    source.write_text("a S-LOC\nb B-PER\nc E-PER\n", "utf-8")
    assert run("--file", source, "--language", "swa", "--split", "validation", out).returncode == 0
    after = manifest(out)
    new = after.pop("swa/validation.parquet")
    assert after == before
    assert new["tag_scheme"] == "prefixes B E S"
    assert new["entities"] == {"LOC": 1, "PER": 1}


def test_invalid_iob2_is_called_so(tmp_path: Path) -> None:
    source = tmp_path / "x.conll"
    source.write_text("a B-PER\n\nb O\nc I-LOC\n", "utf-8")
    assert run("--file", source, "--language", "xx", "--split", "test", tmp_path / "out").returncode == 0
    assert manifest(tmp_path / "out")["xx/test.parquet"]["tag_scheme"] == "IOB2 with 1 I- tags that open an entity"


def test_one_bad_file_leaves_everything_as_it_was(raw: Path, tmp_path: Path) -> None:
    (raw / "nl" / "train.txt").write_text("a O\nb\n", "utf-8")
    failed = run(raw, tmp_path / "new")
    assert failed.returncode == 2
    assert "train.txt:2: 'b' has one column" in failed.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "out"], "nowhere: no such folder"),
        (["raw"], "give IN_DIR and OUT_DIR"),
        (["--file", "raw/de/train.conll", "out"], "--file, --language and --split go together"),
        (["--file", "no.txt", "--language", "de", "--split", "train", "out"], "no.txt: cannot be read"),
        (["--file", "raw/de/train.conll", "--language", "..", "--split", "train", "out"], "'..' is not a plain name"),
        (["--file", "raw/de/train.conll", "--language", "de", "--split", "x", "raw", "out"], "give OUT_DIR alone"),
    ],
)
def test_a_mistake_is_exit_code_2(
    script: ModuleType,
    raw: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(raw.parent)
    # The parser exits by itself.
    try:
        code = script.main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert files(raw.parent) == ["raw/de/test.tsv", "raw/de/train.conll", "raw/nl/train.txt"]


def test_a_damaged_manifest_is_not_overwritten(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text("{", "utf-8")
    failed = run(raw, out)
    assert failed.returncode == 2
    assert "manifest.json: not JSON" in failed.stderr
    assert "remove it" in failed.stderr
    assert files(out) == ["manifest.json"]
    assert (out / "manifest.json").read_text("utf-8") == "{"
