"""Tagging: loss on labelled sub-words only, one tag per word, and gold scored whole."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerFast

from metaprime.data.readers import synthetic
from metaprime.data.reading import Corpus, Format, Reading
from metaprime.data.rows import Example, Lengths, Row, Window
from metaprime.data.sources import CORPORA
from metaprime.data.subwords import Subwords
from metaprime.models.encoder import load_encoder
from metaprime.models.sites import resolve
from metaprime.rng import torch_stream
from metaprime.tasks import TASKS
from metaprime.tasks.head import LinearHead
from metaprime.tasks.tagging.scores import score
from metaprime.tasks.tagging.task import TaggingConfig, build, decode, of_labels, to_json
from metaprime.tasks.task import Task, Text
from metaprime.types import IGNORE

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


@pytest.fixture
def task(toy_tokenizer: PreTrainedTokenizerFast) -> Task:
    return build(TaggingConfig(labels=("PER", "LOC")), Text(Subwords(toy_tokenizer), Lengths(16)))


def test_what_it_is(task: Task) -> None:
    assert (task.kind.name, task.labels) == ("tagging", TAGS)
    assert TASKS["tagging"] is task.kind
    assert (task.kind.metric.name, task.kind.metric.unit) == ("entity F1", "%")
    assert (task.kind.validation_key, task.shuffle, task.corrupt) == ("validation_f1", None, None)


def test_a_task_reads_files_as_both_sections_state(
    toy_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Format] = []

    def read(root: str, language: str, split: str, form: Format) -> Reading:
        asked.append(form)
        return Reading([Example(("Ada",), ("B-PER",))])

    monkeypatch.setitem(CORPORA, "stub", Corpus(read, lambda root: ["de"]))
    text = Text(Subwords(toy_tokenizer), Lengths(16), Format(encoding="cp1251", sentences=3))
    build(TaggingConfig(words=2, tags="ner"), text).read("stub:", "de", "train")
    assert asked == [Format(2, "ner", "cp1251", 3)]


def test_a_run_logs_a_choice_of_columns_once(
    toy_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for language in ("de", "nl"):
        (tmp_path / language).mkdir()
        (tmp_path / language / "train.conll").write_text("Ada B-PER O\nnaps O O\n", "utf-8")
    for _ in range(2):
        caplog.clear()
        task = build(TaggingConfig(), Text(Subwords(toy_tokenizer), Lengths(16)))
        read = [task.read(f"conll:{tmp_path}", language, "train") for language in ("de", "nl", "de")]
        assert [one.gold for (one,) in read] == [("B-PER", "O")] * 3
        (message,) = caplog.messages
        assert message.endswith("column 2 is read as the tags, though column 3 could be too; task.tags chooses another")


def test_a_saved_head_says_its_labels(task: Task) -> None:
    assert of_labels(task.labels).labels == task.config.labels


def test_a_line_of_predictions_and_what_predict_gives(task: Task) -> None:
    example = Example(("Ada", "naps"), ("B-PER", "O"))
    line = to_json(example, ["O", "O"])
    assert line == {"words": ["Ada", "naps"], "gold": ["B-PER", "O"], "predicted": ["O", "O"]}
    assert task.kind.present(example, ["B-PER", "O"]) == [("Ada", "B-PER"), ("naps", "O")]
    assert task.example(["Ada", "naps"]).gold == ("O", "O")


def test_the_loss_is_the_mean_over_labelled_sub_words(task: Task) -> None:
    logits = torch.randn(2, 4, 5, generator=torch_stream(0, "logits"), dtype=torch.float64)
    labels = torch.tensor([[IGNORE, 1, 0, IGNORE], [IGNORE, 4, IGNORE, IGNORE]])
    log = logits.log_softmax(-1)
    expected = -(log[0, 1, 1] + log[0, 2, 0] + log[1, 1, 4]) / 3
    assert float(task.loss(logits, {"labels": labels})) == pytest.approx(float(expected), rel=1e-12)
    uniform = task.loss(torch.zeros(2, 4, 5), {"labels": labels})
    assert float(uniform) == pytest.approx(math.log(5))


def test_padding_does_not_change_the_loss(task: Task) -> None:
    logits, labels = (
        torch.randn(2, 4, 5, generator=torch_stream(0, "logits")),
        torch.tensor([[0, 1, 2, 3], [IGNORE] * 4]),
    )
    wide_logits, wide_labels = F.pad(logits, (0, 0, 0, 3), value=7.0), F.pad(labels, (0, 3), value=IGNORE)
    assert torch.equal(task.loss(wide_logits, {"labels": wide_labels}), task.loss(logits, {"labels": labels}))


def test_decoding_takes_each_words_first_sub_word_and_a_cut_word_is_outside(task: Task) -> None:
    sentence = Example(("Ada", "of", "Paris", "slept"), ("B-PER", "O", "B-LOC", "O"))
    rows = [
        Row((Window((2, 9, 9, 9, 9, 3), (0, 1, 2), (1, 3, 4), ()),), sentence),
        Row((Window((2, 9, 3), (0,), (1,), ()),), sentence),
    ]
    # The best label of every position, also of those that no word starts.
    best = torch.tensor([[4, 1, 3, 0, 3, 4], [4, 2, 4, 4, 4, 4]])
    logits = F.one_hot(best, 5).float()
    assert decode(TAGS, logits, rows) == [["B-PER", "O", "B-LOC", "O"], ["I-PER", "O", "O", "O"]]
    with pytest.raises(ValueError, match="zip"):
        decode(TAGS, logits, rows[:1])


def test_an_entity_that_was_cut_away_still_counts_as_gold(task: Task) -> None:
    tags = ("B-PER", "I-PER", "O", "B-LOC")
    rows = [Row((Window((), (0, 1, 2), (1, 2, 3), ()),), Example(("a", "b", "c", "d"), tags))]
    assert task.kind.score is score
    scores = score([row.example for row in rows], [["B-PER", "I-PER", "O", "O"]]).details
    assert scores["lenient"]["overall"] == {
        "precision": 100.0,
        "recall": 50.0,
        "f1": pytest.approx(200 / 3),
        "entities": 2,
    }
    assert scores["lenient"]["types"]["LOC"]["entities"] == 1


def test_a_batch_without_a_labelled_sub_word_costs_nothing(task: Task) -> None:
    logits = torch.randn(2, 3, 5, generator=torch_stream(0, "logits")).requires_grad_()
    loss = task.loss(logits, {"labels": torch.full((2, 3), IGNORE)})
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not logits.grad.any()


def test_each_word_takes_the_window_that_answers_for_it(task: Task) -> None:
    """A sentence of three windows between two short ones; a word's other appearances predict something else."""
    words = tuple(f"w{n}" for n in range(6))
    windows = (
        Window((2, 9, 9, 9, 3), (0, 1), (1, 2), ()),
        Window((2, 9, 9, 9, 3), (2, 3), (2, 3), ()),
        Window((2, 9, 9, 3), (5,), (2,), ()),
    )
    short = Row((Window((2, 9, 3), (0,), (1,), ()),), Example(("a",), ("O",)))
    rows = [short, Row(windows, Example(words, ("O",) * 6)), short]
    best = torch.tensor([[4, 1, 4, 4, 4], [4, 1, 2, 4, 4], [4, 4, 3, 0, 4], [4, 4, 1, 4, 4], [4, 3, 4, 4, 4]])
    decoded = decode(TAGS, F.one_hot(best, 5).float(), rows)
    assert decoded == [["B-PER"], ["B-PER", "I-PER", "B-LOC", "O", "O", "B-PER"], ["B-LOC"]]


