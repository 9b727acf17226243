"""The held-out languages: what is read, how an encoder is scored on them, and how processes share the work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from toy_config import Parts

from metaprime.config.loading import override
from metaprime.config.sections import TransferConfig
from metaprime.data.episodes import sample
from metaprime.transfers import held_out as module
from metaprime.transfers.evaluate import evaluate
from metaprime.transfers.finetune import fine_tune
from metaprime.transfers.held_out import Validation, held_out_splits
from metaprime.transfers.start import KShotRun, TransferContext, k_shot_run
from metaprime.types import MetaprimeError, Params

SETTINGS = TransferConfig(shots=(8,), steps=4, batch=4, test_sentences=20)
LANGUAGES = ["qac", "qad", "qae"]


@pytest.fixture
def validation(parts: Parts) -> Validation:
    """Three held-out languages, scored on twenty sentences each."""
    data = override(parts.config, f"data.validation_languages=[{', '.join(LANGUAGES)}]").data
    return Validation(parts.context(SETTINGS), held_out_splits(parts.task, data, SETTINGS), 6)


def primed_values(parts: Parts) -> Params:
    return {name: value.detach() + 0.01 for name, value in parts.start.items()}


def test_rows_come_from_the_training_and_the_validation_split_of_each_language(parts: Parts) -> None:
    data = override(parts.config, "data.validation_languages=[qac, qad]").data
    splits = held_out_splits(parts.task, data, SETTINGS)
    assert list(splits) == ["qac", "qad"]
    for language, split in splits.items():
        assert len(split.scored) == 20
        assert len(split.train) > 20
        train = parts.task.read(data.source, language, data.train_split)
        scored = parts.task.read(data.source, language, data.validation_split)
        assert [row.example for row in split.train] == list(train)
        assert [row.example for row in split.scored] == list(scored)[:20]
    whole = held_out_splits(parts.task, data, SETTINGS.model_copy(update={"test_sentences": None}))
    assert len(whole["qac"].scored) > 20


def test_a_separate_source_of_validation_languages_is_read(parts: Parts) -> None:
    data = parts.config.data
    moved = data.model_copy(update={"source": "nowhere:", "validation_source": data.source})
    assert held_out_splits(parts.task, moved, SETTINGS) == held_out_splits(parts.task, data, SETTINGS)


def test_without_validation_languages_nothing_is_read(parts: Parts) -> None:
    data = parts.config.data.model_copy(update={"validation_languages": (), "source": "nowhere:"})
    assert held_out_splits(parts.task, data, SETTINGS) == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shots": (8, 100_000)}, r"language 'qac' has \d+ training sentences, transfer\.shots asks for 100000"),
        ({"shots": (2,), "stop": "development"}, r"development_share 0\.2 of 2 sentences"),
        ({"leave_out": 9}, r"leave_out 9 exceeds K = 8"),
    ],
)
def test_what_no_fine_tuning_could_use_is_refused_at_once(parts: Parts, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(MetaprimeError, match=words):
        held_out_splits(parts.task, parts.config.data, SETTINGS.model_copy(update=changes))


def test_a_score_is_that_of_a_fine_tuning_by_hand(parts: Parts, validation: Validation) -> None:
    settings = SETTINGS.model_copy(update={"start_adapter": "primed", "start_head": "primed", "steps": 30, "batch": 8})
    backbone = {name: value.detach() * 1.05 for name, value in parts.state.backbone.items()}
    primed = primed_values(parts)
    context = replace(validation.context, settings=settings, backbone=backbone, primed=primed)
    # Scored on what it was trained on, so that so short a training scores anything.
    drawn = {name: sample(split.train, 8, 6, name) for name, split in validation.splits.items()}
    splits = {name: replace(split, scored=drawn[name]) for name, split in validation.splits.items()}
    validation = replace(validation, context=replace(validation.context, settings=settings), splits=splits)
    for language in ("qad", "qae"):
        tuned = fine_tune(context, k_shot_run(context, drawn[language], 6, language), 0.05)
        by_hand, _ = evaluate(context.model, context.task, {**backbone, **tuned.values}, drawn[language])
        assert validation.scores(backbone, primed, 0.05, 8, [language]) == {language: by_hand.headline}
        assert by_hand.headline > 20
    assert set(validation.scores(backbone, primed, 0.05, 8, ["qae", "qad"])) == {"qad", "qae"}


def test_scoring_uses_the_given_weights_and_leaves_the_models_own_alone(
    parts: Parts, validation: Validation, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: value.detach().clone() for name, value in parts.model.named_parameters()}
    backbone = {name: value.detach() + 0.1 for name, value in parts.state.backbone.items()}
    primed, contexts = primed_values(parts), []
    honest = module.tune

    def watched(context: TransferContext, runs: Sequence[KShotRun], lr: float) -> Any:
        contexts.append(context)
        assert [(run.language, run.seed, len(run.rows)) for run in runs] == [("qac", 6, 4)]
        assert lr == 0.02
        return honest(context, runs, lr)

    monkeypatch.setattr(module, "tune", watched)
    validation.scores(backbone, primed, 0.02, 4, ["qac"])
    (context,) = contexts
    assert context.backbone is backbone
    assert context.primed is primed
    assert validation.context.backbone is not backbone
    assert all(torch.equal(value, before[name]) for name, value in parts.model.named_parameters())


def test_a_loss_that_is_not_finite_names_its_language(parts: Parts, validation: Validation) -> None:
    with pytest.raises(MetaprimeError, match=r"language 'qae': the loss is .*lower transfer\.lr"):
        validation.scores(dict(parts.state.backbone), primed_values(parts), 1e30, 8, ["qae"])


def test_processes_share_the_languages_and_add_up_to_the_mean(
    parts: Parts, validation: Validation, monkeypatch: pytest.MonkeyPatch
) -> None:
    each, asked = {"qac": 10.0, "qad": 25.0, "qae": 40.0}, []

    def scores(self: Validation, backbone: Params, primed: Params, lr: float, shots: int, languages: list[str]) -> Any:
        asked.append(languages)
        return {language: each[language] for language in languages}

    monkeypatch.setattr(Validation, "scores", scores)
    assert validation.mean({}, {}, 0.1, 8, Accelerator()) == 25.0
    assert asked == [LANGUAGES]
    asked.clear()
    sums: list[float] = []
    for rank, expected in ((0, 50.0), (1, 25.0)):

        def reduce(total: torch.Tensor, reduction: str) -> torch.Tensor:
            assert (reduction, total.dtype) == ("sum", torch.float64)
            sums.append(total.item())
            return torch.tensor(75.0, dtype=torch.float64)

        two = SimpleNamespace(process_index=rank, num_processes=2, device=torch.device("cpu"), reduce=reduce)
        assert validation.mean({}, {}, 0.1, 8, cast(Accelerator, two)) == 25.0
        assert sums[-1] == expected
    assert asked == [["qac", "qae"], ["qad"]]
