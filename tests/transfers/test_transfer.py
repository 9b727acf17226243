"""Transfer end to end on a toy: records, starts, rates, stopping, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_config import MakeConfig

from metaprime.config.loading import override
from metaprime.config.sections import Config
from metaprime.priming.prime import prime
from metaprime.runs.records import comparable, read_record
from metaprime.transfers import record as transfer_record
from metaprime.transfers import stacked
from metaprime.transfers.held_out import Validation
from metaprime.transfers.predict import predict
from metaprime.transfers.start import KShotRun, TransferContext
from metaprime.transfers.transfer import TransferResult, transfer
from metaprime.types import MetaprimeError, Params

ALL = ("pfeiffer", "prefix", "lora", "head", "full", "mam", "ia3", "bitfit")
"""One of every family."""


def transferred(config: Config, **how: Any) -> list[dict[str, Any]]:
    """The records of all cells."""
    return [result.record for result in transfer(config, **how)]


def elsewhere(config: Config, output: Path, *overrides: str) -> Config:
    """Transfer from a finished run's primed encoder into another output."""
    primed = Path(config.run.output) / "primed"
    return override(config, f"run.output={output}", f"transfer.encoder={primed}", *overrides)


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


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


def test_where_the_encoder_lies_is_no_property_of_a_record(primed_run: Config, tmp_path: Path) -> None:
    shutil.copytree(Path(primed_run.run.output) / "primed", tmp_path / "moved" / "primed")
    keys = ("transfer.methods=[head]", "transfer.shots=4", "transfer.lr=0.02")
    (one,) = transferred(elsewhere(primed_run, tmp_path / "run", *keys), quiet=True)
    there = (*keys, f"transfer.encoder={tmp_path / 'moved' / 'primed'}")
    # It is not made again.
    (same,) = transferred(elsewhere(primed_run, tmp_path / "run", *there), quiet=True)
    assert same == one
    (other,) = transferred(elsewhere(primed_run, tmp_path / "other", *there), quiet=True)
    assert other["digest"] == one["digest"]


def test_another_primed_start_is_another_transfer(primed_run: Config, tmp_path: Path) -> None:
    """Of the same encoder: a learner that moves adapter and head alone leaves such."""
    moved = tmp_path / "moved" / "primed"
    shutil.copytree(Path(primed_run.run.output) / "primed", moved)
    values = load_file(moved / "metaprime.safetensors")
    save_file({name: value + 0.1 for name, value in values.items()}, moved / "metaprime.safetensors")
    keys = ("transfer.methods=[head]", "transfer.shots=4", "transfer.lr=0.02", "transfer.start_head=primed")
    (one,) = transferred(elsewhere(primed_run, tmp_path / "run", *keys), quiet=True)
    other = elsewhere(primed_run, tmp_path / "run", *keys, f"transfer.encoder={moved}")
    with pytest.raises(MetaprimeError, match="the primed head"):
        transferred(other, quiet=True)
    (two,) = transferred(override(other, f"run.output={tmp_path / 'other'}"), quiet=True)
    assert one["digest"] != two["digest"]


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


@pytest.mark.parametrize("peft", ["{method: prefix, mlp: 6}", "{method: mam, prefix: {length: 3, mlp: 6}}"])
def test_what_a_prefix_came_from_is_not_stored_and_not_needed(primed_run: Config, tmp_path: Path, peft: str) -> None:
    method = "mam" if "mam" in peft else "prefix"
    keys = (f"peft={peft}", f"transfer.methods=[{method}]", "transfer.shots=8", "transfer.lr=0.05")
    (record,) = transferred(elsewhere(primed_run, tmp_path / "run", *keys), quiet=True)
    cell = tmp_path / "run" / "transfer" / "primed" / f"qai-{method}-k8-s0"
    names = load_file(cell / "metaprime.safetensors").keys()
    assert not [name for name in names if "inner" in name]
    assert [name for name in names if name.endswith("0.keys")]
    assert "mlp" in json.dumps(record["peft"])
    lines = [json.loads(line) for line in (cell / "predictions.jsonl").read_text("utf-8").splitlines()]
    for line in lines[:5]:
        assert [tag for _, tag in predict(cell, " ".join(line["words"]))] == line["predicted"]


