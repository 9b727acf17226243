"""Tiny configs over the toy encoders, the parts they build, and one finished priming run for whoever only reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from metaprime.config import Config, load_config
from metaprime.loops.build import build_model, build_task, priming_rows
from metaprime.loops.carrying import draw_initial
from metaprime.loops.prime import prime
from metaprime.models.encoder import load_encoder
from metaprime.models.primable import PrimableModel, partition
from metaprime.tasks.task import Task
from metaprime.types import Row, State

TINY = (
    "data.languages=[qaa, qaf]",
    "data.validation_languages=[qac]",
    "data.target_languages=[qai]",
    "episodes.per_step=2",
    "episodes.support=2",
    "episodes.query=4",
    "inner.steps=2",
    "inner.lr=0.3",
    "outer.steps=4",
    "outer.lr=1e-3",
    "outer.warmup=0.1",
    "outer.adapter=meta",
    "outer.head=meta",
    "outer.validate_every=2",
    "outer.checkpoint_every=2",
    "peft.bottleneck=4",
    "transfer.shots=8",
    "transfer.steps=4",
    "transfer.batch=4",
    "transfer.test_sentences=20",
)

MakeConfig = Callable[..., Config]


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


@dataclass(frozen=True)
class Parts:
    """What a loop holds: config, task, model with adapter and head drawn, its state, and training rows."""

    config: Config
    task: Task
    model: PrimableModel
    state: State
    rows: list[Row]


@pytest.fixture
def parts(tiny: MakeConfig, tmp_path: Path) -> Parts:
    config = tiny(tmp_path / "unused")
    encoder = load_encoder(config.encoder.name)
    task = build_task(config, encoder)
    rows = priming_rows(config, task)["qaa"]
    model = build_model(encoder, task, config.peft, rows)
    draw_initial(model, 0, 0.1)
    return Parts(config, task, model, partition(model, encoder.layout.unused), rows)
