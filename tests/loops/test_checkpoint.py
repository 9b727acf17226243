"""Checkpoints that are whole or not there, and an optimizer that goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metaprime.loops import checkpoint
from metaprime.loops.checkpoint import (
    Checkpoint,
    load_checkpoint,
    newest_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from metaprime.types import MetaprimeError


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def made(step: int) -> Checkpoint:
    return Checkpoint(
        step, {"w": torch.full((2, 3), float(step)), "optimizer/step/w": torch.tensor(1.0)}, {"best": [1.5, 3]}
    )


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "state", made(7), keep=2)
    found = newest_checkpoint(tmp_path / "state")
    assert found is not None
    assert (found.step, found.state) == (7, {"best": [1.5, 3]})
    assert found.tensors.keys() == made(7).tensors.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in made(7).tensors.items())


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "nowhere") is None


def test_the_newest_are_kept_in_the_order_of_steps(tmp_path: Path) -> None:
    for step in (1, 9, 10, 100):
        save_checkpoint(tmp_path, made(step), keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000009", "step-00000010", "step-00000100"]
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 100


def test_an_error_while_saving_a_checkpoint_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, made(1), keep=1)
    before = tree(tmp_path)

    def full_disk(file: Path, value: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "write_json", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, made(2), keep=1)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "junk"])
def test_a_damaged_checkpoint_is_named_with_the_remedy(tmp_path: Path, file: str, damage: str) -> None:
    save_checkpoint(tmp_path, made(1), keep=1)
    path = tmp_path / "step-00000001" / file
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"\xff" * 40)
    with pytest.raises(MetaprimeError, match=r"step-00000001 cannot be read .*; remove it to go on from an older one"):
        load_checkpoint(path.parent)


def test_the_optimizer_goes_on_as_if_it_had_not_stopped() -> None:
    def fresh() -> tuple[dict[str, torch.Tensor], torch.optim.AdamW]:
        weights = {name: torch.ones(3, requires_grad=True) for name in ("b/c.w", "a.w")}
        return weights, torch.optim.AdamW(weights.values(), lr=0.1)

    def step(weights: dict[str, torch.Tensor], optimizer: torch.optim.AdamW, number: int) -> None:
        for place, value in enumerate(weights.values()):
            value.grad = torch.tensor([1.0, -2.0, 0.5]) * (number + place)
        optimizer.step()

    weights, optimizer = fresh()
    for number in range(3):
        step(weights, optimizer, number)
    saved = optimizer_tensors(optimizer, {id(value): name for name, value in weights.items()})
    assert {name for name in saved if name.endswith("b/c.w")} == {
        f"optimizer/{slot}/b/c.w" for slot in ("step", "exp_avg", "exp_avg_sq")
    }
    saved = {name: value.clone() for name, value in saved.items()}
    again, restored = fresh()
    with torch.no_grad():
        for name, value in again.items():
            value.copy_(weights[name])
    restore_optimizer(restored, {id(value): name for name, value in again.items()}, saved)
    step(weights, optimizer, 3)
    step(again, restored, 3)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