def test_what_moves_more_costs_more(finished: tuple[Config, list[dict[str, Any]]]) -> None:
    flops = {r["cell"]["method"]: r["training"]["flops"] for r in finished[1] if r["cell"]["shots"] == 8}
    assert flops["head"] < flops["pfeiffer"] < flops["full"]


def test_predictions_stand_beside_words_and_gold(finished: tuple[Config, list[dict[str, Any]]]) -> None:
    cell = Path(finished[0].run.output) / "transfer" / "primed" / "qai-pfeiffer-k8-s0"
    lines = [json.loads(line) for line in (cell / "predictions.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == 20
    assert all(len(line["words"]) == len(line["gold"]) == len(line["predicted"]) > 0 for line in lines)


def test_a_theta_that_moves_under_a_freezing_method_is_reported(
    primed_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = stacked.fine_tune

    def careless(context: TransferContext, *rest: Any, **named: Any) -> Any:
        with torch.no_grad():
            next(iter(context.backbone.values())).add_(1e-3)
        return honest(context, *rest, **named)

    monkeypatch.setattr(stacked, "fine_tune", careless)
    with pytest.raises(MetaprimeError, match="theta changed although pfeiffer freezes it"):
        transferred(elsewhere(primed_run, tmp_path / "run", "transfer.methods=pfeiffer"))
    assert not (tmp_path / "run").exists()


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


@pytest.mark.parametrize("change", ["transfer.steps=5", "task.label_map={LOC: O}", "transfer.lr=0.5", "base"])
def test_other_settings_or_another_encoder_are_refused(
    primed_run: Config, tiny: MakeConfig, tmp_path: Path, change: str
) -> None:
    config = elsewhere(primed_run, tmp_path / "run", "transfer.methods=[head]")
    transferred(config)
    before = tree(tmp_path / "run")
    if change == "base":
        other_primed = prime(tiny(tmp_path / "other", "run.seed=1", "outer.steps=1", "outer.validate_every=0"))
        # Its folder has the same last name: primed.
        changed = override(config, f"transfer.encoder={other_primed.path}")
    else:
        changed = override(config, change)
    with pytest.raises(
        MetaprimeError, match=r"qai-head-k8-s0 holds a transfer with other settings, .*--overwrite.*--force"
    ):
        transferred(changed)
    assert tree(tmp_path / "run") == before
    transferred(changed, overwrite=True)
    assert tree(tmp_path / "run") != before


def test_what_changed_is_said_key_by_key_and_force_keeps_the_old(
    primed_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = elsewhere(primed_run, tmp_path / "run", "transfer.methods=[head]")
    (record,) = transferred(config)
    changed = override(config, "transfer.steps=5", "transfer.seeds=[0, 1]")
    honest = transfer_record.versions
    monkeypatch.setattr(transfer_record, "versions", lambda: {**honest(), "torch": "9.9"})
    with pytest.raises(MetaprimeError, match="holds a transfer with other settings") as refused:
        transferred(changed)
    lines = ["transfer.steps: 4 -> 5", f"version of torch: {record['versions']['torch']} -> 9.9"]
    assert str(refused.value).splitlines()[1:] == lines
    kept, new = transferred(changed, force=True)
    assert kept == record
    assert (new["training"]["steps"], new["versions"]["torch"]) == (5, "9.9")
    assert [message.partition("something else: ")[2] for message in caplog.messages] == lines
    monkeypatch.undo()
    file = tmp_path / "run" / "transfer" / "primed" / "qai-head-k8-s0" / "record.json"
    stale = {**record, "sentences": {**record["sentences"], "qai (scored)": "0123456789ab"}}
    file.write_text(json.dumps(stale), encoding="utf-8")
    with pytest.raises(MetaprimeError, match=r"\nsentences of qai \(scored\): 0123456789ab -> \w{12}$"):
        transferred(config)
    file.write_text(json.dumps({**record, "config": {}}), encoding="utf-8")
    with pytest.raises(MetaprimeError, match=r"record\.json is damaged .*--overwrite"):
        transferred(config)


def test_rates_that_finished_cells_were_given_are_not_chosen_again(
    primed_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = elsewhere(primed_run, tmp_path / "run", "transfer.methods=[head, lora]", "transfer.lr=[0.01, 0.02]")
    asked: list[int] = []

    def scores(self: Validation, backbone: Params, primed: Params, lr: float, *rest: Any) -> dict[str, float]:
        asked.append(len(self.context.model.adapter))
        return {"qac": lr}

    monkeypatch.setattr(Validation, "scores", scores)
    transferred(config)
    assert [bool(sites) for sites in asked] == [False, False, True, True]
    asked.clear()
    more = transferred(override(config, "transfer.seeds=[0, 1]"))
    assert asked == []
    assert {record["training"]["lr"] for record in more} == {0.02}


def test_overwrite_keeps_the_old_until_the_new_is_whole(primed_run: Config, tmp_path: Path) -> None:
    config = elsewhere(primed_run, tmp_path / "run", "transfer.methods=[pfeiffer]")
    transferred(config)
    before = tree(tmp_path)
    with pytest.raises(MetaprimeError, match="the loss is"):
        transferred(override(config, "transfer.lr=1e30"), overwrite=True)
    assert tree(tmp_path) == before


def test_the_base_encoder_needs_no_priming(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", "transfer.encoder=base", "transfer.methods=[head]")
    (record,) = transferred(config)
    assert record["cell"]["encoder"] == "base"
    assert record["cell"]["priming_seed"] is None


def start_of(config: Config, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The values fine-tuning starts from, caught on their way in."""
    caught: list[Params] = []
    honest = stacked.fine_tune

    def watched(context: TransferContext, run: KShotRun, *rest: Any, **named: Any) -> Any:
        caught.append({name: value.clone() for name, value in run.start().items()})
        return honest(context, run, *rest, **named)

    monkeypatch.setattr(stacked, "fine_tune", watched)
    transferred(config)
    monkeypatch.setattr(stacked, "fine_tune", honest)
    return caught[0]


@pytest.mark.parametrize("adapter", ["fresh", "primed"])
@pytest.mark.parametrize("head", ["fresh", "primed"])
def test_fine_tuning_starts_where_it_is_told(
    primed_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: str, head: str
) -> None:
    wanted = (f"transfer.start_adapter={adapter}", f"transfer.start_head={head}", "transfer.methods=[pfeiffer]")
    start = start_of(elsewhere(primed_run, tmp_path / "run", *wanted), monkeypatch)
    primed = load_file(Path(primed_run.run.output) / "primed" / "metaprime.safetensors")
    assert start.keys() == primed.keys()
    for group, choice in (("adapter", adapter), ("head", head)):
        same = [torch.equal(start[name], primed[name]) for name in primed if name.startswith(group)]
        assert all(same) if choice == "primed" else not any(same) or group == "adapter"
        if choice == "fresh":
            assert not all(same)


def test_a_primed_start_of_another_method_is_refused(primed_run: Config, tmp_path: Path) -> None:
    for wrong in ("transfer.methods=[pfeiffer, lora]", "peft.bottleneck=5"):
        for rates in ("0.01", "[0.01, 0.02]"):
            config = elsewhere(
                primed_run, tmp_path / "run", "transfer.start_adapter=primed", wrong, f"transfer.lr={rates}"
            )
            with pytest.raises(MetaprimeError, match=r"transfer\.start_adapter: the encoder was primed with Pfeiffer"):
                transferred(config)
            assert not (tmp_path / "run").exists()
    heads = elsewhere(primed_run, tmp_path / "run", "transfer.start_adapter=primed", "transfer.methods=[head]")
    # Head tuning has no adapter to differ in.
    assert len(transferred(heads)) == 1


def test_a_primed_head_of_other_labels_is_refused(primed_run: Config, tmp_path: Path) -> None:
    config = elsewhere(
        primed_run,
        tmp_path / "run",
        "transfer.start_head=primed",
        "task.labels=[LOC, ORG, PER]",
        "transfer.methods=[head]",
    )
    with pytest.raises(MetaprimeError, match=r"transfer\.start_head: the encoder was primed with the tags O, B-PER"):
        transferred(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("key", ["start_adapter", "start_head"])
def test_a_primed_start_needs_a_primed_encoder(tiny: MakeConfig, tmp_path: Path, key: str) -> None:
    with pytest.raises(MetaprimeError, match="was not primed by metaprime"):
        transferred(tiny(tmp_path / "run", "transfer.encoder=base", f"transfer.{key}=primed"))
    assert not (tmp_path / "run").exists()


def test_nothing_primed_says_what_to_do(tiny: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(MetaprimeError, match="primed does not exist; run `metaprime prime` first, or set"):
        transferred(tiny(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_of_several_rates_the_best_on_validation_languages_is_taken_per_method_and_k(
    primed_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def scores(self: Validation, backbone: Params, primed: Params, lr: float, shots: int, languages: list[str]) -> Any:
        asked.append((lr, shots, tuple(languages)))
        best = {4: 0.02, 8: 0.01 if self.context.model.adapter else 0.05}[shots]
        return dict.fromkeys(languages, 10.0 if lr == best else 5.0)

    monkeypatch.setattr(Validation, "scores", scores)
    config = elsewhere(
        primed_run,
        tmp_path / "run",
        *("transfer.lr=[0.01, 0.02, 0.05]", "transfer.shots=[4, 8]", "transfer.methods=[pfeiffer, head]"),
    )
    found = {(r["cell"]["method"], r["cell"]["shots"]): r["training"]["lr"] for r in transferred(config)}
    assert found == {("pfeiffer", 4): 0.02, ("pfeiffer", 8): 0.01, ("head", 4): 0.02, ("head", 8): 0.05}
    assert len(asked) == 12
    assert {languages for _, _, languages in asked} == {("qac",)}


@pytest.mark.parametrize("method", ["full", "head"])
def test_rates_are_chosen_by_the_fine_tuning_they_are_for(
    primed_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    moved = []
    honest = stacked.fine_tune

    def watched(context: TransferContext, run: KShotRun, lr: float, *, count: bool = False) -> Any:
        # The FLOPs of fine-tunings that are kept are counted, those of others are not.
        if not count:
            moved.append({name.split(".")[0] for name in run.start()})
        return honest(context, run, lr, count=count)

    monkeypatch.setattr(stacked, "fine_tune", watched)
    transferred(elsewhere(primed_run, tmp_path / "run", f"transfer.methods=[{method}]", "transfer.lr=[0.01, 0.02]"))
    assert moved == [{"backbone", "head"} if method == "full" else {"head"}] * 2


def test_several_rates_without_a_language_to_choose_on_are_refused(primed_run: Config, tmp_path: Path) -> None:
    config = elsewhere(primed_run, tmp_path / "run", "transfer.lr=[0.01, 0.02]", "data.validation_languages=[]")
    with pytest.raises(MetaprimeError, match=r"transfer\.lr lists several rates: data\.validation_languages must name"):
        transferred(config)


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


def test_validation_that_diverges_names_step_and_language(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", "transfer.lr=1e30", "outer.validate_every=2")
    with pytest.raises(MetaprimeError, match=r"validation at step 0: .*language 'qac'.*; or lower outer\.lr"):
        prime(config)
