"""What an older version left on disk still resumes, loads, predicts and reports: see tests/fixtures.

What is there stays as it is, bit for bit; what is trained anew ends in other last bits, since batches are packed now.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from write_from_2db22c3 import cpu

from metaprime import Config, MetaprimeError, ablate, load_config, predict, prime, transfer
from metaprime.config.older import upgraded
from metaprime.reports.write import report
from metaprime.runs.provenance import versions
from metaprime.transfers.export import export

WRITTEN = Path(__file__).parent / "fixtures/from_2db22c3"
EXPECTED: dict[str, Any] = json.loads((WRITTEN / "expected.json").read_text(encoding="utf-8"))
SAME_CPU = EXPECTED["cpu"] == cpu()
RECORDS = ("run.json", "record.json", "suite.json")


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to work in. The layout is what is tested: versions are this machine's, or every run would be refused."""
    folder = tmp_path / "old"
    shutil.copytree(WRITTEN, folder)
    for name in RECORDS:
        for file in folder.rglob(name):
            record = json.loads(file.read_text(encoding="utf-8"))
            file.write_text(json.dumps(record | {"versions": versions()}), encoding="utf-8")
    # The config is the user's, who writes the keys that moved where the message says.
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    (folder / "config.yaml").write_text(yaml.safe_dump(upgraded(config)), encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


def config_of(output: str) -> Config:
    return load_config("config.yaml", [f"run.output={output}", "transfer.lr=[0.03]"])


def written_at(folder: Path, name: str) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in sorted(folder.rglob(name))}


def facts(record: dict[str, Any]) -> dict[str, Any]:
    return {key: record[key] for key in ("cell", "scores", "digest")} | {"loss": record["training"]["last_loss"]}


def test_a_config_of_old_is_refused_with_the_new_place_of_each_key() -> None:
    with pytest.raises(MetaprimeError) as error:
        load_config(WRITTEN / "config.yaml")
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert all(" has moved: write task." in line for line in lines)


def test_an_interrupted_run_ends_where_the_unbroken_one_did(old: Path) -> None:
    prime(config_of("interrupted"), resume=True)
    lines = [json.loads(text) for text in (old / "interrupted/metrics.jsonl").read_text("utf-8").splitlines()]
    found = [{key: value for key, value in line.items() if key != "volatile"} for line in lines]
    assert [line["step"] for line in found] == [line["step"] for line in EXPECTED["metrics"]]
    for mine, theirs in zip(found, EXPECTED["metrics"], strict=True):
        assert mine["validation_f1" if mine["step"] == 0 else "query_loss"] == pytest.approx(
            theirs["validation_f1" if mine["step"] == 0 else "query_loss"], rel=1e-3
        )
        # What the old version padded is packed from here on: the same sentences, and fewer positions.
        assert mine.get("languages") == theirs.get("languages")
        assert mine.get("subwords", 0) <= theirs.get("subwords", 0)
    assert (old / "interrupted/primed/model.safetensors").is_file()


def test_a_finished_run_and_its_transfers_are_found_and_not_run_again(old: Path) -> None:
    before = written_at(old / "finished", "*.safetensors")
    prime(config_of("finished"), resume=True)
    records = [result.record for result in transfer(config_of("finished"))]
    assert [facts(record) for record in records] == EXPECTED["transfers"]
    assert written_at(old / "finished", "*.safetensors") == before


def test_a_transfer_predicts_and_exports(old: Path) -> None:
    asked = EXPECTED["predicted"]
    pairs = predict(asked["cell"], asked["text"])
    assert [list(pair) for pair in pairs] == asked["pairs"]
    assert any(tag != "O" for _, tag in pairs)
    assert (export(asked["cell"], "exported", "adapterhub") / "adapter.safetensors").is_file()


def test_a_primed_encoder_of_old_is_transferred_from(old: Path) -> None:
    config = load_config(
        "config.yaml",
        ["run.output=new", "transfer.encoder=finished/primed", "transfer.lr=[0.03]", "transfer.methods=[head]"],
    )
    (result,) = transfer(config)
    record = result.record
    wanted = next(one for one in EXPECTED["transfers"] if one["cell"]["method"] == "head")
    assert record["digest"] == wanted["digest"]
    if SAME_CPU:
        assert facts(record) == wanted


def test_a_suite_goes_on_with_the_cells_that_are_there(old: Path) -> None:
    there = written_at(old / "suite", "record.json") | written_at(old / "suite/priming", "model.safetensors")
    overrides = ["run.output=suite", "transfer.lr=[0.03, 0.1]", "transfer.methods=[pfeiffer, head]"]
    results = ablate("suite.yaml", overrides, jobs=1)
    again = written_at(old / "suite", "record.json") | written_at(old / "suite/priming", "model.safetensors")
    assert there.items() <= again.items()
    assert {file.relative_to(old) for file in again.keys() - there.keys()} == {
        Path("suite/arms", path).resolve().relative_to(old.resolve())
        for path in [
            *(one["path"] for one in results["records"] if (one["arm"], one["seed"]) == ("multitask", 1)),
            f"{results['primings']['multitask']['1']}/primed/model.safetensors",
        ]
    }
    assert not results["failed"]
    for one in results["records"]:
        record = json.loads((old / "suite/arms" / one["path"]).read_text(encoding="utf-8"))
        if (one["arm"], one["seed"]) != ("multitask", 1):
            assert facts(record) == EXPECTED["suite"][one["path"]]


def test_a_half_done_suite_of_old_has_a_report(old: Path) -> None:
    files = report(old / "suite/arms")
    text = next(file for file in files if file.suffix == ".md").read_text(encoding="utf-8")
    for phrase in ("meta-priming", "16.2 ± 0.4", "10 transfers read of 12", "Learning curves", "at equal compute"):
        assert phrase in text
    assert "Files that could not be used" not in text
