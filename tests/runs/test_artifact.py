"""An artifact: what is saved is loaded, which groups are trained, and which encoder they belong to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_permissions import Forbid

from metaprime.models.encoder import load_encoder
from metaprime.models.sites import BERT
from metaprime.peft import METHODS
from metaprime.runs.artifact import (
    CARD,
    VALUES,
    Artifact,
    load_artifact,
    load_encoder_of,
    save_artifact,
    sites_of,
    trained_groups,
)
from metaprime.tasks import TASKS
from metaprime.types import MetaprimeError

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
OUTER = {"adapter": "meta", "head": "meta"}


def artifact(home: str = ".", weights: str = "ab" * 32, kind: str = "primed", **config: Any) -> Artifact:
    """An artifact for the encoder at `home`, with a slice of a tensor and half precision among its values."""
    return Artifact(
        method=METHODS["lora"].config(rank=3),
        task=TASKS["tagging"].of_labels(LABELS),
        labels=LABELS,
        values={
            "adapter.0.down": torch.arange(12.0).reshape(3, 4)[:, 1:3],
            "head.weight": torch.full((5, 2), 0.1, dtype=torch.float16),
            "head.bias": torch.arange(5.0),
        },
        encoder=home,
        provenance={"kind": kind, "encoder_weights": weights, "config": config},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "run" / "primed"
    place.mkdir(parents=True)
    return place


def card_of(folder: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((folder / CARD).read_text("utf-8"))
    return card


def rewrite(folder: Path, card: Any) -> None:
    (folder / CARD).write_text(json.dumps(card), encoding="utf-8")


def test_what_is_saved_is_loaded_bit_for_bit(folder: Path) -> None:
    saved = artifact(learner={"name": "maml"})
    save_artifact(folder, saved)
    assert sorted(path.name for path in folder.iterdir()) == [CARD, VALUES]
    loaded = load_artifact(folder)
    assert loaded.values.keys() == saved.values.keys()
    for name, value in saved.values.items():
        assert loaded.values[name].dtype == value.dtype
        assert torch.equal(loaded.values[name], value)
    assert replace(loaded, values={}) == replace(saved, values={}, encoder=str(folder))
    assert type(loaded.method) is type(saved.method)


def test_a_local_encoder_is_found_again_after_both_were_moved(folder: Path, tmp_path: Path) -> None:
    encoder = tmp_path / "run" / "base"
    encoder.mkdir()
    save_artifact(folder, artifact(str(encoder)))
    assert card_of(folder)["encoder"] == "../base"
    assert load_artifact(folder).encoder == str(encoder)
    (tmp_path / "run").rename(tmp_path / "moved")
    assert load_artifact(tmp_path / "moved" / "primed").encoder == str(tmp_path / "moved" / "base")


def test_a_hub_id_is_kept_as_it_is(folder: Path) -> None:
    save_artifact(folder, artifact("org/encoder"))
    assert load_artifact(folder).encoder == "org/encoder"


def test_a_card_without_a_task_is_of_tagging(folder: Path) -> None:
    save_artifact(folder, artifact())
    rewrite(folder, {key: value for key, value in card_of(folder).items() if key != "task"})
    task = load_artifact(folder).task
    assert task == TASKS["tagging"].of_labels(LABELS)
    assert task.name == "tagging"


def test_a_folder_without_a_card_is_refused(folder: Path) -> None:
    for place, fault in ((folder, r"holds no metaprime\.json"), (folder / "none", "does not exist")):
        with pytest.raises(MetaprimeError, match=rf"{place} {fault}: give a folder that `metaprime prime`"):
            load_artifact(place)


@pytest.mark.parametrize(
    "change",
    [
        {"peft": {"method": "juggling"}},
        {"peft": {"method": "lora", "rank": "many"}},
        {"task": {"name": "juggling"}},
        {"task": {"name": "tagging", "labels": "PER", "unknown": 1}},
        {"provenance": {"kind": "primed"}},
        {"provenance": {"encoder_weights": "ab"}},
        {"labels": None},
        {"encoder": None},
    ],
    ids=repr,
)
def test_a_damaged_card_is_named(folder: Path, change: dict[str, Any]) -> None:
    save_artifact(folder, artifact())
    rewrite(folder, card_of(folder) | change)
    with pytest.raises(MetaprimeError, match=rf"{folder}: metaprime\.json or metaprime\.safetensors is damaged \("):
        load_artifact(folder)


@pytest.mark.parametrize("key", ["peft", "labels", "encoder", "provenance"])
def test_a_card_that_lacks_a_key_is_damaged(folder: Path, key: str) -> None:
    save_artifact(folder, artifact())
    rewrite(folder, {name: value for name, value in card_of(folder).items() if name != key})
    with pytest.raises(MetaprimeError, match=rf"is damaged \('{key}'\)"):
        load_artifact(folder)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_card_that_is_no_mapping_is_damaged(folder: Path, text: str) -> None:
    save_artifact(folder, artifact())
    (folder / CARD).write_text(text)
    with pytest.raises(MetaprimeError, match="is damaged"):
        load_artifact(folder)


@pytest.mark.parametrize("size", [None, 0, 60])
def test_missing_or_truncated_values_are_damaged(folder: Path, size: int | None) -> None:
    save_artifact(folder, artifact())
    file = folder / VALUES
    content = file.read_bytes()
    file.unlink()
    if size is not None:
        assert size < len(content)
        file.write_bytes(content[:size])
    with pytest.raises(MetaprimeError, match=rf"{folder}: .*is damaged"):
        load_artifact(folder)


@pytest.mark.parametrize(
    ("learner", "outer", "trained"),
    [
        ("peft_maml", {}, {"adapter", "head"}),
        ("peft_maml", {"adapter": "reset"}, {"head"}),
        ("peft_maml", {"head": "keep"}, {"adapter"}),
        ("anil", {"adapter": "carry_one", "head": "carry_mean"}, {"adapter", "head"}),
        ("maml", {"adapter": "keep", "head": "reset"}, set()),
        # Without an inner loop the rules for starts do not apply: the learner trains what it trains.
        ("multitask", {}, {"head"}),
        ("multitask", {"head": "reset"}, {"head"}),
        ("multitask_peft", {"adapter": "reset"}, {"adapter", "head"}),
        # Its head is one for words, not for labels.
        ("masked_words", {}, set()),
    ],
)
def test_a_group_is_trained_unless_it_is_a_random_draw(learner: str, outer: dict[str, str], trained: set[str]) -> None:
    assert trained_groups(artifact(learner={"name": learner}, outer=OUTER | outer)) == trained


def test_fine_tuning_trains_both_groups() -> None:
    assert trained_groups(artifact(kind="tuned")) == {"adapter", "head"}


def test_sites_are_those_of_the_config_or_none() -> None:
    given = BERT.model_copy(update={"unused": ()})
    assert sites_of(artifact(encoder={"sites": given.model_dump(mode="json")})) == given != BERT
    assert sites_of(artifact(encoder={"sites": None})) is None
    assert sites_of(artifact()) is None
    without_config = replace(artifact(), provenance={"kind": "primed", "encoder_weights": "ab"})
    assert sites_of(without_config) is None


def test_damaged_sites_are_named() -> None:
    damaged = artifact("some/folder", encoder={"sites": {"layers": "encoder.layer"}})
    with pytest.raises(MetaprimeError, match=r"metaprime\.json of some/folder: encoder\.sites is damaged"):
        sites_of(damaged)


def test_the_encoder_has_the_settings_of_its_run(toy_bert: Path) -> None:
    stock = load_encoder(str(toy_bert))
    sites = BERT.model_copy(update={"unused": ()})
    of_run = {"attention": "eager", "precision": "bfloat16", "sites": sites.model_dump(mode="json")}
    loaded = load_encoder_of(artifact(str(toy_bert), stock.weights, encoder=of_run))
    assert loaded.weights == stock.weights
    assert loaded.layout == sites != stock.layout
    assert loaded.autocast
    assert loaded.module.config._attn_implementation == "metaprime_eager"
    plain = load_encoder_of(artifact(str(toy_bert), stock.weights))
    assert plain.layout == stock.layout
    assert not plain.autocast
    assert plain.module.config._attn_implementation == stock.module.config._attn_implementation == "metaprime_sdpa"


@pytest.mark.parametrize(
    ("of_run", "expected"), [({"spacing": "auto"}, "auto"), ({"spacing": "none"}, "none"), ({}, None)]
)
def test_words_are_cut_as_they_were_in_the_run(
    toy_bert: Path, monkeypatch: pytest.MonkeyPatch, of_run: dict[str, str], expected: str | None
) -> None:
    stock = load_encoder(str(toy_bert))
    asked: list[object] = []
    monkeypatch.setattr(
        "metaprime.models.encoder.load_encoder", lambda *_, spacing, direction: (asked.append(spacing), stock)[1]
    )
    load_encoder_of(artifact(str(toy_bert), stock.weights, encoder=of_run))
    assert asked == [expected]


def test_an_encoder_with_other_weights_is_refused(toy_bert: Path) -> None:
    weights = load_encoder(str(toy_bert)).weights
    with pytest.raises(
        MetaprimeError,
        match=rf"encoder {toy_bert} has weights {weights[:12]}, but adapter and head were trained on abababababab: "
        "restore that encoder, or train again",
    ):
        load_encoder_of(artifact(str(toy_bert)))


def test_the_card_cannot_allow_an_encoder_to_run_code(toy_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stock = load_encoder(str(toy_bert))
    allowed: list[bool] = []

    def load(name: str, attention: str, layout: object, trust_remote_code: bool, **_: Any) -> Any:
        allowed.append(trust_remote_code)
        return stock

    monkeypatch.setattr("metaprime.models.encoder.load_encoder", load)
    claims = artifact(str(toy_bert), stock.weights, encoder={"trust_remote_code": True})
    load_encoder_of(claims)
    load_encoder_of(claims, trust_remote_code=True)
    assert allowed == [False, True]


def test_an_artifact_without_permission_is_not_called_damaged(folder: Path, forbid: Forbid) -> None:
    save_artifact(folder, artifact())
    forbid(folder / VALUES)
    with pytest.raises(MetaprimeError, match=rf"{folder / VALUES}: permission denied: .*chmod"):
        load_artifact(folder)


def card_of_own_code(folder: Path, **changed: object) -> None:
    """A card as a folder has it that was made with a method, learner and task of own code."""
    provenance = {
        "kind": "primed",
        "encoder_weights": "0",
        "config": {"learner": {"name": "maml"}},
    }
    card = {
        "code": {"mine.py": "ab" * 32},
        "peft": {"method": "lora"},
        "task": {"name": "tagging"},
        "encoder": ".",
        "labels": ["O"],
        **changed,
    }
    (folder / CARD).write_text(json.dumps({"provenance": provenance, **card}), "utf-8")


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"peft": {"method": "mini"}}, "peft.method 'mini'"),
        ({"task": {"name": "chunks"}}, "task.name 'chunks'"),
    ],
)
def test_own_code_is_named_with_its_hash_and_not_run(tmp_path: Path, changed: dict[str, object], key: str) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('was run')", "utf-8")
    card_of_own_code(tmp_path, **changed)
    with pytest.raises(MetaprimeError) as refused:
        load_artifact(tmp_path)
    for part in (key, f"mine.py (SHA-256 {'ab' * 32})", "--code FILE"):
        assert part in str(refused.value)


def test_own_code_of_another_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card_of_own_code(tmp_path)
    monkeypatch.setattr("metaprime.runs.artifact.code_hashes", lambda: {"mine.py": "cd" * 32})
    with pytest.raises(MetaprimeError, match="which has changed since"):
        load_artifact(tmp_path)
