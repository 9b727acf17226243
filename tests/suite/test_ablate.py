"""Suites in small: shared and failed cells, kills, changes, and sums against an independent reckoning."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats
from toy_config import TINY

from metaprime.cli import app as cli
from metaprime.reports.read import read_suite
from metaprime.reports.scores import contrasts_of
from metaprime.reports.summary import tables_of
from metaprime.suite import ablate as module
from metaprime.suite.ablate import ablate
from metaprime.suite.cells import Priming
from metaprime.suite.forecast import forecast
from metaprime.types import MetaprimeError

SUITE: dict[str, Any] = {
    "name": "tried",
    "base": "base.yaml",
    "seeds": "0-1",
    "arms": [
        {"name": "none", "title": "no priming", "priming": None},
        {"name": "meta", "title": "meta-priming"},
        {"name": "kept", "priming": "meta", "transfer": ["transfer.start_head=primed"]},
        {"name": "multitask", "set": ["learner.name=multitask"], "rate": 0.5},
    ],
    "contrasts": [["meta", "none"], ["kept", "meta"]],
    "matched": {"meta": "multitask"},
}
Write = Callable[..., Path]


@pytest.fixture(scope="session")
def write(toy_encoder: Callable[[str], Path]) -> Write:
    """`write(folder, seeds="0")`: a suite file that runs in `folder/runs`, changed so."""

    def make(folder: Path, **changes: Any) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / "base.yaml").write_text("{}", encoding="utf-8")
        own = [
            "transfer.methods=[pfeiffer, head]",
            "transfer.shots=[8, 30]",
            "transfer.lr=[0.03, 0.1]",
            "transfer.steps=30",
        ]
        place = [f"encoder.name={toy_encoder('bert')}", f"run.output={folder / 'runs'}"]
        values = SUITE | {"settings": {"toy": [*TINY, *own, *place]}} | changes
        if "arms" in changes:
            values["matched"] = {}
        file = folder / f"{values['name']}.yaml"
        file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        return file

    return make


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which cells ran, as `prime`, `rate` and `transfer`."""
    seen: list[str] = []

    def watched(name: str, work: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def run(cell: Any) -> Any:
            seen.append(name)
            return work(cell)

        return run

    for name, attribute in (("prime", "prime_one"), ("rate", "choose_one"), ("transfer", "transfer_one")):
        monkeypatch.setattr(module, attribute, watched(name, getattr(module, attribute)))
    return seen


@pytest.fixture(scope="module")
def finished(write: Write, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A suite file and its results; not to be changed."""
    file = write(tmp_path_factory.mktemp("suite") / "here")
    return file, ablate(file, jobs=1)


def lasting(results: dict[str, Any]) -> dict[str, Any]:
    """Results without times, places and the command."""
    kept = json.loads(json.dumps(results))
    del kept["command"], kept["config"]["run"]
    for arm in kept["arms"].values():
        if arm["facts"]:
            del arm["facts"]["seconds"]
    return dict(kept)


def cells_of(folder: Path) -> tuple[tuple[str, ...], dict[str, dict[str, str]]]:
    """Header of the table of scores, and by arm what stands in each column."""
    table = tables_of(read_suite(folder))[0]
    rows = [[f"{cell.text} {cell.note}".strip() for cell in row] for row in table.rows]
    return table.header, {row[0]: dict(zip(table.header, row, strict=True)) for row in rows}


def f1(folder: Path, results: dict[str, Any], **wanted: Any) -> list[float]:
    found = [one for one in results["records"] if all(one[key] == value for key, value in wanted.items())]
    records = [json.loads((folder / one["path"]).read_text("utf-8")) for one in found]
    return [record["scores"]["lenient"]["overall"]["f1"] for record in records]


def test_results_name_everything_that_was_made(finished: tuple[Path, dict[str, Any]]) -> None:
    file, results = finished
    folder = file.parent / "runs" / "tried"
    assert json.loads((folder / "results.json").read_text("utf-8")) == results
    assert (results["name"], results["setting"], results["seeds"]) == ("tried", "toy", [0, 1])
    # Arms, seeds, methods, K, languages.
    assert len(results["records"]) == 4 * 2 * 2 * 2 * 1
    for one in results["records"]:
        record = json.loads((folder / one["path"]).read_text("utf-8"))
        cell = record["cell"]
        assert (cell["language"], cell["method"], cell["shots"]) == (one["language"], one["method"], one["shots"])
        assert cell["transfer_seed"] == one["seed"]
        assert cell["priming_seed"] == (None if one["arm"] == "none" else one["seed"])
        assert record["training"]["lr"] == results["arms"][one["arm"]]["rates"][one["method"]]
    assert set(results["primings"]) == {"meta", "kept", "multitask"}
    for folders in results["primings"].values():
        assert all((folder / place / "metrics.jsonl").is_file() for place in folders.values())
    assert results["primings"]["kept"] == results["primings"]["meta"]
    assert results["arms"]["kept"]["priming"] == results["arms"]["meta"]["priming"]
    assert results["arms"]["none"]["facts"] is None
    assert results["titles"] == {"pfeiffer": "AT", "head": "HT"}
    simulated = {name: arm["simulates"] for name, arm in results["arms"].items()}
    assert simulated == {"none": None, "meta": "pfeiffer", "kept": "pfeiffer", "multitask": "full"}
    assert results["arms"]["meta"]["facts"]["sentence_passes"] == 2 * (2 * 2 + 4) * 4
    assert results["failed"] == []


def test_facts_hold_the_flops_of_all_steps_and_of_the_chosen(finished: tuple[Path, dict[str, Any]]) -> None:
    file, results = finished
    folder = file.parent / "runs" / "tried"
    for arm in ("meta", "kept", "multitask"):
        facts, all_steps, chosen = results["arms"][arm]["facts"], [], []
        for place, until in zip(results["primings"][arm].values(), facts["steps_chosen"], strict=True):
            lines = [json.loads(line) for line in (folder / place / "metrics.jsonl").read_text("utf-8").splitlines()]
            price = lines[1]["volatile"]["flops"] / lines[1]["subwords"]
            all_steps.append(price * sum(line["subwords"] for line in lines[1:]))
            chosen.append(price * sum(line["subwords"] for line in lines[1 : until + 1]))
        assert facts["flops"] == pytest.approx(np.mean(all_steps))
        assert facts["flops_chosen"] == pytest.approx(np.mean(chosen))
        assert 0 <= facts["flops_chosen"] <= facts["flops"]
    assert results["arms"]["kept"]["facts"] == results["arms"]["meta"]["facts"]


def test_the_table_has_compute_and_the_baseline_at_equal_compute(finished: tuple[Path, dict[str, Any]]) -> None:
    file, results = finished
    folder = file.parent / "runs" / "tried"
    header, cells = cells_of(folder)
    assert header[-4:] == ("at equal compute", "sentence passes", "GFLOP", "seconds")
    baseline = {
        (method, shots): f"{np.mean(f1(folder, results, arm='multitask', method=method, shots=shots)):.1f}"
        for method in ("pfeiffer", "head")
        for shots in (8, 30)
    }
    assert cells["meta-priming"]["at equal compute"] == (
        f"AT {baseline['pfeiffer', 8]} / {baseline['pfeiffer', 30]}, HT {baseline['head', 8]} / {baseline['head', 30]}"
    )
    assert {cells[title]["at equal compute"] for title in ("no priming", "kept", "multitask")} == {"–"}
    facts = results["arms"]["meta"]["facts"]
    assert cells["meta-priming"]["GFLOP"] == f"{facts['flops_chosen'] / 1e9:.3g} of {facts['flops'] / 1e9:.3g}"
    assert cells["no priming"]["GFLOP"] == "0"
    theirs = results["arms"]["multitask"]["facts"]
    told = f"FLOPs of “multitask” over those of “meta-priming”: {theirs['flops'] / facts['flops']:.2f} in all steps"
    assert told in (folder / "table.md").read_text("utf-8")


def test_a_run_from_before_flops_were_counted_has_none(write: Write, tmp_path: Path) -> None:
    file = write(tmp_path / "here", arms=SUITE["arms"][:2], contrasts=[], seeds="0")
    folder = file.parent / "runs" / "tried"
    metrics = folder / ablate(file, jobs=1)["primings"]["meta"]["0"] / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text("utf-8").splitlines()]
    for line in lines[1:]:
        del line["subwords"]
        line["volatile"].pop("flops", None)
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    results = ablate(file, jobs=1)
    facts = results["arms"]["meta"]["facts"]
    assert facts["flops"] is facts["flops_chosen"] is None
    header, cells = cells_of(folder)
    assert header[-3:] == ("sentence passes", "GFLOP", "seconds")
    assert [row["GFLOP"] for row in cells.values()] == ["0", "–"]


def test_means_and_contrasts_are_those_of_the_records(finished: tuple[Path, dict[str, Any]]) -> None:
    file, results = finished
    folder = file.parent / "runs" / "tried"
    suite = read_suite(folder)
    means = {}
    for arm in results["arms"]:
        for seed in (0, 1):
            means[arm, seed] = np.mean(f1(folder, results, arm=arm, seed=seed, method="pfeiffer", shots=30))
        assert suite.by_seed(arm, "pfeiffer", 30) == pytest.approx({seed: means[arm, seed] for seed in (0, 1)})
    contrasts = contrasts_of(suite)
    assert len(contrasts) == 2 * 2 * 2
    found = contrasts["meta", "none", "pfeiffer", 30]
    differences = [means["meta", s] - means["none", s] for s in (0, 1)]
    assert found.difference == pytest.approx(np.mean(differences))
    if np.std(differences):
        low, high = stats.ttest_1samp(differences, 0).confidence_interval(1 - 0.05 / 8)
        assert (found.corrected.low, found.corrected.high) == pytest.approx((low, high), rel=1e-6)
    table = (folder / "table.md").read_text("utf-8")
    for title in ("no priming", "meta-priming", "kept", "multitask"):
        assert f"| {title} |" in table
    assert table.count("| meta − none |") == 4


def test_nothing_is_repeated(finished: tuple[Path, dict[str, Any]], calls: list[str]) -> None:
    again = ablate(finished[0], jobs=1)
    assert calls == []
    assert again == finished[1] | {"command": again["command"]}


def test_another_suite_takes_the_cells_that_it_shares(
    finished: tuple[Path, dict[str, Any]], write: Write, calls: list[str]
) -> None:
    arms = [SUITE["arms"][0], SUITE["arms"][1], {"name": "short", "set": ["inner.steps=1"]}]
    other = write(finished[0].parent, name="other", arms=arms, contrasts=[], seeds="1")
    results = ablate(other, ["data.target_languages=[qai, qao]"], jobs=1)
    # That of the arm short with seed 1.
    assert calls.count("prime") == 1
    # The rates were chosen with seed 0 there: here, seed 1 is the first.
    assert calls.count("rate") == 3 * 2
    assert results["primings"]["meta"]["1"] == finished[1]["primings"]["meta"]["1"]
    assert len(results["records"]) == 3 * 2 * 2 * 2
    wanted = {one["path"] for one in finished[1]["records"] if (one["arm"], one["seed"]) == ("none", 1)}
    if results["arms"]["none"]["rates"] == finished[1]["arms"]["none"]["rates"]:
        assert wanted < {one["path"] for one in results["records"]}


def test_a_dry_run_counts_and_runs_nothing(
    finished: tuple[Path, dict[str, Any]], write: Write, tmp_path: Path, calls: list[str]
) -> None:
    fresh = write(tmp_path / "fresh")
    found = forecast(fresh)
    assert {kind: (count.cells, count.done) for kind, count in found.counts.items()} == {
        "priming": (4, 0),
        "rates": (8, 0),
        "transfer": (32, 0),
    }
    assert found.seconds is None
    assert "unknown" in found.lines(2)[-1]
    assert not (tmp_path / "fresh" / "runs").exists()
    done = forecast(finished[0])
    assert all(count.cells == count.done for count in done.counts.values())
    assert done.seconds == 0
    more = forecast(finished[0], ["seeds=0-2"], jobs=1)
    assert {kind: count.cells - count.done for kind, count in more.counts.items()} == {
        "priming": 2,
        "rates": 0,
        "transfer": 16,
    }
    assert more.seconds is not None
    assert 0 < more.seconds < 600
    assert calls == []


def test_a_failed_cell_is_listed_and_the_rest_is_done(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = module.prime_one

    def failing(cell: Priming) -> Any:
        if cell.config.learner.name == "multitask" and cell.seed == 1:
            raise ZeroDivisionError("the sky fell")
        return real(cell)

    monkeypatch.setattr(module, "prime_one", failing)
    file = write(tmp_path / "here")
    monkeypatch.setattr(sys, "argv", ["metaprime", "ablate", str(file), "--jobs", "1"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    said = "arm multitask, seed 1: ZeroDivisionError: the sky fell"
    assert f"failed: {said}" in capsys.readouterr().err
    folder = tmp_path / "here" / "runs" / "tried"
    results = json.loads((folder / "results.json").read_text("utf-8"))
    assert results["failed"] == [{"arm": "multitask", "seed": 1, "error": "ZeroDivisionError: the sky fell"}]
    assert {(one["arm"], one["seed"]) for one in results["records"]} == {
        (arm, seed) for arm in results["arms"] for seed in (0, 1) if (arm, seed) != ("multitask", 1)
    }
    assert said in (folder / "table.md").read_text("utf-8")
    monkeypatch.setattr(module, "prime_one", real)
    assert ablate(file, jobs=1)["failed"] == []


def test_an_arm_whose_rate_cannot_be_chosen_fails_alone(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(cell: Any) -> Any:
        raise MetaprimeError("no rate today")

    monkeypatch.setattr(module, "choose_one", failing)
    results = ablate(
        write(tmp_path / "here"),
        ["seeds=0-1", "arms=[{name: none, priming: null}]", "contrasts=[]", "matched={}"],
        jobs=1,
    )
    assert [(one["seed"], one["error"]) for one in results["failed"]] == [
        (0, "no rate today"),
        (1, "no rate was chosen: see seed 0"),
    ]


def test_with_one_rate_a_failed_first_seed_takes_no_other_with_it(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.prime_one

    def failing(cell: Priming) -> Any:
        if cell.seed == 0:
            raise MetaprimeError("not today")
        return real(cell)

    monkeypatch.setattr(module, "prime_one", failing)
    file = write(tmp_path / "here", arms=SUITE["arms"][:2], contrasts=[["meta", "none"]])
    results = ablate(file, ["transfer.lr=0.1"], jobs=1)
    assert [(one["arm"], one["seed"], one["error"]) for one in results["failed"]] == [("meta", 0, "not today")]
    assert {one["seed"] for one in results["records"] if one["arm"] == "meta"} == {1}


def test_a_damaged_record_is_named_and_made_again_once_removed(write: Write, tmp_path: Path) -> None:
    file = write(tmp_path / "here", arms=[SUITE["arms"][0]], contrasts=[], seeds="0")
    results = ablate(file, jobs=1)
    record = file.parent / "runs" / "tried" / results["records"][0]["path"]
    content = json.loads(record.read_text("utf-8"))
    record.write_text("{", encoding="utf-8")
    results = ablate(file, jobs=1)
    (failure,) = results["failed"]
    assert f"{record.parent.name}/record.json cannot be read" in failure["error"]
    assert {one["method"] for one in results["records"]} == {"head"}
    for left in record.parent.iterdir():
        left.unlink()
    record.parent.rmdir()
    assert ablate(file, jobs=1)["failed"] == []
    again = json.loads(record.read_text("utf-8"))
    assert {**again, "volatile": None} == {**content, "volatile": None}


def test_a_changed_suite_is_refused_with_the_difference(
    finished: tuple[Path, dict[str, Any]], write: Write, calls: list[str]
) -> None:
    file = finished[0]
    before = (file.parent / "runs" / "tried" / "results.json").read_bytes()
    with pytest.raises(MetaprimeError, match=r"started with another definition(.|\n)*\ninner\.lr: 0\.3 -> 0\.4$"):
        ablate(file, ["inner.lr=0.4"], jobs=1)
    with pytest.raises(MetaprimeError, match=r"inner\.lr"):
        forecast(file, ["inner.lr=0.4"])
    # What is compared may change.
    forecast(file, ["contrasts=[]", "matched={}"])
    changed = json.dumps([{"name": "none", "priming": None}, {"name": "meta", "set": ["inner.steps=3"]}])
    with pytest.raises(MetaprimeError, match=r"suite\.arms\.meta\.set: \[\] -> \[\"inner.steps=3\"\]"):
        ablate(file, [f"arms={changed}", "contrasts=[]", "matched={}"], jobs=1)
    assert (file.parent / "runs" / "tried" / "results.json").read_bytes() == before
    assert calls == []


def test_overwrite_replaces_the_record_and_keeps_the_cells(write: Write, tmp_path: Path, calls: list[str]) -> None:
    few = {"arms": [SUITE["arms"][1]], "contrasts": [], "seeds": "0"}
    file = write(tmp_path / "here", **few)
    ablate(file, jobs=1)
    assert calls.count("prime") == 1
    calls.clear()
    more = write(tmp_path / "here", **few | {"arms": SUITE["arms"][:2]})
    with pytest.raises(MetaprimeError, match=r"suite\.arms\.none"):
        ablate(more, jobs=1)
    results = ablate(more, jobs=1, overwrite=True)
    assert set(results["arms"]) == {"none", "meta"}
    assert "prime" not in calls


def test_a_foreign_folder_is_left_alone(write: Write, tmp_path: Path) -> None:
    file = write(tmp_path / "here")
    thesis = tmp_path / "here" / "runs" / "tried" / "thesis.tex"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years of work", encoding="utf-8")
    with pytest.raises(MetaprimeError, match="holds files but no suite"):
        ablate(file, jobs=1, overwrite=True)
    assert thesis.is_file()


def test_another_encoder_under_the_same_name_is_noticed(write: Write, tmp_path: Path, changed_toy: Any) -> None:
    toy = changed_toy("bert")
    one = write(tmp_path / "here", arms=[SUITE["arms"][1]], contrasts=[], seeds="0")
    place = [f"encoder.name={toy}", "transfer.methods=[head]"]
    ablate(one, place, jobs=1)
    changed_toy("bert", initializer_range=0.1)
    with pytest.raises(MetaprimeError, match=r"weights of encoder\.name"):
        ablate(one, place, jobs=1)
    other = write(tmp_path / "here", name="other", arms=[SUITE["arms"][1]], contrasts=[], seeds="0")
    (failure,) = ablate(other, place, jobs=1)["failed"]
    assert "was primed from weights" in failure["error"]


@pytest.mark.parametrize("stage", ["priming/*/seed*/state/step-*", "transfer/*/seed*/transfer/*/*/record.json"])
def test_killed_and_gone_on_with_ends_where_the_unbroken_suite_does(
    finished: tuple[Path, dict[str, Any]], write: Write, tmp_path: Path, stage: str
) -> None:
    file = write(tmp_path / "here")
    log = (tmp_path / "log").open("w")
    command = [sys.executable, "-m", "metaprime", "ablate", str(file), "--jobs", "2"]
    started = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    runs = tmp_path / "here" / "runs"
    while not list(runs.glob(stage)):
        assert started.poll() is None, (tmp_path / "log").read_text("utf-8")
        time.sleep(0.02)
    started.send_signal(signal.SIGKILL)
    started.wait()
    log.close()
    assert not (runs / "tried" / "table.md").exists()
    # Its workers end when they see that it is gone.
    time.sleep(1)
    results = ablate(file, jobs=1)
    assert lasting(results) == lasting(finished[1])
    for mine, theirs in zip(results["records"], finished[1]["records"], strict=True):
        one, other = (
            json.loads((place / "tried" / entry["path"]).read_text("utf-8"))
            for place, entry in ((runs, mine), (finished[0].parent / "runs", theirs))
        )
        assert one["scores"] == other["scores"]
        assert one["training"] == other["training"]


def test_arms_with_methods_of_their_own_share_a_column(write: Write, tmp_path: Path, calls: list[str]) -> None:
    methods = {"four": "[{method: lora, rank: 4}, head]", "two": "[{method: lora, rank: 2}, head]"}
    arms = [{"name": name, "priming": None, "transfer": [f"transfer.methods={text}"]} for name, text in methods.items()]
    file = write(tmp_path / "here", arms=arms, contrasts=[["four", "two"]], seeds="0")
    results = ablate(file, ["transfer.shots=[8]"], jobs=1)
    folder = file.parent / "runs" / "tried"
    assert results["failed"] == []
    assert (results["methods"], results["titles"]) == (["own", "head"], {"head": "HT"})
    assert results["arms"]["four"]["methods"] == ["lora-rank4", "head"]
    assert results["arms"]["two"]["methods"] == ["lora-rank2", "head"]
    assert all(set(arm["rates"]) == {"own", "head"} for arm in results["arms"].values())
    made = {}
    for one in results["records"]:
        record = json.loads((folder / one["path"]).read_text("utf-8"))
        made[one["arm"], one["method"]] = record["cell"]["method"], record["config"]["peft"].get("rank")
        assert record["training"]["lr"] == results["arms"][one["arm"]]["rates"][one["method"]]
    assert {place: method for place, (method, _) in made.items()} == {
        ("four", "own"): "lora-rank4",
        ("two", "own"): "lora-rank2",
        ("four", "head"): "head",
        ("two", "head"): "head",
    }
    assert (made["four", "own"][1], made["two", "own"][1]) == (4, 2)
    header, cells = cells_of(folder)
    assert header[:3] == ("arm", "own", "HT")
    # The two arms share what they have in common: one choice of a rate, one transfer.
    assert (calls.count("rate"), calls.count("transfer")) == (3, 3)
    assert cells["four"]["HT"] == cells["two"]["HT"]
    assert set(contrasts_of(read_suite(folder))) == {("four", "two", "own", 8), ("four", "two", "head", 8)}
    assert ablate(file, ["transfer.shots=[8]"], jobs=1)["records"] == results["records"]
    assert (calls.count("rate"), calls.count("transfer")) == (3, 3)
