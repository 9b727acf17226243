"""Checks before torch is loaded: what they refuse, the commands would refuse in the same words, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from metaprime.config.loading import override
from metaprime.config.sections import Config
from metaprime.preflight.dry_run import DryRun
from metaprime.preflight.early import Early
from metaprime.priming.setup import set_up
from metaprime.tasks import TASKS, reads_corpora
from metaprime.types import MetaprimeError


@pytest.fixture
def config(tiny: Callable[..., Config], tmp_path: Path) -> Config:
    return override(tiny("bert"), f"run.output={tmp_path / 'run'}")


WRONG = {
    "encoder": ("encoder.name=./gone",),
    "language": ("data.languages=[zz]",),
    "split": ("data.train_split=training",),
    "held-out language": ("data.validation_languages=[zz]",),
    "labels": ("task.labels=[PER, PER]",),
    "one class": ("task={name: tagging, scheme: none, labels: [NOUN]}",),
    "no classes": ("task={name: classification}",),
    "parted choices": ("task={name: multiple_choice}", "inner.micro_batch=3"),
    "settings": ("learner.name=reptile", "inner.order=second"),
    "shares": ("transfer.leave_out=99",),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_priming_run_is_refused_in_the_words_of_the_run_itself(name: str, config: Config) -> None:
    from accelerate import Accelerator

    wrong = override(config, "outer.validate_every=1", *WRONG[name])
    with pytest.raises(MetaprimeError) as early:
        Early(wrong).priming()
    with pytest.raises(MetaprimeError) as late:
        set_up(wrong, Accelerator())
    assert str(early.value) == str(late.value)


def test_what_the_commands_take_is_not_refused(config: Config) -> None:
    Early(config).prime(False, False, False)
    Early(config).priming()
    assert Early(config).refusals() == DryRun(config).refusals() == []
    Early(override(config, "transfer.encoder=base")).transfer()
    # The held-out languages of a run that scores none are not read.
    Early(override(config, "outer.validate_every=0", "data.validation_languages=[zz]")).priming()
    Early(override(config, "data.validation_languages=[zz]")).priming(validates=False)


def test_a_finished_run_is_resumed_without_its_inputs(primed_run: Config) -> None:
    Early(primed_run).prime(True, False, False)
    gone = override(primed_run, "encoder.name=./gone", "inner.lr=0.1", "outer.lr=0.1", "transfer.lr=0.1")
    Early(gone).prime(True, False, True)
    with pytest.raises(MetaprimeError, match="already holds this run"):
        Early(primed_run).prime(False, False, False)


def test_both_commands_are_named_for_their_own_mistakes(config: Config) -> None:
    wrong = override(config, "data.languages=[zz]", "data.target_languages=[yy]")
    first, second = Early(wrong).refusals()
    assert first.startswith("prime: data.languages: ")
    assert second.startswith("transfer: data.target_languages: ")


def test_a_task_of_ones_own_may_read_in_its_own_way(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [name for name in TASKS if reads_corpora(name)] == [*TASKS]
    wrong = override(config, "data.languages=[zz]")
    monkeypatch.setattr("metaprime.preflight.early.reads_corpora", lambda name: False)
    Early(wrong).priming()


def test_a_source_of_words_is_refused_for_a_task_over_texts(config: Config) -> None:
    wrong = override(config, "task={name: classification, labels: [good, bad]}", "data.source='conll:data'")
    with pytest.raises(MetaprimeError, match="conll:data: this source has sentences of words, not whole texts"):
        Early(wrong).priming()


def test_an_arm_is_refused_for_its_priming_first(config: Config) -> None:
    wrong = override(config, "data.languages=[zz]", "data.target_languages=[yy]")
    assert Early(config).arm(Early(config)) == []
    (line,) = Early(wrong).arm(Early(wrong))
    assert line.startswith("data.languages: ")
    (line,) = Early(wrong).arm(None)
    assert line.startswith("data.target_languages: ")
