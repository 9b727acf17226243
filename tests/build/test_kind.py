"""Size and kind of encoders, read from their files alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metaprime.build.kind import WIDEST, encoder_kind, kinds_of
from metaprime.config.presets import EMBEDDED, Kind
from metaprime.config.sections import EncoderConfig, TransferConfig
from metaprime.runs.artifact import CARD
from metaprime.runs.folder import PRETRAIN_RECORD


def folder_with(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("config", "width"),
    [({"hidden_size": 384}, 384), ({"dim": 768}, 768), ({"d_model": 512}, 512), ({"model_type": "unheard of"}, WIDEST)],
)
def test_the_width_is_that_of_the_config(tmp_path: Path, config: dict[str, object], width: int) -> None:
    assert encoder_kind(str(folder_with(tmp_path / "encoder", config=config))) == Kind(width, embedded=False)


def test_the_embedded_encoder_is_known_by_name_by_its_folder_and_by_its_descendants(tmp_path: Path) -> None:
    config = {"hidden_size": 256}
    base = folder_with(tmp_path / "base", config=config, **{PRETRAIN_RECORD.removesuffix(".json"): {}})
    card = {"provenance": {"config": {"encoder": {"name": str(base)}}}}
    primed = folder_with(tmp_path / "primed", config=config, **{CARD.removesuffix(".json"): card})
    assert {encoder_kind(name) for name in ("synthetic:", "synthetic:3", str(base), str(primed))} == {EMBEDDED}


def test_a_primed_encoder_has_the_kind_of_the_one_it_was_primed_from(tmp_path: Path) -> None:
    card = {"provenance": {"config": {"encoder": {"name": "some/hub-id"}}}}
    files = {CARD.removesuffix(".json"): card, "config": {"hidden_size": 384}}
    primed = folder_with(tmp_path / "primed", **files)
    assert encoder_kind(str(primed)) == Kind(384, embedded=False)


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_an_unreadable_config_is_left_to_whoever_loads_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    assert encoder_kind(str(tmp_path)) == Kind(WIDEST, embedded=False)


def test_transfers_from_another_encoder_have_its_kind(tmp_path: Path) -> None:
    other = str(folder_with(tmp_path / "encoder", config={"hidden_size": 384}))
    encoder = EncoderConfig()
    assert kinds_of(encoder, TransferConfig(encoder=other)) == (EMBEDDED, Kind(384, embedded=False))
    assert kinds_of(encoder, TransferConfig(encoder="base")) == (EMBEDDED, EMBEDDED)
