"""Records of transfers: what they hold, what they depend on, and when a finished cell is kept, refused or replaced."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_config import MakeConfig, Parts
from toy_transfers import elsewhere, transferred, tree

from metaprime.build.data import Split
from metaprime.config.loading import override
from metaprime.config.sections import Config
from metaprime.data.rows import Row
from metaprime.models.encoder import load_encoder, weights_hash
from metaprime.models.task_model import TaskModel
from metaprime.priming.prime import prime
from metaprime.runs.artifact import Artifact
from metaprime.tasks import Task
from metaprime.tasks.tagging.task import TAGGING
from metaprime.tasks.task import Scores
from metaprime.transfers import record as transfer_record
from metaprime.transfers import stacked
from metaprime.transfers.predict import predict
from metaprime.transfers.record import Cell, Recorder, encoder_label, known_rates, primed_hashes, relevant
from metaprime.transfers.start import Source, TransferContext
from metaprime.types import MetaprimeError, Params

CELL = Cell("qai", "pfeiffer", 8, 1)


@pytest.fixture
def recorder(parts: Parts, tmp_path: Path) -> Recorder:
    """The recorder of one method, over an encoder that was not primed."""
    encoder = load_encoder(parts.config.encoder.name)
    split = Split(parts.rows[:4], parts.rows[4:6])
    configs = {"pfeiffer": parts.config.model_dump(mode="json")}
    return Recorder(tmp_path / "cells", "base", Source(encoder, None), configs, {"qai": split}, {})


def changed(recorder: Recorder, config: Config) -> Recorder:
    """The recorder of the same cells under another config."""
    return replace(recorder, configs={"pfeiffer": config.model_dump(mode="json")})


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("primed", "primed"),
        ("base", "base"),
        ("/runs/one/primed", "primed"),
        ("runs/two/", "two"),
        ("org/name", "name"),
        ("/", "encoder"),
    ],
)
def test_an_encoder_is_labelled_by_the_last_part_of_its_name(name: str, label: str) -> None:
    assert encoder_label(name) == label


def test_a_cells_folder_names_language_method_k_and_seed(recorder: Recorder) -> None:
    assert Cell("qai", "lora-rank4", 50, 3).folder == "qai-lora-rank4-k50-s3"
    assert recorder.folder(CELL) == recorder.root / "qai-pfeiffer-k8-s1"


def test_only_settings_that_change_a_result_are_relevant(parts: Parts, tmp_path: Path) -> None:
    kept = relevant(parts.config.model_dump(mode="json"))
    assert set(kept) == {"data", "task", "peft", "transfer", "encoder"}
    assert set(kept["encoder"]) == {"attention", "precision", "sites", "spacing"}
    assert not {"methods", "shots", "seeds", "encoder"} & set(kept["transfer"])
    assert not {"languages", "target_languages"} & set(kept["data"])
    for key in (
        *("transfer.seeds=[5]", "transfer.shots=[4]", "transfer.methods=[head]", "transfer.encoder=base"),
        *("data.languages=[qab]", "data.target_languages=[qab]", "outer.lr=1", f"run.output={tmp_path}"),
        "encoder.name=elsewhere",
    ):
        assert relevant(override(parts.config, key).model_dump(mode="json")) == kept, key
    for key in (
        "transfer.steps=5",
        "transfer.lr=0.5",
        "data.max_length=20",
        "peft.bottleneck=5",
        "task.label_map={LOC: O}",
    ):
        assert relevant(override(parts.config, key).model_dump(mode="json")) != kept, key
    for key in ("encoder.attention=eager", "encoder.spacing=none"):
        assert relevant(override(parts.config, key).model_dump(mode="json")) != kept, key


def test_a_digest_names_settings_and_weights_but_no_cells(parts: Parts, recorder: Recorder) -> None:
    digest = recorder.digest("pfeiffer")
    assert digest.endswith(recorder.source.encoder.weights[:12])
    assert changed(recorder, override(parts.config, "transfer.seeds=[7]")).digest("pfeiffer") == digest
    assert changed(recorder, override(parts.config, "transfer.steps=7")).digest("pfeiffer") != digest
    assert changed(recorder, override(parts.config, "encoder.spacing=none")).digest("pfeiffer") != digest
    assert replace(recorder, primed={"the primed head": "0123456789ab"}).digest("pfeiffer") != digest
    encoder = replace(recorder.source.encoder, weights="f" * 64)
    assert replace(recorder, source=Source(encoder, None)).digest("pfeiffer").endswith("-" + "f" * 12)


def test_a_records_sentences_are_those_of_its_language(parts: Parts, recorder: Recorder) -> None:
    before = recorder.provenance(CELL)
    assert set(before.sentences) == {"qai (training)", "qai (scored)"}
    assert before.weights == {"the encoder": recorder.source.encoder.weights[:12]}
    other = replace(recorder, splits={"qai": Split(parts.rows[:4], parts.rows[4:7])}).provenance(CELL)
    assert other.sentences["qai (training)"] == before.sentences["qai (training)"]
    assert other.sentences["qai (scored)"] != before.sentences["qai (scored)"]


def test_a_cell_without_a_folder_is_not_done_and_one_without_a_record_is_damaged(recorder: Recorder) -> None:
    assert not recorder.is_done(CELL, force=False)
    recorder.folder(CELL).mkdir(parents=True)
    with pytest.raises(MetaprimeError, match=r"record\.json"):
        recorder.is_done(CELL, force=True)


def test_primed_groups_are_hashed_apart(parts: Parts) -> None:
    values = {name: value.detach() for name, value in parts.start.items()}
    artifact = Artifact(parts.config.peft, parts.task.config, parts.task.labels, values, ".", {"seed": 0})
    source = Source(load_encoder(parts.config.encoder.name), artifact)
    assert primed_hashes(source, []) == {}
    hashes = primed_hashes(source, ["adapter", "head"])
    head = {name: value for name, value in values.items() if name.startswith("head.")}
    assert hashes["the primed head"] == weights_hash(head)[:12]
    assert set(hashes) == {"the primed adapter", "the primed head"}
    assert primed_hashes(source, ["head"]) == {"the primed head": hashes["the primed head"]}
    moved: Params = {**values, "head.bias": values["head.bias"] + 1}
    other = primed_hashes(Source(source.encoder, replace(artifact, values=moved)), ["adapter", "head"])
    assert other["the primed adapter"] == hashes["the primed adapter"]
    assert other["the primed head"] != hashes["the primed head"]


def test_rates_are_read_from_finished_cells(recorder: Recorder) -> None:
    cells = [Cell("qai", "pfeiffer", shots, seed) for shots in (4, 8) for seed in (0, 1)]
    for cell in cells:
        recorder.folder(cell).mkdir(parents=True)
        record = {"cell": {}, "scores": {}, "training": {"lr": cell.shots / 100}, "frozen": {}}
        (recorder.folder(cell) / "record.json").write_text(json.dumps(record), encoding="utf-8")
    assert known_rates(recorder, cells) == {("pfeiffer", 4): 0.04, ("pfeiffer", 8): 0.08}
    assert known_rates(recorder, []) == {}


def test_parameters_are_counted_as_trained_and_as_stored(primed_run: Config, tmp_path: Path) -> None:
    methods = "transfer.methods=[{method: prefix, length: 3, mlp: 6}, head, full]"
    records = transferred(elsewhere(primed_run, tmp_path / "run", methods, "transfer.lr=0.02"), quiet=True)
    prefix, head, full = (record["parameters"] for record in records)
    folders = tmp_path / "run" / "transfer" / "primed"
    stored = load_file(next(folders.glob("qai-prefix*")) / "metaprime.safetensors")
    encoder = load_encoder(str(Path(primed_run.run.output) / "primed")).module
    size = sum(parameter.numel() for parameter in encoder.parameters())
    assert prefix["head"] == sum(value.numel() for name, value in stored.items() if name.startswith("head."))
    assert prefix["stored"] == sum(value.numel() for name, value in stored.items() if name.startswith("adapter."))
    # The network that produces the prefix is trained and not stored.
    assert prefix["adapter"] > prefix["stored"] > 0
    assert prefix["encoder"] == head["encoder"] == full["encoder"] == size
    assert (head["adapter"], head["stored"], head["head"]) == (0, 0, prefix["head"])
    assert (full["adapter"], full["stored"]) == (size, size)


def test_a_full_cell_holds_the_encoder_whose_hash_it_names(primed_run: Config, tmp_path: Path) -> None:
    (record,) = transferred(elsewhere(primed_run, tmp_path / "run", "transfer.methods=[full]", "transfer.lr=1e-3"))
    cell = tmp_path / "run" / "transfer" / "primed" / "qai-full-k8-s0"
    tuned = load_encoder(str(cell / "encoder")).module
    values = {f"backbone.{name}": parameter for name, parameter in tuned.named_parameters()}
    assert weights_hash(values) == record["frozen"]["after"] != record["frozen"]["before"]
    source = load_encoder(str(Path(primed_run.run.output) / "primed")).module
    before = {f"backbone.{name}": parameter for name, parameter in source.named_parameters()}
    assert weights_hash(before) == record["frozen"]["before"]


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
    assert [
        message.partition("different inputs: ")[2] for message in caplog.messages if message.startswith("keeping")
    ] == lines
    monkeypatch.undo()
    file = tmp_path / "run" / "transfer" / "primed" / "qai-head-k8-s0" / "record.json"
    stale = {**record, "sentences": {**record["sentences"], "qai (scored)": "0123456789ab"}}
    file.write_text(json.dumps(stale), encoding="utf-8")
    with pytest.raises(MetaprimeError, match=r"\nsentences of qai \(scored\): 0123456789ab -> \w{12}$"):
        transferred(config)
    file.write_text(json.dumps({**record, "config": {}}), encoding="utf-8")
    with pytest.raises(MetaprimeError, match=r"record\.json is damaged .*--overwrite"):
        transferred(config)


def test_overwrite_keeps_the_old_until_the_new_is_whole(primed_run: Config, tmp_path: Path) -> None:
    config = elsewhere(primed_run, tmp_path / "run", "transfer.methods=[pfeiffer]")
    transferred(config)
    before = tree(tmp_path)
    with pytest.raises(MetaprimeError, match="the loss is"):
        transferred(override(config, "transfer.lr=1e30"), overwrite=True)
    assert tree(tmp_path) == before


def test_a_tagger_that_predicts_no_entity_says_so(
    primed_run: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mute(model: TaskModel, task: Task, values: Params, rows: Sequence[Row]) -> tuple[Scores, list[list[str]]]:
        answers = [["O"] * len(row.example.words) for row in rows]
        return task.kind.score([row.example for row in rows], answers), answers

    keys = ("transfer.methods=[head]", "transfer.lr=1e-3")
    with caplog.at_level(logging.WARNING), monkeypatch.context() as patched:
        patched.setattr(transfer_record, "evaluate", mute)
        transferred(elsewhere(primed_run, tmp_path / "mute", *keys))
    assert [message.split(" predicts")[0] for message in caplog.messages] == ["qai-head-k8-s0"]


def test_silence_is_said_with_its_cell_and_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    gold = {"words": ["Ann", "left", "Mali"], "gold": ["B-PER", "O", "B-LOC"], "predicted": ["O", "O", "O"]}
    with caplog.at_level(logging.WARNING):
        transfer_record._say_silence(TAGGING, CELL, [gold, gold])
        assert len(caplog.messages) == 1
        transfer_record._say_silence(TAGGING, CELL, [gold, gold | {"predicted": ["O", "B-PER", "O"]}])
        transfer_record._say_silence(TAGGING, CELL, [gold | {"gold": ["O", "O", "O"]}])
    (message,) = caplog.messages
    assert message.startswith(
        "qai-pfeiffer-k8-s1 predicts none of the 4 gold entities of its 2 test examples: raise transfer.lr"
    )
