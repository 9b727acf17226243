"""Encoders come from a folder or, embedded, from a pre-training that happens once in the folder of the run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator

from metaprime.build import encoder as opening
from metaprime.build.encoder import open_encoder
from metaprime.config.sections import EncoderConfig, PretrainConfig
from metaprime.data.readers import synthetic
from metaprime.models.encoder import load_encoder
from metaprime.models.sites import BERT
from metaprime.runs.folder import KEPT_BASE, PRETRAIN_RECORD
from metaprime.types import MetaprimeError

SMALL = PretrainConfig(layers=1, hidden=8, heads=2, vocabulary=300, steps=2, batch=2, length=16)
EMBEDDED = EncoderConfig(name="synthetic:", pretrain=SMALL)


class Process:
    """One of several processes: what `open_encoder` asks of an Accelerator, and in which order."""

    def __init__(self, main: bool, base: Path) -> None:
        self.is_main_process, self.base, self.waited = main, base, 0

    def wait_for_everyone(self) -> None:
        self.waited += 1
        # Nobody waits before the main process has written the encoder.
        assert not self.is_main_process or (self.base / PRETRAIN_RECORD).is_file()


@pytest.fixture(autouse=True)
def _one_language(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pre-training on one language of synthetic text takes less than a second."""
    monkeypatch.setattr(synthetic, "LANGUAGES", synthetic.LANGUAGES[:1])


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_folder_is_loaded_and_nothing_is_written(toy_bert: Path, tmp_path: Path) -> None:
    encoder = open_encoder(EncoderConfig(name=str(toy_bert)), tmp_path / "run")
    assert encoder.weights == load_encoder(str(toy_bert)).weights
    assert encoder.name == str(toy_bert)
    assert not encoder.autocast
    assert not (tmp_path / "run").exists()


def test_settings_of_the_section_reach_the_encoder(toy_bert: Path, tmp_path: Path) -> None:
    sites = BERT.model_copy(update={"ffn_norm": None})
    wanted = EncoderConfig(name=str(toy_bert), attention="eager", precision="bfloat16", sites=sites)
    encoder = open_encoder(wanted, tmp_path)
    assert encoder.module.config._attn_implementation == "metaprime_eager"
    assert encoder.layout == sites
    assert encoder.autocast
    # Weights stay float32: only matrix products are of lower precision.
    assert {value.dtype for value in encoder.module.parameters()} == {torch.float32}


def test_python_code_of_a_checkpoint_is_run_only_if_allowed(
    toy_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def load(*arguments: Any, **spacing: Any) -> Any:
        asked.append(arguments)
        return load_encoder(str(toy_bert))

    monkeypatch.setattr(opening, "load_encoder", load)
    for trust in (False, True):
        open_encoder(EncoderConfig(name="a/b", trust_remote_code=trust), tmp_path)
    assert asked == [("a/b", "sdpa", None, False), ("a/b", "sdpa", None, True)]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MetaprimeError, match=r"there is no folder '\./nowhere'"):
        open_encoder(EncoderConfig(name="./nowhere"), tmp_path)


@pytest.mark.usefixtures("_threads")
def test_the_embedded_encoder_is_pre_trained_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = open_encoder(EMBEDDED, tmp_path)
    progress = capsys.readouterr().err
    assert "pre-training 2/2 masked-word loss " in progress
    base = tmp_path / KEPT_BASE
    assert first.name == str(base)
    assert first.weights == load_encoder(str(base)).weights
    assert first.module.config.num_hidden_layers == 1
    before = contents(base)
    again = open_encoder(EMBEDDED, tmp_path)
    assert capsys.readouterr().err == ""
    assert again.weights == first.weights
    assert contents(base) == before


@pytest.mark.usefixtures("_threads")
def test_a_base_of_another_config_is_refused_and_left_alone(tmp_path: Path) -> None:
    open_encoder(EMBEDDED, tmp_path)
    before = contents(tmp_path)
    for wanted in (
        EMBEDDED.model_copy(update={"name": "synthetic:7"}),
        EMBEDDED.model_copy(update={"pretrain": SMALL.model_copy(update={"steps": 3})}),
    ):
        with pytest.raises(MetaprimeError, match=rf"{tmp_path}/base holds another encoder .* another run\.output"):
            open_encoder(wanted, tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("_threads")
def test_threads_of_pre_training_end_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of threads changes sums of floats, so the same encoder needs the same number every time."""
    during: list[int] = []
    honest = opening.pretrain

    def pretrain(*arguments: Any) -> Path:
        during.append(torch.get_num_threads())
        return honest(*arguments)

    monkeypatch.setattr(opening, "pretrain", pretrain)
    torch.set_num_threads(1)
    wanted = EMBEDDED.model_copy(update={"pretrain": SMALL.model_copy(update={"threads": 2})})
    open_encoder(wanted, tmp_path, threads=3)
    assert during == [2]
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("_threads")
def test_of_several_processes_the_main_one_pre_trains_and_all_wait(tmp_path: Path) -> None:
    base = tmp_path / KEPT_BASE
    main, second = Process(True, base), Process(False, base)
    first = open_encoder(EMBEDDED, tmp_path, accelerator=cast(Accelerator, main))
    before = contents(base)
    other = open_encoder(EMBEDDED, tmp_path, accelerator=cast(Accelerator, second))
    assert (main.waited, second.waited) == (1, 1)
    assert other.weights == first.weights
    assert contents(base) == before


def test_another_process_does_not_pre_train(tmp_path: Path) -> None:
    """Without a main process there is no encoder: the second one only reads."""
    second = Process(False, tmp_path / KEPT_BASE)
    with pytest.raises(MetaprimeError, match=rf"there is no folder '{tmp_path}/base'"):
        open_encoder(EMBEDDED, tmp_path, accelerator=cast(Accelerator, second))
    assert second.waited == 1
    assert not (tmp_path / KEPT_BASE).exists()
