"""The demonstration in small: every arm in real processes, and what it leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from metaprime.build.kind import kinds_of
from metaprime.config.loading import load_config, override
from metaprime.config.sections import Config
from metaprime.models.encoder import load_encoder
from metaprime.suite import ablate
from metaprime.suite.demo import ARMS, CONTRASTS, DEFAULT, demo
from metaprime.types import MetaprimeError

SEEDS = (0, 1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, toy_encoder: Any) -> tuple[Config, dict[str, Any]]:
    config = load_config(
        None,
        [
            f"run.output={tmp_path_factory.mktemp('demo') / 'run'}",
            f"encoder.name={toy_encoder('bert')}",
            "data.languages=[qaa,qaf]",
            "data.validation_languages=[qad]",
            "data.target_languages=[qai,qao]",
            "inner.steps=2",
            "outer.steps=4",
            "outer.validate_every=2",
            "transfer.shots=20",
            "transfer.steps=15",
            "transfer.lr=[1e-2,3e-2]",
            "transfer.test_sentences=60",
        ],
    )
    return config, demo(config, arms=tuple(ARMS), seeds=SEEDS, jobs=2)


def records(config: Config, results: dict[str, Any], arm: str, seed: int, method: str) -> list[dict[str, Any]]:
    return [
        json.loads((Path(config.run.output) / entry["path"]).read_text("utf-8"))
        for entry in results["records"]
        if (entry["arm"], entry["seed"], entry["method"]) == (arm, seed, method)
    ]


def card(config: Config, results: dict[str, Any], arm: str, seed: int) -> Path:
    folder = Path(config.run.output) / str(results["primings"][arm][str(seed)])
    return folder / "primed" / "metaprime.json"


def test_the_default_is_what_the_demonstration_is_about() -> None:
    assert DEFAULT == ("none", "multitask", "shuffled", "meta")
    assert set(DEFAULT) < set(ARMS)


def test_leaves_what_it_promises(finished: tuple[Config, dict[str, Any]]) -> None:
    config, results = finished
    output = Path(config.run.output)
    for name in ("primed/model.safetensors", "results.json", "metrics.jsonl", "table.md"):
        assert (output / name).is_file(), name
    assert json.loads((output / "results.json").read_text("utf-8")) == results
    table = (output / "table.md").read_text("utf-8")
    for arm in ARMS.values():
        assert f"| {arm.title} |" in table
    for pair in CONTRASTS:
        # There is one row for each of the two methods.
        assert table.count(f"| {' − '.join(pair)} |") == 2
    assert results["failed"] == []
    for name, arm in results["arms"].items():
        assert (arm["facts"] is None) == (name == "none")
        assert not arm["facts"] or arm["facts"]["flops"] >= arm["facts"]["flops_chosen"] >= 0
    # No arm has a match.
    assert "at equal compute" not in table


def test_shows_the_encoder_it_says(finished: tuple[Config, dict[str, Any]]) -> None:
    config, results = finished
    output = Path(config.run.output)
    meant = card(config, results, "meta", 0)
    assert (output / "primed/metaprime.json").read_text("utf-8") == meant.read_text("utf-8")
    weights = json.loads(meant.read_text("utf-8"))["provenance"]["encoder_weights"]
    assert load_encoder(str(output / "primed")).weights == weights
    others = sorted(output.glob("priming/*/seed*/primed"))
    # One for each way of priming and seed, however many arms start from it.
    assert len(others) == 3 * len(SEEDS)
    assert [folder for folder in others if load_encoder(str(folder)).weights == weights] == [meant.parent]
    assert (output / "metrics.jsonl").read_bytes() == (meant.parents[1] / "metrics.jsonl").read_bytes()


def test_arms_differ_as_they_say(finished: tuple[Config, dict[str, Any]]) -> None:
    config, results = finished
    rate = config.at_rates(*kinds_of(config.encoder, config.transfer)).outer.rate
    for arm in ("multitask", "multitask_start", "shuffled", "meta", "meta_start"):
        used = json.loads(card(config, results, arm, 1).read_text("utf-8"))["provenance"]["config"]
        multitask = arm.startswith("multitask")
        assert used["run"]["seed"] == 1
        assert used["task"]["shuffle_tags"] == (arm == "shuffled")
        assert used["learner"]["name"] == ("multitask" if multitask else "peft_maml")
        assert used["outer"]["lr"] == rate * (0.5 if multitask else 1)
    assert "none" not in results["primings"]
    assert results["arms"]["none"]["priming"] is None
    starts = {"meta": ("fresh", "fresh"), "meta_start": ("primed", "primed"), "multitask_start": ("fresh", "primed")}
    for arm, wanted in starts.items():
        used = records(config, results, arm, 0, "pfeiffer")[0]["config"]["transfer"]
        assert (used["start_adapter"], used["start_head"]) == wanted


def test_the_rate_of_an_arm_and_method_is_the_same_for_all_seeds(finished: tuple[Config, dict[str, Any]]) -> None:
    config, results = finished
    for name, arm in results["arms"].items():
        assert set(arm["rates"]) == {"pfeiffer", "head"}
        for method, rate in arm["rates"].items():
            assert rate in (1e-2, 3e-2)
            found = [r for seed in SEEDS for r in records(config, results, name, seed, method)]
            # There are two languages.
            assert len(found) == len(SEEDS) * 2
            assert {record["training"]["lr"] for record in found} == {rate}


def test_goes_on_with_what_is_there(finished: tuple[Config, dict[str, Any]], tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(finished[0].run.output, output)
    config = override(finished[0], f"run.output={output}")
    before = {path: path.stat().st_mtime_ns for path in output.glob("*/*/seed*/**/*") if path.is_file()}
    assert before
    results = demo(config, arms=["meta_start", "none"], seeds=[0], jobs=1)
    assert {path: path.stat().st_mtime_ns for path in output.glob("*/*/seed*/**/*") if path.is_file()} == before
    assert list(results["arms"]) == ["meta_start", "none"]
    assert results["arms"]["none"] == finished[1]["arms"]["none"]


def test_a_failed_cell_is_an_error_in_the_end(
    tmp_path: Path, toy_encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*cells: Any) -> Any:
        raise MetaprimeError("the sky fell")

    config = load_config(
        None, [f"run.output={tmp_path / 'run'}", f"encoder.name={toy_encoder('bert')}", "transfer.shots=8"]
    )
    monkeypatch.setattr(ablate, "transfer_one", failing)
    with pytest.raises(MetaprimeError, match=r"arm none, seed 0: .*the sky fell"):
        demo(config, arms=["none"], seeds=[0], jobs=1)


def test_what_cannot_run_is_refused_before_the_first_cell(tmp_path: Path, toy_encoder: Any) -> None:
    config = load_config(
        None, [f"run.output={tmp_path / 'run'}", f"encoder.name={toy_encoder('bert')}", "transfer.shots=100000"]
    )
    with pytest.raises(MetaprimeError, match=r"has 1000 training sentences, transfer\.shots asks for 100000"):
        demo(config, arms=["none"], seeds=[0], jobs=1)
    assert not (tmp_path / "run" / "transfer").exists()


def test_refuses_an_unknown_arm_and_a_foreign_folder(tmp_path: Path, toy_bert: Path) -> None:
    config = load_config(None, [f"run.output={tmp_path}", f"encoder.name={toy_bert}"])
    with pytest.raises(MetaprimeError, match="'mta' is unknown"):
        demo(config, arms=["mta"])
    with pytest.raises(MetaprimeError, match="for one K"):
        demo(override(config, "transfer.shots=[10,50]"))
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(MetaprimeError, match=r"thesis\.tex"):
        demo(config, overwrite=True)
    assert (tmp_path / "thesis.tex").is_file()
