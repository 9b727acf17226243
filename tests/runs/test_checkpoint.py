"""Checkpoints that are whole or not there, and an optimizer that goes on."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from toy_permissions import Forbid

from metaprime.runs import checkpoint
from metaprime.runs.checkpoint import (
    Checkpoint,
    forget_after,
    load_best,
    load_checkpoint,
    newest_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_best,
    save_checkpoint,
)
from metaprime.types import MetaprimeError


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def made(step: int, best: int | None = None) -> Checkpoint:
    tensors = {"w": torch.full((2, 3), float(step)), "optimizer/step/w": torch.tensor(1.0)}
    return Checkpoint(step, tensors, {"best": None if best is None else [1.5, best]})


def best(step: int) -> Checkpoint:
    return Checkpoint(step, {"w": torch.full((2, 3), float(step))}, {"score": float(step)})


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "state", made(7), keep=2)
    found = newest_checkpoint(tmp_path / "state")
    assert found is not None
    assert (found.step, found.state) == (7, {"best": None})
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
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_json", full_disk)
    with pytest.raises(
        MetaprimeError, match=r"cannot write .*step-00000002: No space left on device\. .*make room there .*--resume"
    ):
        save_checkpoint(tmp_path, made(2), keep=1)
    assert tree(tmp_path) == before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def junk(path: Path) -> None:
    path.write_bytes(b"\xff" * 40)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 - 3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", [cut, junk, flip_a_bit, Path.unlink])
@pytest.mark.parametrize("kind", ["step", "best"])
def test_of_a_damaged_checkpoint_the_previous_is_used_with_a_notice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, damage: Callable[[Path], None], kind: str
) -> None:
    for step in (1, 2):
        save_best(tmp_path, best(step))
        save_checkpoint(tmp_path, made(step, best=step), keep=2)
    victim = tmp_path / f"{kind}-00000002"
    damage(victim / file)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1
    (record,) = caplog.records
    assert re.search(rf"checkpoint {victim} is damaged: .*{file}|{victim} is damaged: .*SHA-256", record.getMessage())
    assert "resuming from step 1 instead" in record.getMessage()
    with pytest.raises(MetaprimeError, match=f"{kind}-00000002 is damaged"):
        load_checkpoint(victim)
    damage(tmp_path / f"{kind}-00000001" / file)
    with pytest.raises(
        MetaprimeError,
        match=rf"(?s){kind}-00000002 is .*{kind}-00000001 is .*every checkpoint .*damaged: start over with --overwrite",
    ):
        newest_checkpoint(tmp_path)


def test_the_best_is_kept_as_long_as_a_checkpoint_needs_it(tmp_path: Path) -> None:
    def names() -> list[str]:
        return sorted(path.name for path in tmp_path.iterdir())

    save_best(tmp_path, best(0))
    save_checkpoint(tmp_path, made(10, best=0), keep=2)
    save_best(tmp_path, best(15))
    assert names() == ["best-00000000", "best-00000015", "step-00000010"]
    save_checkpoint(tmp_path, made(20, best=15), keep=2)
    assert names() == ["best-00000000", "best-00000015", "step-00000010", "step-00000020"]
    save_checkpoint(tmp_path, made(30, best=15), keep=2)
    assert names() == ["best-00000015", "step-00000020", "step-00000030"]
    assert load_best(tmp_path, 15).state == {"score": 15.0}
    forget_after(tmp_path, 20)
    assert names() == ["best-00000015", "step-00000020"]
    forget_after(tmp_path, -1)
    assert names() == []


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


@pytest.mark.parametrize("name", ["step-00000002/tensors.safetensors", "best-00000001/manifest.json"])
def test_a_checkpoint_without_permission_is_not_skipped_as_damaged(tmp_path: Path, forbid: Forbid, name: str) -> None:
    save_best(tmp_path, best(1))
    for step in (1, 2):
        save_checkpoint(tmp_path, made(step, best=1), keep=2)
    forbid(tmp_path / name)
    with pytest.raises(MetaprimeError, match=rf"^{tmp_path / name}: permission denied"):
        newest_checkpoint(tmp_path)
