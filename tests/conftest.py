"""Toy encoders of every supported architecture: random weights, a word-piece vocabulary of synthetic text, no network."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from toy_config import TINY, MakeConfig, Parts
from toy_encoders import ROBERTAS, make_toy, numbered_as_roberta
from toy_permissions import Forbid, without_permission
from transformers import PreTrainedTokenizerFast

from metaprime.build.data import build_task, priming_rows
from metaprime.build.model import build_model
from metaprime.build.pretrain import make_tokenizer
from metaprime.config.loading import load_config
from metaprime.config.sections import Config, PretrainConfig
from metaprime.data.readers import synthetic
from metaprime.models.encoder import load_encoder
from metaprime.models.task_model import partition
from metaprime.priming.prime import prime
from metaprime.priming.starts import draw_initial


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tokenised text of this session alone, also in subprocesses."""
    os.environ["METAPRIME_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def toy_tokenizer() -> PreTrainedTokenizerFast:
    texts = [s for language in ("qaa", "qaf", "qai") for s in synthetic.read("", language, "train")]
    return make_tokenizer(texts, PretrainConfig(vocabulary=400))


@pytest.fixture(scope="session")
def toy_encoder(
    tmp_path_factory: pytest.TempPathFactory, toy_tokenizer: PreTrainedTokenizerFast
) -> Callable[..., Path]:
    """`toy_encoder("bert")`: folder of a two-layer, 32-wide encoder with large enough weights to make a difference; with
    `speaks` its masked-word head is saved with it."""
    made: dict[tuple[str, bool], Path] = {}

    def folder(model_type: str, speaks: bool = False) -> Path:
        if (model_type, speaks) not in made:
            tokenizer = numbered_as_roberta(toy_tokenizer) if model_type in ROBERTAS else toy_tokenizer
            made[model_type, speaks] = make_toy(model_type, tmp_path_factory.mktemp(model_type), tokenizer, speaks)
        return made[model_type, speaks]

    return folder


@pytest.fixture
def changed_toy(tmp_path: Path, toy_tokenizer: PreTrainedTokenizerFast) -> Callable[..., Path]:
    """`changed_toy("deberta-v2", share_att_key=False)`: a toy with other settings, in `tmp_path`."""
    return lambda model_type, **changes: make_toy(model_type, tmp_path / "toy", toy_tokenizer, **changes)


@pytest.fixture
def forbid(monkeypatch: pytest.MonkeyPatch) -> Forbid:
    """`forbid(file)`: this user may no longer read it, whoever runs the tests."""
    return without_permission(monkeypatch)


@pytest.fixture
def toy_bert(toy_encoder: Callable[[str], Path]) -> Path:
    return toy_encoder("bert")


@pytest.fixture(scope="session")
def tiny(toy_encoder: Callable[[str], Path]) -> MakeConfig:
    """`tiny(output, "inner.steps=1", ...)`: a config that primes a toy in half a second."""

    def make(output: Path, *overrides: str) -> Config:
        return load_config(None, [*TINY, f"encoder.name={toy_encoder('bert')}", f"run.output={output}", *overrides])

    return make


@pytest.fixture(scope="session")
def primed_run(tiny: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The config of a finished run; its output is not to be changed."""
    config = tiny(tmp_path_factory.mktemp("primed") / "run")
    prime(config)
    return config


@pytest.fixture
def parts(tiny: MakeConfig, tmp_path: Path) -> Parts:
    config = tiny(tmp_path / "unused")
    encoder = load_encoder(config.encoder.name)
    task = build_task(config.task, config.data, encoder, config.peft)
    rows = priming_rows(task, config.data, config.run.seed)["qaa"]
    model = build_model(encoder, task, config.peft, rows)
    draw_initial(model, 0, 0.1)
    return Parts(config, task, model, partition(model, encoder.layout.unused), rows)
