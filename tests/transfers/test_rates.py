"""The choice of the learning rate on the held-out languages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from toy_config import Parts
from toy_transfers import elsewhere, transferred

from metaprime.build.data import Split
from metaprime.config.loading import override
from metaprime.config.sections import Config, DataConfig, TransferConfig
from metaprime.transfers import stacked
from metaprime.transfers.held_out import Validation
from metaprime.transfers.rates import best_rate, check_rates, choose_rates, try_rates
from metaprime.transfers.start import KShotRun, TransferContext
from metaprime.types import MetaprimeError, Params


@pytest.fixture
def validation(parts: Parts) -> Callable[..., Validation]:
    """`validation(higher_is_better=False)`: two held-out languages without rows."""

    def make(higher_is_better: bool = True) -> Validation:
        kind, empty = parts.task.kind, Split([], [])
        metric = replace(kind.metric, higher_is_better=higher_is_better)
        task = replace(parts.task, kind=replace(kind, metrics=(metric, *kind.metrics[1:])))
        context = replace(parts.context(TransferConfig()), task=task, primed={"head.bias": parts.start["head.bias"]})
        return Validation(context, {"qad": empty, "qac": empty}, 0)

    return make


def test_only_several_rates_need_a_language() -> None:
    one, several = TransferConfig(lr=(0.1,)), TransferConfig(lr=(0.1, 0.2))
    bare, named = (DataConfig(languages=("qaa",), validation_languages=names) for names in ((), ("qac",)))
    for settings, data in ((one, bare), (one, named), (several, named)):
        check_rates(settings, data)
    with pytest.raises(MetaprimeError, match=r"lists several rates: data\.validation_languages must name languages"):
        check_rates(several, bare)


def test_a_single_rate_reads_no_held_out_language() -> None:
    def unwanted() -> NoReturn:
        raise AssertionError("the held-out languages were read")

    assert choose_rates([0.03], [4, 8], unwanted) == {4: 0.03, 8: 0.03}


@pytest.mark.parametrize(("higher_is_better", "rates"), [(True, {4: 0.2, 8: 0.1}), (False, {4: 0.1, 8: 0.3})])
def test_the_best_rate_of_each_k_follows_the_direction_of_the_metric(
    validation: Callable[..., Validation],
    monkeypatch: pytest.MonkeyPatch,
    higher_is_better: bool,
    rates: dict[int, float],
) -> None:
    means = {(4, 0.1): 1.0, (4, 0.2): 3.0, (4, 0.3): 2.0, (8, 0.1): 3.0, (8, 0.2): 2.0, (8, 0.3): 1.0}

    def scores(self: Validation, backbone: Params, primed: Params, lr: float, shots: int, languages: Any) -> Any:
        return {"qac": means[shots, lr] - 1, "qad": means[shots, lr] + 1}

    monkeypatch.setattr(Validation, "scores", scores)
    read: list[Validation] = []

    def held_out() -> Validation:
        read.append(validation(higher_is_better))
        return read[0]

    assert choose_rates([0.1, 0.2, 0.3], [4, 8], held_out) == rates
    assert len(read) == 1


def test_the_first_of_equal_rates_is_taken(validation: Callable[..., Validation]) -> None:
    assert best_rate({0.3: 1.0, 0.1: 2.0, 0.2: 2.0}, validation()) == 0.1
    assert best_rate({0.3: 1.0, 0.1: 1.0, 0.2: 2.0}, validation(higher_is_better=False)) == 0.3


def test_every_rate_is_tried_with_every_k_on_all_languages_from_the_contexts_weights(
    validation: Callable[..., Validation], monkeypatch: pytest.MonkeyPatch
) -> None:
    held_out = validation()
    calls: list[tuple[float, int, Sequence[str]]] = []

    def scores(
        self: Validation, backbone: Params, primed: Params, lr: float, shots: int, languages: Sequence[str]
    ) -> dict[str, float]:
        assert backbone is held_out.context.backbone
        assert primed is held_out.context.primed
        calls.append((lr, shots, languages))
        return {"qac": 10 * lr, "qad": float(shots)}

    monkeypatch.setattr(Validation, "scores", scores)
    assert try_rates([0.1, 0.2], [4, 8], held_out) == {4: {0.1: 2.5, 0.2: 3.0}, 8: {0.1: 4.5, 0.2: 5.0}}
    assert calls == [(lr, shots, ["qac", "qad"]) for shots in (4, 8) for lr in (0.1, 0.2)]


def test_rates_that_finished_cells_were_given_are_not_chosen_again(
    primed_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = elsewhere(primed_run, tmp_path / "run", "transfer.methods=[head, lora]", "transfer.lr=[0.01, 0.02]")
    asked: list[int] = []

    def scores(self: Validation, backbone: Params, primed: Params, lr: float, *rest: Any) -> dict[str, float]:
        asked.append(len(self.context.model.adapter))
        return {"qac": lr}

    monkeypatch.setattr(Validation, "scores", scores)
    transferred(config)
    assert [bool(sites) for sites in asked] == [False, False, True, True]
    asked.clear()
    more = transferred(override(config, "transfer.seeds=[0, 1]"))
    assert asked == []
    assert {record["training"]["lr"] for record in more} == {0.02}


def test_of_several_rates_the_best_on_validation_languages_is_taken_per_method_and_k(
    primed_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def scores(self: Validation, backbone: Params, primed: Params, lr: float, shots: int, languages: list[str]) -> Any:
        asked.append((lr, shots, tuple(languages)))
        best = {4: 0.02, 8: 0.01 if self.context.model.adapter else 0.05}[shots]
        return dict.fromkeys(languages, 10.0 if lr == best else 5.0)

    monkeypatch.setattr(Validation, "scores", scores)
    config = elsewhere(
        primed_run,
        tmp_path / "run",
        *("transfer.lr=[0.01, 0.02, 0.05]", "transfer.shots=[4, 8]", "transfer.methods=[pfeiffer, head]"),
    )
    found = {(r["cell"]["method"], r["cell"]["shots"]): r["training"]["lr"] for r in transferred(config)}
    assert found == {("pfeiffer", 4): 0.02, ("pfeiffer", 8): 0.01, ("head", 4): 0.02, ("head", 8): 0.05}
    assert len(asked) == 12
    assert {languages for _, _, languages in asked} == {("qac",)}


@pytest.mark.parametrize("method", ["full", "head"])
def test_rates_are_chosen_by_the_fine_tuning_they_are_for(
    primed_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    moved = []
    honest = stacked.fine_tune

    def watched(context: TransferContext, run: KShotRun, lr: float, *, count: bool = False) -> Any:
        # The FLOPs of fine-tunings that are kept are counted, those of others are not.
        if not count:
            moved.append({name.split(".")[0] for name in run.start()})
        return honest(context, run, lr, count=count)

    monkeypatch.setattr(stacked, "fine_tune", watched)
    transferred(elsewhere(primed_run, tmp_path / "run", f"transfer.methods=[{method}]", "transfer.lr=[0.01, 0.02]"))
    assert moved == [{"backbone", "head"} if method == "full" else {"head"}] * 2


def test_several_rates_without_a_language_to_choose_on_are_refused(primed_run: Config, tmp_path: Path) -> None:
    config = elsewhere(primed_run, tmp_path / "run", "transfer.lr=[0.01, 0.02]", "data.validation_languages=[]")
    with pytest.raises(MetaprimeError, match=r"transfer\.lr lists several rates: data\.validation_languages must name"):
        transferred(config)


def test_no_sentence_needs_no_rate(validation: Callable[..., Validation], monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted() -> NoReturn:
        raise AssertionError("the held-out languages were read")

    assert choose_rates([0.1, 0.2], [0], unwanted) == {0: 0.0}
    assert choose_rates([0.1], [0, 8], unwanted) == {0: 0.0, 8: 0.1}
    check_rates(TransferConfig(lr=(0.1, 0.2), shots=0), DataConfig(languages=("qaa",), validation_languages=()))

    asked: list[int] = []

    def scores(self: Validation, backbone: Params, primed: Params, lr: float, shots: int, names: Sequence[str]) -> Any:
        asked.append(shots)
        return dict.fromkeys(names, lr)

    monkeypatch.setattr(Validation, "scores", scores)
    assert choose_rates([0.1, 0.2], [0, 8], validation) == {0: 0.0, 8: 0.2}
    assert set(asked) == {8}
