"""Cells are addressed by what their results depend on, and what version 0.1 wrote under the word `peft` is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from metaprime.config.loading import load_config, override
from metaprime.config.presets import EMBEDDED
from metaprime.config.sections import Config
from metaprime.suite.cells import Primer, Priming, Target
from metaprime.types import MetaprimeError

LORA = "peft={method: lora, rank: 4}"
OLD_RECORDS = {
    None: "transfer/a12e26d77609/seed1/transfer/base/qai-peft-k8-s1/record.json",
    "f68465690a18": "transfer/5cb62a277007/seed1/transfer/primed/qai-peft-k8-s1/record.json",
}
"""Where version 0.1 put a record of LORA as `transfer.methods=[peft]`, by the key of the priming run that it started from."""

OLD_RATES = {None: "rates/f57227320347-peft-seed1.json", "f68465690a18": "rates/04afb62a1bc8-peft-seed1.json"}
"""Where it put the rate of LORA, likewise."""

RECORD: dict[str, Any] = {"cell": {}, "scores": {}, "training": {}, "frozen": {}}


def config_at(output: Path, *changes: str) -> Config:
    return load_config(None, [f"run.output={output}", *changes]).at_rates(EMBEDDED, EMBEDDED)


def target_at(output: Path, methods: str, *changes: str) -> Target:
    few = ("transfer.lr=[0.1, 0.3]", "transfer.shots=[8]", "data.target_languages=[qai]")
    return Target(config_at(output, f"transfer.methods={methods}", *few, *changes))


def put(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


@pytest.fixture
def sources(tmp_path: Path) -> dict[str | None, Priming | None]:
    """No priming, and one priming run with LORA, by key."""
    primed = Primer(config_at(tmp_path, LORA)).cell(1, "encoder")
    return {None: None, primed.key: primed}


@pytest.mark.parametrize(
    ("change", "primings", "transfers"),
    [
        ("run.output=elsewhere", True, True),
        ("run.threads=3", True, True),
        ("run.seed=3", True, True),
        ("data.target_languages=[qai]", True, True),
        ("transfer.methods=[lora]", True, True),
        ("transfer.methods=[{method: lora, rank: 4}]", True, True),
        ("transfer.shots=[50, 100]", True, True),
        ("transfer.lr=[0.01, 0.5]", True, False),
        # Held-out languages are tuned with the first K.
        ("transfer.shots=[10]", False, True),
        ("transfer.steps=3", False, False),
        ("task.labels=[PER]", False, False),
        ("data.languages=[qaa]", False, True),
        ("inner.lr=3.0", False, True),
        ("encoder.attention=eager", False, False),
    ],
)
def test_a_cell_is_addressed_by_what_it_depends_on(change: str, primings: bool, transfers: bool) -> None:
    base = load_config().at_rates(EMBEDDED, EMBEDDED)
    changed = override(base, change)
    assert (Primer(changed).key == Primer(base).key) == primings
    assert (Target(changed).key == Target(base).key) == transfers


def test_without_validation_priming_depends_on_no_transfer_setting() -> None:
    base = load_config(None, ["outer.validate_every=0"]).at_rates(EMBEDDED, EMBEDDED)
    changed = override(base, "transfer.steps=3", "transfer.shots=[7]", "data.validation_languages=[qad]")
    assert Primer(changed).config == Primer(base).config


def test_a_methods_place_depends_on_its_settings_and_not_on_its_column(tmp_path: Path) -> None:
    target = target_at(tmp_path, "[{method: lora, rank: 4}, {method: lora, rank: 2}, head]")
    turned = target_at(tmp_path, "[head, {method: lora, rank: 2}, {method: lora, rank: 4}]")
    cells = [target.transfers(None, column, 0.1, 1, "encoder") for column in range(3)]
    again = [turned.transfers(None, column, 0.1, 1, "encoder") for column in (2, 1, 0)]
    assert [cell.column for cell in cells] == [0, 1, 2]
    assert [cell.files for cell in cells] == [cell.files for cell in again]
    assert len({cell.folder for cell in cells}) == 3
    names = [file.parent.name for cell in cells for file in cell.files.values()]
    assert names == ["qai-lora-rank4-k8-s1", "qai-lora-rank2-k8-s1", "qai-head-k8-s1"]
    rates = [target.rate(None, column, 1, "encoder").file.name.partition("-")[2] for column in range(3)]
    assert rates == ["lora-rank4-seed1.json", "lora-rank2-seed1.json", "head-seed1.json"]


def test_a_cells_config_has_its_method_alone_with_its_settings(tmp_path: Path) -> None:
    target = target_at(tmp_path, "[{method: lora, rank: 4}, pfeiffer, head]", "peft={method: pfeiffer, bottleneck: 5}")
    configs = [target.transfers(None, column, 0.3, 1, "encoder").config for column in range(3)]
    asked = [dict(config.methods()) for config in configs]
    assert [list(one) for one in asked] == [["lora-rank4"], ["pfeiffer"], ["head"]]
    assert asked[0]["lora-rank4"].model_dump()["rank"] == configs[0].peft.model_dump()["rank"] == 4
    assert asked[1]["pfeiffer"].model_dump()["bottleneck"] == 5
    assert {config.transfer.lr for config in configs} == {(0.3,)}


def test_records_that_version_0_1_wrote_under_the_word_peft_are_found(
    tmp_path: Path, sources: dict[str | None, Priming | None]
) -> None:
    target = target_at(tmp_path, "[{method: lora, rank: 4}]")
    assert sources.keys() == OLD_RECORDS.keys()
    for key, source in sources.items():
        cell = target.transfers(source, 0, 0.1, 1, "encoder")
        (new,) = cell.files.values()
        assert new.parent.name == "qai-lora-rank4-k8-s1"
        assert cell.missing() == 1
        old = put(tmp_path / OLD_RECORDS[key], RECORD)
        assert cell.files == {("qai", 8): old}
        assert cell.missing() == 0
        # What this version has written, or is about to, goes before.
        new.parent.mkdir(parents=True)
        assert cell.files == {("qai", 8): new}


def test_rates_that_version_0_1_wrote_under_the_word_peft_are_found(
    tmp_path: Path, sources: dict[str | None, Priming | None]
) -> None:
    target = target_at(tmp_path, "[{method: lora, rank: 4}]")
    assert sources.keys() == OLD_RATES.keys()
    for key, source in sources.items():
        choice = target.rate(source, 0, 1, "encoder")
        assert choice.known is None
        old = put(tmp_path / OLD_RATES[key], {"rate": 0.3})
        assert choice.known == 0.3
        choice.file.write_text(json.dumps({"rate": 0.1}), encoding="utf-8")
        assert choice.known == 0.1
        choice.file.unlink()
        old.write_text("{", encoding="utf-8")
        with pytest.raises(MetaprimeError, match=rf"{old.name} is damaged .*: remove it, and the rate is chosen again"):
            assert choice.known


def test_the_method_of_the_section_peft_is_found_by_its_name(tmp_path: Path) -> None:
    target = target_at(tmp_path, "[lora]", LORA)
    put(tmp_path / OLD_RATES[None], {"rate": 0.3})
    old = put(tmp_path / OLD_RECORDS[None], RECORD)
    assert target.rate(None, 0, 1, "encoder").known == 0.3
    assert target.transfers(None, 0, 0.1, 1, "encoder").files == {("qai", 8): old}


def test_a_rate_under_the_word_peft_is_that_of_the_sections_method_alone(tmp_path: Path) -> None:
    """Under `peft` stood the method of the section, here lora."""
    target = target_at(tmp_path, "[lora, head]", LORA)
    put(tmp_path / OLD_RATES[None], {"rate": 0.3})
    assert [target.rate(None, column, 1, "encoder").known for column in (0, 1)] == [0.3, None]


def test_records_under_the_word_peft_are_those_of_the_sections_method_alone(tmp_path: Path) -> None:
    target = target_at(tmp_path, "[lora, head]", LORA)
    old = put(tmp_path / OLD_RECORDS[None], RECORD)
    assert target.transfers(None, 0, 0.1, 1, "encoder").files == {("qai", 8): old}
    cell = target.transfers(None, 1, 0.1, 1, "encoder")
    assert [file.parent.name for file in cell.files.values()] == ["qai-head-k8-s1"]
    assert cell.missing() == 1
