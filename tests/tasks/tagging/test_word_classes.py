"""Classes of words without spans: read from every kind of file, scored as scikit-learn scores, primed and transferred."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metaprime.config.sections import Config
from metaprime.data.reading import UNSTATED
from metaprime.data.rows import Example
from metaprime.preflight.corpus import check_data
from metaprime.priming.prime import prime
from metaprime.runs.artifact import load_artifact
from metaprime.tasks import audit_of, task_kind
from metaprime.tasks.class_scores import UNANSWERED
from metaprime.tasks.tagging.labels import Rules
from metaprime.tasks.tagging.reading import read
from metaprime.tasks.tagging.settings import UPOS, TaggingConfig
from metaprime.tasks.tagging.word_classes import (
    CLASS_ERRORS,
    CLASS_STATISTICS,
    right_share,
    score_classes,
)
from metaprime.tasks.task import Piece
from metaprime.transfers.predict import load
from metaprime.transfers.transfer import transfer
from metaprime.types import MetaprimeError

CONFIG = TaggingConfig(scheme="none", labels=("NOUN", "VERB", "O"), label_map={"AUX": "VERB"})
CONLL_U = (
    "# text = dogs bark\n1\tdogs\tdog\tNOUN\tNNS\t_\t2\tnsubj\t_\t_\n2\tbark\tbark\tAUX\tVBP\t_\t0\troot\t_\t_\n\n"
)


def rules(config: TaggingConfig = CONFIG) -> Rules:
    return config.rules(config.label_set, UNSTATED)


def written(root: Path, name: str, text: str) -> Path:
    (root / "en").mkdir(parents=True)
    (root / "en" / name).write_text(text, "utf-8")
    return root


def test_a_sentence_with_too_few_answers_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        score_classes([Example(("a", "b"), ("NOUN", "VERB"))], [["NOUN"]])


def test_intervals_and_mistakes_count_words() -> None:
    line = {"words": ["old", "dogs", "bark"], "gold": ["ADJ", "NOUN", "VERB"], "predicted": ["ADJ", "VERB", UNANSWERED]}
    assert CLASS_STATISTICS.of_example(line) == (1, 3)
    assert CLASS_ERRORS.of_example(line) == (1, 2)
    assert right_share(np.array([[1.0, 3.0], [0.0, 0.0]])).tolist() == pytest.approx([100 / 3, 0])
    assert CLASS_ERRORS.show(line, "gold") == (
        Piece("old"),
        Piece("dogs", "NOUN", "gold"),
        Piece("bark", "VERB", "gold"),
    )
    assert CLASS_ERRORS.show(line, "predicted")[1:] == (
        Piece("dogs", "VERB", "wrong"),
        Piece("bark", "no answer", "wrong"),
    )
    with pytest.raises(ValueError, match="differ in number"):
        CLASS_STATISTICS.of_example({**line, "words": ["old"]})


def test_the_universal_parts_of_speech_are_the_default_of_classes_alone() -> None:
    assert TaggingConfig(scheme="none").labels == UPOS
    assert len(set(UPOS)) == 17
    assert TaggingConfig().labels == ("PER", "ORG", "LOC")
    assert task_kind(TaggingConfig(scheme="none")).metric.name == "accuracy"
    assert task_kind(TaggingConfig()).metric.name == "entity F1"
    assert audit_of(TaggingConfig(scheme="none")) is not audit_of(TaggingConfig())


@pytest.mark.parametrize(
    ("source", "name", "text"),
    [
        ("conll", "train.conllu", CONLL_U),
        ("conll", "train.conll", "dogs\tNOUN\nbark\tAUX\n\n"),
        ("jsonl", "train.jsonl", json.dumps({"tokens": ["dogs", "bark"], "upos": ["NOUN", "AUX"]}) + "\n"),
    ],
)
def test_files_are_read_by_the_usual_columns(tmp_path: Path, source: str, name: str, text: str) -> None:
    (found,) = read(f"{source}:{written(tmp_path / 'c', name, text)}", "en", "train", rules())
    assert (found.words, found.gold) == (("dogs", "bark"), ("NOUN", "VERB"))


def test_a_table_is_read_and_numbers_have_names(tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    pq.write_table(pa.table({"tokens": [["dogs", "bark"]], "pos": [[0, 1]]}), tmp_path / "en" / "test.parquet")
    named = CONFIG.model_copy(update={"tag_names": ("NOUN", "AUX")})
    (found,) = read(f"parquet:{tmp_path}", "en", "test", rules(named))
    assert found.gold == ("NOUN", "VERB")
    with pytest.raises(MetaprimeError, match=r"class '0', but nothing says what numbers mean; list the classes"):
        read(f"parquet:{tmp_path}", "en", "test", rules())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("dogs\tnoun\n\n", r"train\.conll:1: class 'noun' is neither .* add e\.g\. task\.label_map: \{noun: NOUN\}"),
        (
            "dogs\tNOUN\nx\tB-PER\n\n",
            r"train\.conll:2: class 'B-PER' is neither in task\.labels \['NOUN', 'VERB', 'O'\]",
        ),
    ],
)
def test_an_unknown_class_is_named_with_its_line_and_a_remedy(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(MetaprimeError, match=told):
        read(f"conll:{written(tmp_path / 'c', 'train.conll', text)}", "en", "train", rules())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"labels": ("NOUN",)}, "has the one class 'NOUN'"),
        ({"labels": ("NOUN", "NOUN")}, "names 'NOUN' twice"),
        ({"labels": ("NOUN", " ")}, "' ' is not a class of words"),
        ({"labels": ()}, r"task\.labels is empty; list the classes"),
        ({"label_map": {"AUX": "O?"}}, r"to 'O\?', which is not in task\.labels"),
    ],
)
def test_labels_that_do_not_do(changes: dict[str, object], told: str) -> None:
    with pytest.raises(MetaprimeError, match=told):
        _ = CONFIG.model_copy(update=changes).label_set


def test_a_corpus_is_checked_by_its_classes(tmp_path: Path) -> None:
    root = written(tmp_path / "c", "train.conll", "dogs\tNOUN\nbark\tVERB\n\ncats\tNOUN\n\n")
    report = check_data(f"conll:{root}", ["task.scheme=none"])
    facts = report.splits["en/train"]
    assert (facts["classes"], facts["majority"]) == ({"NOUN": 2, "VERB": 1}, pytest.approx(2 / 3))
    assert report.cells["en/train"]["classes"] == "NOUN 2, VERB 1"
    narrow = check_data(f"conll:{root}", ["task.scheme=none", "task.labels=[NOUN, VERB, ADJ]"])
    assert ("missing class", "no word of class ADJ") in [(found.kind, found.text) for found in narrow.findings]


def test_primed_transferred_and_predicted_as_entities_are(tiny: Callable[..., Config], tmp_path: Path) -> None:
    parts = "task={name: tagging, scheme: none, labels: [ADJ, ADP, DET, NOUN, NUM, PROPN, PUNCT, VERB]}"
    config = tiny(tmp_path / "run", parts, "outer.steps=2", "transfer.methods=[lora]")
    prime(config)
    (result, *_) = transfer(config)
    scores = result.record["scores"]
    assert 0 < scores["accuracy"] < 100
    assert scores["majority"]["class"] in config.task.labels  # type: ignore[attr-defined]
    assert load_artifact(Path(result.path)).labels == config.task.labels  # type: ignore[attr-defined]
    assert {name for _, name in load(result.path)("Mali bono.")} <= set(config.task.labels)  # type: ignore[attr-defined]
