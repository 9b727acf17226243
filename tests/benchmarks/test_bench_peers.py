"""The benchmark beside scripts of transformers' Trainer: equal sentences, scores that are right, ratios on the page."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench_peers
import datasets
import pytest
import trainer
import trainer_peft
from bench_peers import Side, Work
from processes import Measured, Program
from seqeval.metrics import f1_score
from torch import nn

from metaprime.cli.app import app
from metaprime.config.loading import override
from metaprime.data.rows import Row
from metaprime.transfers import transfer as transfers

# Trainer, peft and datasets warn of one another's changes.
pytestmark = pytest.mark.filterwarnings("ignore")

CELLS = [("qai", 0), ("qao", 0)]
KEYS = (
    "data.target_languages=[qai,qao]",
    "transfer.seeds=[0]",
    "transfer.shots=8",
    "transfer.batch=4",
    "transfer.steps=2",
    "transfer.test_sentences=10",
    # So short that words are cut away.
    "data.max_length=12",
)
SCRIPT = Side("the script", bench_peers.PEFT, bench_peers.METHODS[0], dropout=True)
OURS = Side("ours", bench_peers.TRANSFER, bench_peers.METHODS[0])


@pytest.fixture
def work(toy_bert: Path, tmp_path: Path) -> Work:
    return bench_peers.prepare([f"transfer.encoder={toy_bert}", *KEYS], tmp_path)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_the_script_fine_tunes_and_scores_every_cell(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, file = tmp_path / "output", tmp_path / "job.json"
    output.mkdir()
    file.write_text(json.dumps(bench_peers.job_of(work, SCRIPT, output)), encoding="utf-8")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["", str(file)])
    trainer_peft.main()

    scores = bench_peers.theirs_of(output)
    assert list(scores) == ["qai-s0", "qao-s0"]
    cut = 0
    for cell, score in scores.items():
        assert (output / cell / "adapter_model.safetensors").is_file()
        tests = lines(work.sentences / f"{cell.partition('-')[0]}-test.jsonl")
        predicted = [line["predicted"] for line in lines(output / cell / "predictions.jsonl")]
        gold = [line["ner_tags"] for line in tests]
        assert [len(tags) for tags in predicted] == [len(line["tokens"]) for line in tests]
        assert score == pytest.approx(100 * f1_score(gold, predicted, zero_division=0))
        # At most ten words fit beside the two special tokens; the rest is O.
        assert all(tag == "O" for tags in predicted for tag in tags[10:])
        cut += sum(len(tags) > 10 for tags in predicted)
        # Untrained heads answer something.
        assert any(tag != "O" for tags in predicted for tag in tags)
    assert cut


def test_both_sides_train_on_and_score_the_same_sentences(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: dict[tuple[str, int], Sequence[Row]] = {}
    k_shot_run = transfers.k_shot_run

    def noted(context: Any, rows: Sequence[Row], seed: int, language: str) -> Any:
        trained[language, seed] = rows
        return k_shot_run(context, rows, seed, language)

    monkeypatch.setattr(transfers, "k_shot_run", noted)
    transfers.transfer(override(work.config, f"run.output={tmp_path / 'run'}", "transfer.methods=[lora]"), quiet=True)
    assert list(trained) == list(work.cells) == CELLS
    for (language, seed), rows in trained.items():
        given = lines(work.sentences / f"{language}-s{seed}.jsonl")
        assert [(tuple(one["tokens"]), tuple(one["ner_tags"])) for one in given] == [
            (row.example.words, row.example.gold) for row in rows
        ]
        (scored,) = (tmp_path / "run").glob(f"transfer/*/{language}-*-s{seed}/predictions.jsonl")
        tests = lines(work.sentences / f"{language}-test.jsonl")
        assert [(one["tokens"], one["ner_tags"]) for one in tests] == [
            (one["words"], one["gold"]) for one in lines(scored)
        ]
    assert bench_peers.ours_of(work, tmp_path / "run").keys() == {"qai-s0", "qao-s0"}


def test_metaprime_runs_with_the_keys_that_the_script_has(
    toy_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_this_process(program: Program, arguments: Sequence[str], **options: Any) -> Measured:
        # Paths of the command line are relative to where the benchmark was started.
        assert options.keys() == {"environment"}
        app(list(arguments), standalone_mode=False)
        return Measured(imports=1.0, cpu=3.0, clock=4.0, peak=500.0, output="")

    monkeypatch.chdir(toy_bert.parent)
    monkeypatch.setattr(bench_peers, "run_measured", in_this_process)
    work = bench_peers.prepare([f"transfer.encoder={toy_bert.name}", *KEYS], tmp_path)
    measured = bench_peers.measure(work, OURS, tmp_path / "own")
    assert measured.pop("f1").keys() == {"qai-s0", "qao-s0"}
    assert measured == {"cpu": 3.0, "clock": 4.0, "peak": 500.0, "imports": 1.0}
    (file,) = (tmp_path / "own").glob("run/transfer/*/qai-*/record.json")
    config, job = json.loads(file.read_text("utf-8"))["config"], bench_peers.job_of(work, SCRIPT, tmp_path)
    assert (
        config["peft"].items() >= {"method": "lora", "rank": job["rank"], "alpha": job["alpha"], "dropout": 0.0}.items()
    )
    settings = {key: job[key] for key in ("steps", "batch", "warmup", "clip")} | {"lr": [job["lr"]], "head_lr": None}
    assert config["transfer"].items() >= settings.items()
    assert (config["data"]["max_length"], config["data"]["long"]) == (job["max_length"], "truncate")


def test_the_script_trains_as_many_weights_with_dropout_or_without(work: Work, tmp_path: Path) -> None:
    for dropout in (True, False):
        job = trainer.Job(**bench_peers.job_of(work, replace(SCRIPT, dropout=dropout), tmp_path))
        model = trainer_peft.with_lora(trainer.new_model(job), job)
        # 2 layers, queries and values of width 32, A and B of rank 8; 7 tags.
        sizes = {"lora": 2 * 2 * 2 * 8 * 32, "head": 7 * 32 + 7}
        assert sum(value.numel() for value in model.parameters() if value.requires_grad) == sum(sizes.values())
        rates = {module.p for module in model.modules() if isinstance(module, nn.Dropout)}
        assert rates == ({0.1} if dropout else {0.0})


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("transfer.stop=development", "transfer.stop must be 'fixed'"),
        ("transfer.shots=[8,16]", "transfer.shots must have one value"),
        ("encoder.precision=bfloat16", "encoder.precision must be 'float32'"),
    ],
)
def test_what_the_scripts_cannot_do_is_refused(key: str, message: str, toy_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=message):
        bench_peers.prepare([f"transfer.encoder={toy_bert}", *KEYS, key], tmp_path)


def cost(cpu: float, imports: float, clock: float, peak: float, *f1: float) -> dict[str, Any]:
    scores = {f"qai-s{seed}": score for seed, score in enumerate(f1)}
    return {"cpu": cpu, "imports": imports, "clock": clock, "peak": peak, "f1": scores}


def test_ratios_are_of_the_same_round_and_stand_on_the_page() -> None:
    ours = [cost(10, 5, 20, 500, 40, 60), cost(20, 5, 10, 500, 40, 60), cost(10, 5, 10, 500, 40, 60)]
    theirs = [cost(20, 10, 20, 600, 30, 40), cost(60, 15, 20, 600, 30, 40), cost(15, 5, 20, 600, 30, 40)]
    result = {
        "command": "python bench_peers.py",
        "work": "some work",
        "machine": {"device": "a processor", "versions": {"python": "3"}},
        "adapterhub": "",
        "skipped": "no environment",
        "found": {"ours": ours, "the script": theirs},
    }
    page = bench_peers.as_markdown(result, [OURS, SCRIPT])
    # By round 2, 3, 1.5 of all CPU seconds; 2, 3, 2 without imports; 1, 2, 2 of the clock.
    cells = (
        "2.00 [1.75, 2.50]",
        "2.00 [2.00, 2.50]",
        "2.00 [1.50, 2.00]",
        "1.20 [1.20, 1.20]",
        "35.0 ± 7.1",
        "50.0 ± 14.1",
    )
    assert f"| the script | {' | '.join(cells)} |" in page
    assert "AdapterHub was not measured: no environment" in page


def test_an_environment_without_adapterhub_is_a_reason_to_skip_it(tmp_path: Path) -> None:
    assert bench_peers.environment_of(str(tmp_path / "python")) == ("", "python: No such file or directory")
    assert bench_peers.environment_of(sys.executable) == ("", "ModuleNotFoundError: No module named 'adapters'")
    assert not [side for side in bench_peers.sides(None) if "Adapter" in side.name]


def test_every_script_has_metaprime_beside_it_with_the_same_method() -> None:
    lora, pfeiffer = bench_peers.METHODS
    chosen = [(side.method, side.dropout) for side in bench_peers.sides("env/bin/python")]
    assert chosen == [(lora, None), (lora, True), (lora, False), (pfeiffer, None), (pfeiffer, True), (pfeiffer, False)]
    assert [side.dropout for side in bench_peers.sides("env/bin/python", "off")] == [None, False, None, False]
    (theirs,) = [side for side in bench_peers.sides("env/bin/python", "on") if side.name.startswith("AdapterTrainer")]
    assert theirs.program.python == str(Path.cwd() / "env/bin/python")


def test_no_folder_of_a_machine_is_on_the_page() -> None:
    words = {
        "data.source=parquet:/data/masakhaner2": "data.source=parquet:masakhaner2",
        "transfer.encoder=/models/minilm/": "transfer.encoder=minilm/",
        "benchmarks/bench_peers.py": "benchmarks/bench_peers.py",
        "task.labels=[PER,ORG]": "task.labels=[PER,ORG]",
    }
    assert {word: bench_peers.without_folders(word) for word in words} == words
