"""The task of a config in windows that fit the encoder, and the rows of priming, held-out and target languages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_config import MakeConfig
from toy_corpus import corpus

from metaprime.build.data import (
    LEAST_ROOM,
    Split,
    build_task,
    priming_rows,
    restored_task,
    target_rows,
    text_alone,
    validation_rows,
)
from metaprime.config.loading import load_config
from metaprime.config.sections import Config, DataConfig
from metaprime.data.audit import Finding
from metaprime.data.readers import synthetic
from metaprime.data.rows import Example, Row
from metaprime.data.subwords import SMALL
from metaprime.models.encoder import Encoder, load_encoder
from metaprime.models.language_head import LanguageHead
from metaprime.models.sites import resolve
from metaprime.rng import torch_stream
from metaprime.tasks.task import Task
from metaprime.types import IGNORE, MetaprimeError

LONG = Example(("a",) * 400, ("O",) * 400, "x:1")


@pytest.fixture
def encoder(toy_bert: Path) -> Encoder:
    return load_encoder(str(toy_bert))


@pytest.fixture
def config(tiny: MakeConfig, tmp_path: Path) -> Config:
    return tiny(tmp_path / "unused", "data.max_length=500")


@pytest.fixture
def task(config: Config, encoder: Encoder) -> Task:
    return build_task(config.task, config.data, encoder, config.peft)


def lengths(task: Task, example: Example = LONG) -> list[int]:
    """Returns the sub-words of each window of a sentence."""
    return [len(window.input_ids) for window in task.encode([example])[0].windows]


def words(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    return [row.example.words for row in rows]


@pytest.mark.parametrize(("architecture", "longest"), [("bert", 130), ("roberta", 128), ("xlm-roberta", 128)])
def test_the_longest_sentence_is_what_the_positions_leave(
    toy_encoder: Callable[[str], Path], architecture: str, longest: int
) -> None:
    """The toys have 130 positions; RoBERTa's and XLM-R's count from the padding id + 1."""
    encoder = load_encoder(str(toy_encoder(architecture)))
    config = load_config(None, ["data.max_length=512"])
    task = build_task(config.task, config.data, encoder, config.peft)
    rows = task.encode([Example(("a",) * 300, ("O",) * 300, "x:1"), Example(("a",), ("O",), "x:2")])
    assert max(len(window.input_ids) for window in rows[0].windows) == longest
    batch = task.collate(rows)
    assert batch["input_ids"][-1, 3:].eq(encoder.module.config.pad_token_id).all()
    assert encoder.module.config.pad_token_id == (0 if architecture == "bert" else 1)
    with torch.no_grad():
        hidden = encoder.module(**{name: batch[name] for name in ("input_ids", "attention_mask")}).last_hidden_state
        assert bool(torch.isfinite(hidden).all())
        one_more = torch.full((1, longest + 1), 5)
        with pytest.raises((IndexError, RuntimeError)):
            encoder.module(input_ids=one_more, attention_mask=torch.ones_like(one_more))


def test_a_tokenizer_with_a_shorter_limit_decides(encoder: Encoder, config: Config) -> None:
    encoder.tokenizer.model_max_length = 40
    assert max(lengths(build_task(config.task, config.data, encoder, config.peft))) == 40


def test_a_config_may_ask_for_shorter_windows_that_overlap_or_for_the_first_alone(
    encoder: Encoder, config: Config
) -> None:
    """Of 30 sub-words two are special: 400 words take 15 windows without overlap, 29 with half of each repeated."""
    assert len(LONG.words) == 400
    windows = {}
    for overlap, long in ((0.0, "windows"), (0.5, "windows"), (0.0, "truncate")):
        data = config.data.model_copy(update={"max_length": 30, "overlap": overlap, "long": long})
        windows[overlap, long] = lengths(build_task(config.task, data, encoder, config.peft))
    assert all(max(found) == 30 for found in windows.values())
    assert windows[0.0, "truncate"] == [30]
    # One sub-word for each word: "a" is a piece of its own.
    assert len(windows[0.0, "windows"]) == -(-400 // 28)
    assert len(windows[0.5, "windows"]) == -(-(400 - 14) // 14)


def test_a_prompt_that_leaves_no_room_is_refused_by_its_own_key(encoder: Encoder) -> None:
    config = load_config(None, [f"encoder.name={encoder.name}", "peft={method: prompt, length: 125}"])
    with pytest.raises(MetaprimeError, match=r"peft\.length 125: this encoder has 130 positions, .* at most 122"):
        build_task(config.task, config.data, encoder, config.peft)


def test_the_longest_prompt_leaves_the_least_room(encoder: Encoder) -> None:
    longest = 130 - LEAST_ROOM
    config = load_config(None, ["data.max_length=500", f"peft={{method: prompt, length: {longest}}}"])
    assert max(lengths(build_task(config.task, config.data, encoder, config.peft))) == LEAST_ROOM


def test_sentences_leave_room_for_a_prompt(encoder: Encoder) -> None:
    """130 positions: a sentence of 128 sub-words is read in windows of 114."""
    longest = {}
    for method in ("head", "prompt"):
        keys = [f"encoder.name={encoder.name}", "learner.name=multitask", "data.max_length=500"]
        config = load_config(None, [*keys, "transfer.methods=[head]", f"peft.method={method}"])
        longest[method] = max(lengths(build_task(config.task, config.data, encoder, config.peft)))
    assert longest == {"head": 130, "prompt": 130 - 16}


def test_a_saved_head_reads_the_longest_windows_whatever_the_config_said(encoder: Encoder) -> None:
    config = load_config(None, ["data.max_length=20", "peft={method: prompt, length: 10}", "task.labels=[PER]"])
    restored = restored_task(config.task, encoder, config.peft)
    assert max(lengths(restored)) == 120
    assert restored.labels == ("O", "B-PER", "I-PER")


def test_tokenised_text_is_cached_on_disk_only_if_asked(
    encoder: Encoder, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METAPRIME_CACHE", str(tmp_path / "cache"))
    rows = {}
    for cache in (False, True):
        task = build_task(config.task, config.data, encoder, config.peft, cache)
        rows[cache] = task.encode([LONG] * SMALL)
        assert (tmp_path / "cache").exists() == cache
    assert rows[False] == rows[True]


def test_rows_of_priming_are_all_training_sentences_of_each_language(task: Task, config: Config) -> None:
    rows = priming_rows(task, config.data, 0)
    assert list(rows) == ["qaa", "qaf"]
    for language, pool in rows.items():
        assert [row.example for row in pool] == synthetic.read("", language, "train")
        assert pool == task.encode(synthetic.read("", language, "train"))


def test_a_fatal_finding_ends_the_run_and_names_source_and_split(task: Task, config: Config) -> None:
    missing = replace(
        task, audit=lambda where, examples: [Finding("fatal", "no entity", where, len(examples), "not one entity")]
    )
    with pytest.raises(MetaprimeError, match=r"^synthetic: qaa/train: not one entity$"):
        priming_rows(missing, config.data, 0)


def test_other_findings_are_logged_for_each_language(
    task: Task, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    seen: dict[str, int] = {}

    def audit(where: str, examples: Sequence[Example]) -> list[Finding]:
        seen[where] = len(examples)
        return [Finding("problem", "missing type", where, 1, "no entity of type LOC")]

    with caplog.at_level(logging.WARNING, "metaprime.build.data"):
        rows = priming_rows(replace(task, audit=audit), config.data, 0)
    assert seen == {f"{language}/train": len(pool) for language, pool in rows.items()}
    assert caplog.messages == [f"{where}: no entity of type LOC" for where in seen]


def test_a_control_shuffles_labels_by_seed_and_language_after_the_audit(
    encoder: Encoder, config: Config, task: Task
) -> None:
    real = priming_rows(task, config.data, 0)
    control = build_task(config.task.model_copy(update={"shuffle_tags": True}), config.data, encoder, config.peft)
    assert control.shuffle is not None
    shuffled = priming_rows(control, config.data, 3)
    for language, pool in shuffled.items():
        assert words(pool) == words(real[language])
        expected = control.shuffle(synthetic.read("", language, "train"), 3, language)
        assert [row.example.gold for row in pool] == [example.gold for example in expected]
        assert pool != real[language]
    # The audit sees the corpus, not the control.
    audited: list[Example] = []
    spy = replace(control, audit=lambda where, examples: audited.extend(examples) or [])
    priming_rows(spy, config.data, 3)
    assert audited == [row.example for pool in real.values() for row in pool]


@pytest.mark.parametrize(
    ("read", "split"), [(validation_rows, "validation"), (target_rows, "test")], ids=["validation", "target"]
)
def test_a_language_is_trained_on_one_split_and_scored_on_another(
    task: Task, config: Config, read: Callable[..., Split], split: str
) -> None:
    whole, few = (read(task, config.data, "qai", most) for most in (None, 5))
    scored = task.encode(synthetic.read("", "qai", split))
    assert whole.train == few.train == task.encode(synthetic.read("", "qai", "train"))
    assert whole.scored == scored
    # The training rows are not cut.
    assert few.scored == scored[:5]


def test_splits_and_sources_are_those_of_the_config(task: Task, config: Config) -> None:
    asked: list[tuple[str, str, str]] = []

    def read(source: str, language: str, split: str) -> list[Example]:
        asked.append((source, language, split))
        return [Example(("a",), ("B-PER",))]

    names = {"source": "s:", "train_split": "learn", "validation_split": "dev", "test_split": "eval"}
    for sources in ({}, {"validation_source": "v:", "target_source": "t:"}):
        data = config.data.model_copy(update=names | sources)
        spy = replace(task, read=read)
        priming_rows(spy, data, 0)
        validation_rows(spy, data, "qac", 3)
        target_rows(spy, data, "qai", 3)
    primed = [("s:", "qaa", "learn"), ("s:", "qaf", "learn")]
    assert asked == [
        *primed,
        *(("s:", "qac", split) for split in ("learn", "dev")),
        *(("s:", "qai", split) for split in ("learn", "eval")),
        *primed,
        *(("v:", "qac", split) for split in ("learn", "dev")),
        *(("t:", "qai", split) for split in ("learn", "eval")),
    ]


def test_text_alone_has_the_encoders_own_head_and_hides_words(toy_encoder: Callable[..., Path], config: Config) -> None:
    encoder = load_encoder(str(toy_encoder("bert", speaks=True)))
    labelled = build_task(config.task, config.data, encoder, config.peft)
    masked = text_alone(labelled, encoder)
    head = masked.new_head(resolve(encoder.module, encoder.layout))
    assert isinstance(head, LanguageHead)
    assert masked.corrupt is not None
    rows = masked.encode(masked.read("synthetic:", "qaa", "train")[:20])
    changed = masked.corrupt(rows, torch_stream(0, "mask"))
    guessed = 0
    for before, after in zip(rows, changed, strict=True):
        for one, other in zip(before.windows, after.windows, strict=True):
            assert all(label in (IGNORE, id) for label, id in zip(other.labels, one.input_ids, strict=True))
            guessed += sum(label != IGNORE for label in other.labels)
    assert guessed > 0


def test_text_alone_needs_the_checkpoints_masked_word_head(task: Task, encoder: Encoder) -> None:
    masked = text_alone(task, encoder)
    with pytest.raises(MetaprimeError, match="comes without its masked-word head"):
        masked.new_head(resolve(encoder.module, encoder.layout))


def test_text_alone_needs_a_mask_token(task: Task, encoder: Encoder) -> None:
    encoder.tokenizer.mask_token = None
    with pytest.raises(MetaprimeError, match="no mask token"):
        text_alone(task, encoder)


@pytest.mark.parametrize("read", [validation_rows, target_rows])
def test_without_training_the_training_split_need_not_exist(
    task: Task, config: Config, read: Callable[..., Split]
) -> None:
    whole = read(task, config.data, "qai", 5)
    data = config.data.model_copy(update={"train_split": "nowhere"})
    found = read(task, data, "qai", 5, trains=False)
    assert (found.train, found.scored) == ([], whole.scored)
    assert (found.rows, whole.rows) == (whole.scored, whole.train)
    with pytest.raises(MetaprimeError, match="nowhere"):
        read(task, data, "qai", 5)


ELSEWHERE = {"source": "languages", "validation_source": "validation_languages", "target_source": "target_languages"}
READERS: dict[str, Callable[[Task, DataConfig], Any]] = {
    "languages": lambda task, data: priming_rows(task, data, 0),
    "validation_languages": lambda task, data: validation_rows(task, data, data.validation_languages[0], None),
    "target_languages": lambda task, data: target_rows(task, data, data.target_languages[0], None),
}


@pytest.mark.parametrize("key", READERS)
@pytest.mark.parametrize(
    ("scheme", "has"), [("synthetic:", r"it has qaa, .*"), ("conll:%s", r".*/xx: no such language; .* has qaa, qac.*")]
)
def test_a_language_that_is_not_there_is_refused_by_the_key_that_names_it(
    task: Task, config: Config, tmp_path: Path, key: str, scheme: str, has: str
) -> None:
    place = corpus(tmp_path, "qaa", "qac", "qai") if "%s" in scheme else None
    source = scheme % place if place else scheme
    data = config.data.model_copy(update={"source": source, key: ("xx",)})
    with pytest.raises(MetaprimeError, match=rf"^data\.{key}: .*{has}"):
        READERS[key](task, data)


@pytest.mark.parametrize(
    ("key", "reader"),
    [
        ("train_split", "languages"),
        ("train_split", "validation_languages"),
        ("train_split", "target_languages"),
        ("validation_split", "validation_languages"),
        ("test_split", "target_languages"),
    ],
)
def test_a_split_that_is_not_there_is_refused_by_its_key(task: Task, config: Config, key: str, reader: str) -> None:
    data = config.data.model_copy(update={key: "xx"})
    with pytest.raises(MetaprimeError, match=rf"^data\.{key}: synthetic: has no split 'xx'; it has train, "):
        READERS[reader](task, data)


@pytest.mark.parametrize(("key", "reader"), ELSEWHERE.items())
@pytest.mark.parametrize("source", ["conll:/no/such", "conl:x", "synthetic:x", "hub:/x y", "jsonl:"])
def test_a_source_that_is_not_there_is_refused_by_its_key(
    task: Task, config: Config, key: str, reader: str, source: str
) -> None:
    data = config.data.model_copy(update={key: source})
    with pytest.raises(MetaprimeError, match=rf"^data\.{key}: "):
        READERS[reader](task, data)
    # Without a corpus of their own, held-out and target languages are of `source`.
    with pytest.raises(MetaprimeError, match=r"^data\.source: "):
        READERS[reader](task, config.data.model_copy(update={"source": source}))