@pytest.mark.filterwarnings("error")
def test_gold_through_rows_and_back_scores_full_marks(toy_tokenizer: PreTrainedTokenizerFast) -> None:
    task = build(TaggingConfig(), Text(Subwords(toy_tokenizer), Lengths(128)))
    sentences = synthetic.read("", "qaa", "test")[:40]
    rows = task.encode(sentences)
    batch = task.collate(rows)
    assert batch["input_ids"][batch["attention_mask"] == 0].eq(toy_tokenizer.pad_token_id).all()
    logits = F.one_hot(batch["labels"].clamp(min=0), len(task.labels)).float()
    predicted = decode(task.labels, logits, rows)
    assert predicted == [list(sentence.gold) for sentence in sentences]
    found = score(sentences, predicted)
    scores = found.details
    assert found.headline == 100
    assert scores["sentences"] == 40
    assert scores["strict"]["overall"]["f1"] == scores["lenient"]["overall"]["f1"] == 100.0
    entities = sum(tag.startswith("B-") for sentence in sentences for tag in sentence.gold)
    assert scores["strict"]["overall"]["entities"] == entities


def test_the_head_is_linear_and_drawn_small(task: Task, toy_bert: Path) -> None:
    encoder = load_encoder(str(toy_bert))
    head = task.new_head(resolve(encoder.module, encoder.layout))
    assert isinstance(head, LinearHead)
    assert (head.in_features, head.out_features) == (32, 5)
    wide = LinearHead(1000, 20).initial(torch_stream(0, "head"))
    assert float(wide["weight"].std()) == pytest.approx(0.02, rel=0.03)
    assert not wide["bias"].any()
    assert {name: value.shape for name, value in head.initial(torch_stream(0, "head")).items()} == {
        name: parameter.shape for name, parameter in head.named_parameters()
    }
