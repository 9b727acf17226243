"""Launches whose processes found one another, and those that are refused because they did not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from toy_config import MakeConfig

from metaprime.priming.prime import prime
from metaprime.runs.launch import check_launch, check_no_launch
from metaprime.suite.ablate import ablate
from metaprime.transfers.transfer import transfer
from metaprime.types import MetaprimeError

VARIABLES = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_PROCID")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`environment(WORLD_SIZE="2")`: these variables of launchers and no others."""

    def make(**values: str) -> None:
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return make


@pytest.mark.parametrize(
    ("values", "processes"),
    [
        ({}, 1),
        ({"WORLD_SIZE": "1"}, 1),
        ({"WORLD_SIZE": "2"}, 2),
        # A batch script that asked for four tasks and is one process.
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, 1),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"}, 4),
    ],
)
def test_a_group_of_all_passes(environment: Callable[..., None], values: dict[str, str], processes: int) -> None:
    environment(**values)
    check_launch(processes)


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_a_process_that_is_alone_is_refused_with_what_is_missing(
    environment: Callable[..., None], variable: str
) -> None:
    environment(**{variable: "2"})
    with pytest.raises(
        MetaprimeError, match=rf"{variable} says that 2 .* ACCELERATE_USE_CPU=1 for torchrun.*unset {variable}"
    ):
        check_launch(1)
    with pytest.raises(MetaprimeError, match=rf"{variable} says that 2 .*a suite starts its own.*--jobs"):
        check_no_launch()


def test_it_is_found_before_anything_is_written(
    environment: Callable[..., None], tiny: MakeConfig, tmp_path: Path
) -> None:
    environment(WORLD_SIZE="2")
    (tmp_path / "suite.yaml").write_text("name: mine\n", encoding="utf-8")
    commands = (lambda: prime(tiny(tmp_path / "run")), lambda: transfer(tiny(tmp_path / "run")))
    for command in (*commands, lambda: ablate(tmp_path / "suite.yaml")):
        with pytest.raises(MetaprimeError, match="WORLD_SIZE says that 2 processes"):
            command()
    assert not (tmp_path / "run").exists()
