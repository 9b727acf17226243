"""The demonstration in small: real processes, every arm, then its sums against an independent reckoning."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from metaprime.config import Config, load_config, override
from metaprime.loops.demo import ARMS, PRIMINGS, demo
from metaprime.models.encoder import load_encoder
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
    return config, demo(config, seeds=SEEDS, jobs=2)


def records(config: Config, arm: str, seed: int, method: str) -> list[dict[str, Any]]:
    found = Path(config.run.output).glob(f"transfer/{arm}/seed{seed}/transfer/*/*-{method}-*/record.json")
    return [json.loads(path.read_text("utf-8")) for path in sorted(found)]


def test_means_and_contrasts_are_those_of_the_records(finished: tuple[Config, dict[str, Any]]) -> None:
    config, results = finished
    f1 = {}
    for arm in ARMS:
        for seed in SEEDS:
            cells = records(config, arm, seed, "pfeiffer")
            assert [cell["cell"]["language"] for cell in cells] == ["qai", "qao"]
            f1[arm, seed] = np.mean([cell["scores"]["lenient"]["overall"]["f1"] for cell in cells])
        assert results["arms"][arm]["pfeiffer"]["lenient"]["mean"] == pytest.approx(
            np.mean([f1[arm, s] for s in SEEDS])
        )
    paired = stats.ttest_rel([f1["meta", s] for s in SEEDS], [f1["none", s] for s in SEEDS])
    shown = results["contrasts"]["pfeiffer"]["meta - none"]
    assert (shown["low"], shown["high"]) == pytest.approx(tuple(paired.confidence_interval(0.95)), rel=1e-6, abs=1e-6)


def test_leaves_what_it_promises(finished: tuple[Config, dict[str, Any]]) -> None:
    config, results = finished
    output = Path(config.run.output)
    for name in ("primed/model.safetensors", "results.json", "metrics.jsonl", "table.md"):
        assert (output / name).is_file(), name
    assert json.loads((output / "results.json").read_text("utf-8")) == json.loads(json.dumps(results))
    for arm in ARMS.values():
        assert f"| {arm.title} |" in (output / "table.md").read_text("utf-8")


def test_shows_the_encoder_it_says(finished: tuple[Config, dict[str, Any]]) -> None:
    output = Path(finished[0].run.output)
    shown, meant = (output / name / "metaprime.json" for name in ("primed", "priming/meta/seed0/primed"))
    assert shown.read_text("utf-8") == meant.read_text("utf-8")
    weights = json.loads(meant.read_text("utf-8"))["provenance"]["encoder_weights"]
    assert load_encoder(str(output / "primed")).weights == weights
    others = [output / f"priming/{name}/seed{seed}/primed" for name in PRIMINGS for seed in SEEDS]
    same = [folder for folder in others if load_encoder(str(folder)).weights == weights]
    assert same == [output / "priming/meta/seed0/primed"]  # and no other arm's or seed's
    assert (output / "metrics.jsonl").read_bytes() == (output / "priming/meta/seed0/metrics.jsonl").read_bytes()


def test_arms_differ_as_they_say(finished: tuple[Config, dict[str, Any]]) -> None:
    config, _ = finished
    for name in PRIMINGS:
        card = json.loads((Path(config.run.output) / f"priming/{name}/seed1/primed/metaprime.json").read_text("utf-8"))
        used = card["provenance"]["config"]
        assert used["run"]["seed"] == 1
        assert used["data"]["shuffle_tags"] == (name == "shuffled")
        assert used["learner"]["name"] == ("multitask" if name == "multitask" else "peft_maml")
    start = records(config, "meta_start", 0, "pfeiffer")[0]["config"]["transfer"]
    assert (start["start_adapter"], start["start_head"]) == ("primed", "primed")
    fresh = records(config, "meta", 0, "pfeiffer")[0]["config"]["transfer"]
    assert (fresh["start_adapter"], fresh["start_head"]) == ("fresh", "fresh")


def test_rates_are_kept_by_arm(finished: tuple[Config, dict[str, Any]]) -> None:
    config, results = finished
    folder = Path(config.run.output) / "rates"
    assert {path.stem for path in folder.iterdir()} == set(ARMS)
    for arm in ARMS:
        rates = json.loads((folder / f"{arm}.json").read_text("utf-8"))
        assert rates == results["arms"][arm]["rates"]
        assert set(rates) == {"pfeiffer", "head"}
        assert set(rates.values()) <= {1e-2, 3e-2}
        for method, rate in rates.items():
            assert {r["training"]["lr"] for seed in SEEDS for r in records(config, arm, seed, method)} == {rate}


def test_goes_on_with_what_is_there_and_says_null_where_one_seed_gives_no_interval(
    finished: tuple[Config, dict[str, Any]], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    shutil.copytree(finished[0].run.output, output)
    shutil.rmtree(output / "transfer")
    mine = {"pfeiffer": 0.007, "head": 0.006}  # no choice would come to these
    (output / "rates" / "none.json").write_text(json.dumps(mine), encoding="utf-8")
    config = override(finished[0], f"run.output={output}")
    primed = {path: path.stat().st_mtime_ns for path in output.glob("priming/**/*") if path.is_file()}
    results = demo(config, arms=["none", "meta"], seeds=[0], jobs=1)
    assert results["arms"]["none"]["rates"] == mine
    for method, rate in mine.items():
        assert [r["training"]["lr"] for r in records(config, "none", 0, method)] == [rate, rate]
    assert {path: path.stat().st_mtime_ns for path in output.glob("priming/**/*") if path.is_file()} == primed

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    kept = json.loads((output / "results.json").read_text("utf-8"), parse_constant=refuse)
    assert kept == json.loads(json.dumps(results))
    for numbers in (kept["arms"]["meta"]["pfeiffer"]["lenient"], kept["contrasts"]["head"]["meta - none"]):
        assert isinstance(numbers["mean"], float)
        assert numbers["count"] == 1
        assert [numbers[key] for key in ("deviation", "low", "high")] == [None] * 3
    assert f"| {ARMS['meta'].title} |" in (output / "table.md").read_text("utf-8")


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
