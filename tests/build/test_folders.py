"""Folders of encoders, looked at before torch is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from metaprime.build.folders import check_encoder, is_pretrained, pretrain_record, started_from
from metaprime.config.sections import EncoderConfig, PretrainConfig, TransferConfig
from metaprime.files import write_json
from metaprime.types import MetaprimeError

SMALL = PretrainConfig(layers=1)


def test_the_place_of_the_embedded_encoder_is_free_its_own_or_refused(tmp_path: Path) -> None:
    base = tmp_path / "base"
    assert not is_pretrained(SMALL, "synthetic:", base)
    base.mkdir()
    assert not is_pretrained(SMALL, "synthetic:", base)
    write_json(base / "pretrain.json", pretrain_record(SMALL, "synthetic:"))
    assert is_pretrained(SMALL, "synthetic:", base)
    # A rate that is stated is the same encoder as one that is left to the width.
    assert is_pretrained(SMALL.model_copy(update={"lr": SMALL.rate}), "synthetic:", base)
    with pytest.raises(MetaprimeError, match="holds another encoder or other files"):
        is_pretrained(SMALL, "synthetic:1", base)


def test_an_encoder_is_refused_by_its_folder_or_its_place(tmp_path: Path) -> None:
    check_encoder(EncoderConfig(), tmp_path)
    with pytest.raises(MetaprimeError, match="cannot be loaded: there is no folder of that name here"):
        check_encoder(EncoderConfig(name="org..of/name"), tmp_path)
    with pytest.raises(MetaprimeError, match="there is no folder"):
        check_encoder(EncoderConfig(name=str(tmp_path / "gone")), tmp_path)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "notes.txt").touch()
    with pytest.raises(MetaprimeError, match="base holds another encoder"):
        check_encoder(EncoderConfig(), tmp_path)


def test_transfers_start_from_the_base_the_primed_or_a_named_encoder(tmp_path: Path) -> None:
    assert started_from(TransferConfig(encoder="base"), tmp_path) is None
    assert started_from(TransferConfig(encoder="org/name"), tmp_path) == "org/name"
    with pytest.raises(MetaprimeError, match="primed does not exist; run `metaprime prime` first"):
        started_from(TransferConfig(encoder="primed"), tmp_path)
    (tmp_path / "primed").mkdir()
    assert started_from(TransferConfig(encoder="primed"), tmp_path) == str(tmp_path / "primed")
