"""Which weights a run keeps: those that score best on the held-out languages, and of equals the later ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from toy_config import MakeConfig, Parts

from metaprime.config.sections import OuterConfig, TransferConfig
from metaprime.models.encoder import load_encoder
from metaprime.models.task_model import partition
from metaprime.priming.best import Best, validated
from metaprime.priming.prime import prime
from metaprime.runs.checkpoint import load_best, newest_checkpoint
from metaprime.runs.log import read_metrics
from metaprime.transfers.held_out import Validation
from metaprime.types import MetaprimeError, Params, State

SETTINGS = TransferConfig(lr=(0.5, 0.1), shots=(7, 3))


def watched(parts: Parts, folder: Path, *, higher_is_better: bool = True) -> Best:
    """A best over one held-out language that `Validation.mean` is to be replaced for."""
    kind = parts.task.kind
    metric = replace(kind.metric, higher_is_better=higher_is_better)
    context = parts.context(SETTINGS)
    task = replace(parts.task, kind=replace(kind, metrics=(metric, *kind.metrics[1:])))
    return Best(Validation(replace(context, task=task), {}, 0), folder, Accelerator())


def weights_at(parts: Parts, step: int) -> Params:
    return {**parts.state.adapter, "head.bias": torch.full((7,), float(step))}


def looks(best: Best, parts: Parts, scores: Mapping[int, float], monkeypatch: pytest.MonkeyPatch) -> None:
    coming = iter(scores.values())
    monkeypatch.setattr(Validation, "mean", lambda *given: next(coming))
    for step in scores:
        best.look(parts.state, weights_at(parts, step), step)


@pytest.mark.parametrize(
    ("scores", "higher_is_better", "steps"),
    [
        ({0: 1.0, 2: 3.0, 4: 2.0}, True, 2),
        ({0: 1.0, 2: 3.0, 4: 3.0}, True, 4),
        ({0: 3.0, 2: 1.0, 4: 2.0}, True, 0),
        ({0: 1.0, 2: 3.0, 4: 2.0}, False, 0),
        ({0: 3.0, 2: 1.0, 4: 1.0}, False, 4),
    ],
)
def test_the_best_by_the_metrics_own_direction_is_put_back(
    parts: Parts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scores: dict[int, float],
    higher_is_better: bool,
    steps: int,
) -> None:
    best = watched(parts, tmp_path, higher_is_better=higher_is_better)
    looks(best, parts, scores, monkeypatch)
    assert (best.score, best.steps) == (scores[steps], steps)
    assert load_best(tmp_path, steps).state == {"score": scores[steps]}
    assert best.put_back(parts.model, 9) == steps
    assert parts.state.head["head.bias"].tolist() == [steps] * 7


def test_what_is_scored_is_theta_with_what_priming_does_not_move_and_the_first_of_rates_and_shots(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[object, ...]] = []

    def mean(self: Validation, backbone: Params, primed: Params, *rest: object) -> float:
        whole = partition(self.context.model).backbone
        assert backbone.keys() == whole.keys()
        assert {name for name in whole if backbone[name] is not moved.backbone.get(name)} == set(unused)
        seen.append((set(primed), *rest))
        return 1.0

    monkeypatch.setattr(Validation, "mean", mean)
    best = watched(parts, tmp_path)
    moved = State({name: value + 1 for name, value in parts.state.backbone.items()}, parts.state.adapter, {})
    unused = [name for name in partition(parts.model).backbone if name.startswith("backbone.pooler.")]
    assert best.look(moved, {}, 3) == {"validation_f1": 1.0, "best_step": 3}
    assert seen == [(set(parts.state.adapter), 0.5, 7, best.accelerator)]


def test_a_checkpoint_keeps_it(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best, again = watched(parts, tmp_path), watched(parts, tmp_path)
    assert best.saved() is None
    looks(best, parts, {2: 4.5}, monkeypatch)
    again.restore(best.saved())
    assert (again.score, again.steps) == (4.5, 2)
    again.restore(None)
    assert (again.score, again.steps) == (None, 0)
    before = parts.state.head["head.bias"].clone()
    assert again.put_back(parts.model, 9) == 9
    assert torch.equal(parts.state.head["head.bias"], before)


def test_another_process_writes_nothing(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = cast(Accelerator, SimpleNamespace(is_main_process=False))
    best = replace(watched(parts, tmp_path), accelerator=second)
    looks(best, parts, {2: 4.5}, monkeypatch)
    assert best.score == 4.5
    assert list(tmp_path.glob("best-*")) == []


def test_a_fine_tuning_that_fails_names_the_step(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mean(*given: object) -> float:
        raise MetaprimeError("fine-tuning on language 'qac': the loss is nan")

    monkeypatch.setattr(Validation, "mean", mean)
    with pytest.raises(
        MetaprimeError, match=r"validation at step 7: fine-tuning on language 'qac'.*; or lower outer\.lr"
    ):
        watched(parts, tmp_path).look(parts.state, {}, 7)


def test_a_line_of_any_task_says_its_score() -> None:
    assert validated({"step": 3, "validation_f1": 12.5, "best_step": 2}) == 12.5
    assert validated({"step": 3, "validation_accuracy": 0}) == 0.0
    assert validated({"step": 3, "query_loss": 1.0}) is None


@pytest.mark.parametrize(
    ("scores", "best"),
    [((0.0, 1.0, 5.0, 3.0), 2), ((1.0, 4.0, 4.0, 1.0), 2), ((0.0, 1.0, 2.0, 3.0), 3), ((9.0, 1.0, 2.0, 3.0), 0)],
)
def test_the_best_validated_weights_are_kept(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: tuple[float, ...], best: int
) -> None:
    coming = iter(scores)
    seen: list[Params] = []

    def mean(self: Validation, backbone: Params, primed: Params, *rest: object) -> float:
        seen.append({name: value.detach().clone() for name, value in {**backbone, **primed}.items()})
        return next(coming)

    monkeypatch.setattr(Validation, "mean", mean)
    primed = prime(tiny(tmp_path / "run", "outer.steps=3", "outer.validate_every=1", "outer.patience=null"))
    assert (primed.provenance["steps"], primed.provenance["validation_f1"]) == (best, scores[best])
    saved = {f"backbone.{name}": value for name, value in load_file(primed.path / "model.safetensors").items()}
    saved |= load_file(primed.path / "metaprime.safetensors")
    assert len(seen) == 4
    for step, weights in enumerate(seen):
        assert weights.keys() == saved.keys()
        assert all(torch.equal(saved[name], weights[name]) for name in saved) == (step == best)
    lines = read_metrics(tmp_path / "run")
    assert [line["validation_f1"] for line in lines] == list(scores)
    assert [line["best_step"] for line in lines][-1] == best
    base = load_encoder(tiny(tmp_path).encoder.name).module.state_dict()
    unmoved = all(torch.equal(saved[f"backbone.{name}"], value) for name, value in base.items())
    # Priming that only does harm leaves the encoder as it was.
    assert unmoved == (best == 0)


def test_without_validation_the_last_weights_are_kept(tiny: MakeConfig, tmp_path: Path) -> None:
    changes = ("outer.validate_every=0", "outer.steps=2", "outer.checkpoint_every=1")
    primed = prime(tiny(tmp_path / "run", *changes))
    assert primed.provenance["steps"] == 2
    assert primed.provenance["validation_f1"] is None
    last = newest_checkpoint(tmp_path / "run" / "state")
    assert last is not None
    saved = load_file(primed.path / "model.safetensors")
    assert all(
        torch.equal(last.tensors[f"backbone.{name}"], value) for name, value in saved.items() if "pooler" not in name
    )
    assert not list((tmp_path / "run" / "state").glob("best*"))


def test_a_best_that_is_later_than_the_checkpoint_is_not_the_resumed_runs(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(tmp_path / "run", "outer.steps=6", "outer.validate_every=1", "outer.checkpoint_every=2")
    scores = iter([1.0, 2.0, 3.0, 9.0])
    monkeypatch.setattr(Validation, "mean", lambda *parts: next(scores))
    # After step 3, whose weights were the best; the checkpoint is of step 2.
    with pytest.raises(StopIteration):
        prime(config)
    states = tmp_path / "run" / "state"
    assert {path.name for path in states.glob("best*")} == {f"best-{step:08d}" for step in (2, 3)}
    # As with another config and --force.
    monkeypatch.setattr(Validation, "mean", lambda *parts: 0.5)
    assert prime(config, resume=True).provenance["steps"] == 2
    assert {path.name for path in states.iterdir()} == {"best-00000002", "step-00000004", "step-00000006"}


def test_validation_that_diverges_names_step_and_language(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", "transfer.lr=1e30", "outer.validate_every=2")
    with pytest.raises(MetaprimeError, match=r"validation at step 0: .*language 'qac'.*; or lower outer\.lr"):
        prime(config)


@pytest.mark.parametrize(
    ("best", "early_stop", "last"),
    [(0, 2, 100), (50, 2, 200), (200, 1, 300), (100, None, None)],
    ids=["counted at half of N too", "from the best on", "one is enough", "never"],
)
def test_priming_ends_after_so_many_scores_past_the_best(
    parts: Parts, tmp_path: Path, best: int, early_stop: int | None, last: int | None
) -> None:
    outer = OuterConfig(steps=400, validate_every=100, early_stop=early_stop)
    found = replace(watched(parts, tmp_path), score=1.0, steps=best, gained=best)
    first = next((steps for steps in range(best, 400) if found.ends(steps, outer)), None)
    assert first == last
    assert not replace(found, score=None).ends(400, outer)


def test_ties_bring_later_weights_and_no_gain(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outer = OuterConfig(steps=400, validate_every=100, early_stop=2)
    best = watched(parts, tmp_path)
    looks(best, parts, {0: 0.0, 50: 0.0, 100: 0.0}, monkeypatch)
    assert (best.steps, best.gained) == (100, 0)
    assert best.ends(100, outer)
    again = watched(parts, tmp_path)
    again.restore(best.saved())
    assert again.ends(100, outer)
    # A checkpoint of before ties were counted.
    again.restore([0.0, 100, 0.0])
    assert (again.gained, again.unprimed) == (100, 0.0)
    again.restore([0.0, 50])
    assert (again.gained, again.unprimed) == (50, None)
