"""Transfer end to end on a toy: records, starts, rates, stopping, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toy_transfers import elsewhere, transferred, tree

from metaprime.config.loading import override
from metaprime.config.sections import Config
from metaprime.reports.wording import transfer_table
from metaprime.runs.records import comparable, read_record
from metaprime.tasks import TASKS
from metaprime.transfers import stacked
from metaprime.transfers.predict import load
from metaprime.transfers.transfer import TransferResult, transfer
from metaprime.types import MetaprimeError

ALL = ("pfeiffer", "prefix", "lora", "head", "full", "mam", "ia3", "bitfit")
"""One of every family."""


@pytest.fixture(scope="module")
def finished(primed_run: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, list[dict[str, Any]]]:
    """A method of every family, two seeds, two K, on one language; output not to be changed."""
    output = tmp_path_factory.mktemp("transfer") / "run"
    config = elsewhere(
        primed_run,
        output,
        f"transfer.methods={json.dumps(ALL)}",
        "transfer.seeds=[0, 1]",
        "transfer.shots=[4, 8]",
        "transfer.lr=0.02",
    )
    return config, transferred(config)


def test_a_record_for_every_cell_in_order(finished: tuple[Config, list[dict[str, Any]]]) -> None:
    config, records = finished
    cells = [
        (r["cell"]["method"], r["cell"]["shots"], r["cell"]["language"], r["cell"]["transfer_seed"]) for r in records
    ]
    assert cells == [(m, k, "qai", s) for m in ALL for k in (4, 8) for s in (0, 1)]
    root = Path(config.run.output) / "transfer" / "primed"
    folders = {f"qai-{method}-k{shots}-s{seed}" for method, shots, _, seed in cells}
    assert {path.name for path in root.iterdir()} == folders
    for record, (method, shots, _, seed) in zip(records, cells, strict=True):
        assert record == read_record(root / f"qai-{method}-k{shots}-s{seed}" / "record.json")
        assert set(record) == {
            *(
                "cell",
                "scores",
                "training",
                "frozen",
                "parameters",
                "digest",
                "peft",
                "config",
                "versions",
                "weights",
                "sentences",
                "volatile",
            )
        }
        assert record["cell"]["encoder"] == "primed"
        assert record["cell"]["priming_seed"] == 0
        assert record["training"]["sentences"] == shots
        assert (record["training"]["steps"], record["training"]["lr"]) == (4, 0.02)
        assert record["training"]["flops"] > 1e6
        assert record["peft"]["method"] == method
        assert set(record["scores"]) == {"sentences", "lenient", "strict"}
        assert record["scores"]["sentences"] == 20
        for reading in ("lenient", "strict"):
            overall, types = record["scores"][reading]["overall"], record["scores"][reading]["types"]
            assert set(overall) == {"precision", "recall", "f1", "entities"}
            assert {"PER", "ORG", "LOC"} >= set(types)
            assert sum(row["entities"] for row in types.values()) == overall["entities"] > 0


def test_a_result_says_what_its_record_does(finished: tuple[Config, list[dict[str, Any]]]) -> None:
    config, records = finished
    results = transfer(config, quiet=True)
    assert [result.record for result in results] == records
    for result in results:
        cell = result.record["cell"]
        assert (result.language, result.method, result.shots) == (cell["language"], cell["method"], cell["shots"])
        assert result.seed == cell["transfer_seed"]
        assert result.scores == result.record["scores"]
        assert result.f1 == result.score == result.scores["lenient"]["overall"]["f1"]
        assert read_record(result.path / "record.json") == result.record


def test_a_task_without_f1_says_so(tmp_path: Path) -> None:
    result = TransferResult("qai", "head", 8, 0, 50.0, tmp_path, {"scores": {"accuracy": 50.0}})
    with pytest.raises(AttributeError, match=r"use \.score or \.scores"):
        _ = result.f1
    assert (result.score, result.scores) == (50.0, {"accuracy": 50.0})


def test_methods_may_be_names_or_mappings(primed_run: Config, tmp_path: Path) -> None:
    """A name has the settings of the section `peft` if that is its method, else its defaults; a mapping has its own."""
    methods = "transfer.methods=[pfeiffer, lora, {method: lora, rank: 2}, {method: pfeiffer, bottleneck: 3}]"
    config = elsewhere(primed_run, tmp_path / "run", methods, "transfer.lr=0.02")
    records = {record["cell"]["method"]: record for record in transferred(config)}
    assert list(records) == ["pfeiffer", "lora", "lora-rank2", "pfeiffer-bottleneck3"]
    assert [record["peft"].get("bottleneck", record["peft"].get("rank")) for record in records.values()] == [4, 8, 2, 3]
    sizes = {label: record["parameters"]["adapter"] for label, record in records.items()}
    assert sizes["lora"] == 4 * sizes["lora-rank2"]
    for record in records.values():
        folder = f"qai-{record['cell']['method']}-k8-s0"
        assert (tmp_path / "run" / "transfer" / "primed" / folder / "metaprime.safetensors").is_file()
    before = tree(tmp_path)
    assert {record["cell"]["method"]: record for record in transferred(config)} == records
    assert tree(tmp_path) == before
    # The section peft is none of a mapping's business.
    other = override(config, "peft.bottleneck=6", "transfer.methods=[{method: lora, rank: 2}]")
    assert transferred(other) == [records["lora-rank2"]]
    with pytest.raises(MetaprimeError, match=r"peft\.bottleneck: 4 -> 6"):
        transferred(override(config, "peft.bottleneck=6"))


def test_theta_is_proven_frozen_by_hash_and_full_fine_tuning_moves_it(
    finished: tuple[Config, list[dict[str, Any]]],
) -> None:
    _, records = finished
    assert len({record["frozen"]["before"] for record in records}) == 1
    for record in records:
        frozen = record["frozen"]
        full = record["cell"]["method"] == "full"
        assert frozen["unchanged"] == (not full)
        assert (frozen["before"] == frozen["after"]) == (not full)


def test_a_cell_holds_what_its_method_moved_and_nothing_else(finished: tuple[Config, list[dict[str, Any]]]) -> None:
    root = Path(finished[0].run.output) / "transfer" / "primed"
    for method in ALL:
        cell = root / f"qai-{method}-k8-s0"
        values = load_file(cell / "metaprime.safetensors")
        groups = {name.split(".")[0] for name in values}
        assert groups == ({"head"} if method in ("head", "full") else {"adapter", "head"})
        assert (cell / "encoder").is_dir() == (method == "full")


def test_windows_are_those_of_the_cells_own_method(primed_run: Config, tmp_path: Path) -> None:
    """What else is asked for changes no record: a prompt takes positions away from nobody but itself."""
    keys = ("data.max_length=128", "transfer.shots=4", "transfer.lr=0.02", "peft={method: prompt, length: 100}")
    alone = elsewhere(primed_run, tmp_path / "alone", *keys, "transfer.methods=[head]")
    beside = elsewhere(primed_run, tmp_path / "beside", *keys, "transfer.methods=[prompt, head]")
    (one,), (prompted, two) = transferred(alone, quiet=True), transferred(beside, quiet=True)
    assert prompted["cell"]["method"] == "prompt"
    assert strip(one)["scores"] == strip(two)["scores"]
    files = [
        Path(c.run.output) / "transfer" / "primed" / "qai-head-k4-s0" / "metaprime.safetensors" for c in (alone, beside)
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_what_moves_more_costs_more(finished: tuple[Config, list[dict[str, Any]]]) -> None:
    flops = {r["cell"]["method"]: r["training"]["flops"] for r in finished[1] if r["cell"]["shots"] == 8}
    assert flops["head"] < flops["pfeiffer"] < flops["full"]


def test_predictions_stand_beside_words_and_gold(finished: tuple[Config, list[dict[str, Any]]]) -> None:
    cell = Path(finished[0].run.output) / "transfer" / "primed" / "qai-pfeiffer-k8-s0"
    lines = [json.loads(line) for line in (cell / "predictions.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == 20
    assert all(len(line["words"]) == len(line["gold"]) == len(line["predicted"]) > 0 for line in lines)


def strip(record: dict[str, Any]) -> dict[str, Any]:
    """What must be equal: not where the run is kept, nor which other cells were asked for."""
    used = comparable(record)["config"]
    asked = {key: value for key, value in used["transfer"].items() if key not in ("methods", "seeds", "shots")}
    return {**comparable(record), "config": {**used, "run": {**used["run"], "output": ""}, "transfer": asked}}


def test_two_equal_runs_differ_in_the_volatile_block_only(
    finished: tuple[Config, list[dict[str, Any]]], tmp_path: Path
) -> None:
    config, records = finished
    again = override(config, f"run.output={tmp_path / 'again'}", "transfer.shots=[8]")
    repeated = {r["cell"]["method"]: r for r in transferred(again) if r["cell"]["transfer_seed"] == 1}
    chosen = [r for r in records if (r["cell"]["shots"], r["cell"]["transfer_seed"]) == (8, 1)]
    assert len(chosen) == len(ALL)
    for record in chosen:
        method = record["cell"]["method"]
        other = repeated[method]
        assert other["volatile"] != record["volatile"]
        # Which other cells were asked for is no property of it, but for those that it shared its passes with.
        assert strip(other) == strip(record)
        for name in ("predictions.jsonl", "metaprime.safetensors"):
            both = [
                Path(where.run.output) / "transfer" / "primed" / f"qai-{method}-k8-s1" / name
                for where in (config, again)
            ]
            assert both[0].read_bytes() == both[1].read_bytes(), (method, name)


def test_runs_that_shared_their_passes_end_as_they_do_alone(
    finished: tuple[Config, list[dict[str, Any]]], tmp_path: Path
) -> None:
    config, records = finished
    alone = transferred(
        override(config, f"run.output={tmp_path / 'alone'}", "transfer.seeds=[1]", "transfer.shots=[8]")
    )
    beside = [r for r in records if (r["cell"]["shots"], r["cell"]["transfer_seed"]) == (8, 1)]
    assert not any(record["training"]["beside"] for record in alone)
    neighbours = {record["cell"]["method"]: record["training"]["beside"] for record in beside}
    assert neighbours["pfeiffer"] == ["qai-pfeiffer-k8-s0"]
    assert neighbours["full"] == neighbours["head"] == []
    for one, other in zip(alone, beside, strict=True):
        assert one["digest"] == other["digest"]
        assert one["training"]["last_loss"] == pytest.approx(other["training"]["last_loss"], rel=1e-3)
        # They differ by the neighbours' padding.
        assert one["training"]["flops"] == pytest.approx(other["training"]["flops"], rel=0.5)


@pytest.mark.parametrize("most", [1024, 3 * 4 * 12])
def test_cells_that_are_made_again_are_made_beside_their_neighbours(
    primed_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """To the last bit, whichever are there already; also where all five could not share a pass, but the lost ones could."""
    monkeypatch.setattr(stacked, "CPU_SUBWORDS", most)
    wanted = ("transfer.methods=[pfeiffer]", "transfer.seeds=[0, 1, 2, 3, 4]", "transfer.batch=4", "transfer.lr=0.02")
    config = elsewhere(primed_run, tmp_path / "run", *wanted)
    whole = transferred(config)
    sizes = {len(record["training"]["beside"]) for record in whole}
    assert sizes == {4} if most == 1024 else max(sizes) < 4
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "run", again)
    lost = ["qai-pfeiffer-k8-s1", "qai-pfeiffer-k8-s3", "qai-pfeiffer-k8-s4"]
    for name in lost:
        shutil.rmtree(again / "transfer" / "primed" / name)
    transferred(override(config, f"run.output={again}"))
    for name in lost:
        one, other = (folder / "transfer" / "primed" / name for folder in (tmp_path / "run", again))
        for file in ("predictions.jsonl", "metaprime.safetensors"):
            assert (one / file).read_bytes() == (other / file).read_bytes()
        assert strip(read_record(one / "record.json")) == strip(read_record(other / "record.json"))


def test_seeds_draw_other_sentences(finished: tuple[Config, list[dict[str, Any]]]) -> None:
    losses = [r["training"]["last_loss"] for r in finished[1] if r["cell"]["method"] == "head"]
    assert len(set(losses)) == 4


def test_what_is_finished_is_not_repeated(primed_run: Config, tmp_path: Path) -> None:
    config = elsewhere(primed_run, tmp_path / "run", "transfer.methods=[head]")
    transferred(config)
    before = tree(tmp_path)
    assert transferred(config) == transferred(config)
    assert tree(tmp_path) == before
    more = override(config, "transfer.seeds=[0, 1]", "transfer.methods=[head, lora]")
    assert len(transferred(more)) == 4
    assert {name: value for name, value in tree(tmp_path).items() if name in before} == before
    cell = tmp_path / "run" / "transfer" / "primed" / "qai-head-k8-s1"
    for path in sorted(cell.iterdir()):
        path.unlink()
    cell.rmdir()
    transferred(more)
    assert (cell / "record.json").is_file()
    assert {name: value for name, value in tree(tmp_path).items() if name in before} == before


def test_stopping_on_a_development_split(primed_run: Config, tmp_path: Path) -> None:
    config = elsewhere(
        primed_run,
        tmp_path / "run",
        *("transfer.stop=development", "transfer.steps=6", "transfer.evaluate_every=2", "transfer.methods=[head]"),
    )
    (record,) = transferred(config)
    assert record["training"]["steps"] in (2, 4, 6)
    # The development sentences are counted in.
    assert record["training"]["sentences"] == 8


def test_an_impossible_development_split_is_told_before_any_cell(primed_run: Config, tmp_path: Path) -> None:
    config = elsewhere(primed_run, tmp_path / "run", "transfer.stop=development", "transfer.shots=[8, 2]")
    with pytest.raises(MetaprimeError, match=r"development_share 0\.2 of 2 sentences"):
        transferred(config)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_names_the_language(primed_run: Config, tmp_path: Path) -> None:
    with pytest.raises(MetaprimeError, match=r"language 'qai': the loss is .*lower transfer\.lr"):
        transferred(elsewhere(primed_run, tmp_path / "run", "transfer.lr=1e30", "transfer.methods=[pfeiffer]"))
    assert not (tmp_path / "run").exists()


def test_no_target_language_is_refused(primed_run: Config, tmp_path: Path) -> None:
    with pytest.raises(MetaprimeError, match=r"data\.target_languages is empty"):
        transferred(elsewhere(primed_run, tmp_path / "run", "data.target_languages=[]"))


def test_an_output_that_is_a_file_is_refused(primed_run: Config, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(MetaprimeError, match="is a file; choose another"):
        transferred(elsewhere(primed_run, tmp_path / "run"))


PRIMED = ("transfer.start_adapter=primed", "transfer.start_head=primed")


def test_no_sentence_scores_what_was_primed(primed_run: Config, tmp_path: Path) -> None:
    config = elsewhere(primed_run, tmp_path / "run", *PRIMED, "transfer.shots=[0, 8]", "transfer.methods=[pfeiffer]")
    config = override(config, "transfer.seeds=[0, 1]", "transfer.lr=[0.02, 0.03]")
    results = transfer(config)
    assert [(result.shots, result.seed) for result in results] == [(0, 0), (0, 1), (8, 0), (8, 1)]
    zero, other, eight, _ = results

    # The primed encoder itself predicts the same, and the cell holds its values.
    primed = Path(primed_run.run.output) / "primed"
    lines = [json.loads(line) for line in (zero.path / "predictions.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == 20
    pairs = load(primed).predict([line["words"] for line in lines])
    assert [[tag for _, tag in sentence] for sentence in pairs] == [line["predicted"] for line in lines]
    wanted, stored, tuned = (load_file(folder / "metaprime.safetensors") for folder in (primed, zero.path, eight.path))
    assert stored.keys() == wanted.keys() == tuned.keys()
    assert all(torch.equal(stored[name], value) for name, value in wanted.items())
    assert not any(torch.equal(tuned[name], value) for name, value in wanted.items())

    # It is recorded as K = 0 like any other K.
    assert zero.path.name == "qai-pfeiffer-k0-s0"
    training = {"steps": 0, "lr": 0.0, "sentences": 0, "beside": [], "last_loss": None, "flops": 0.0}
    assert zero.record["training"] == training
    assert zero.record["frozen"]["unchanged"]
    assert zero.scores == other.scores
    assert set(zero.record["sentences"]) == {"qai (scored)"}
    header, rows = transfer_table([result.record for result in results], TASKS["tagging"].listed)
    assert [row[header.index("K")] for row in rows] == ["0", "8"]

    # Asked for alone, when no training sentence is read, what is finished stays so.
    before = tree(zero.path)
    again = transfer(override(config, "transfer.shots=0"))
    assert [result.scores for result in again] == [zero.scores, other.scores]
    assert tree(zero.path) == before


def test_no_sentence_and_a_fresh_head_is_noise_and_refused(primed_run: Config, tmp_path: Path) -> None:
    for encoder in ("base", str(Path(primed_run.run.output) / "primed")):
        config = elsewhere(primed_run, tmp_path / "run", "transfer.shots=0", f"transfer.encoder={encoder}")
        with pytest.raises(MetaprimeError, match=r"transfer\.shots 0 .* drawn at random: set transfer\.start_adapter"):
            transfer(config)
    assert not (tmp_path / "run" / "transfer").exists()


def test_a_language_without_training_sentences_is_scored(primed_run: Config, tmp_path: Path) -> None:
    folder = tmp_path / "corpus" / "xx"
    folder.mkdir(parents=True)
    (folder / "test.conll").write_text("Mali B-PER\nbono O\n\nBono O\nMali B-PER\n", encoding="utf-8")
    changes = (*PRIMED, "transfer.shots=0", "transfer.methods=[pfeiffer]", "transfer.lr=[0.1, 0.2]")
    source = (f"data.target_source=conll:{tmp_path / 'corpus'}", "data.target_languages=[xx]")
    (result,) = transfer(elsewhere(primed_run, tmp_path / "run", *changes, *source))
    assert result.record["scores"]["sentences"] == 2
