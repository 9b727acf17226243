"""The twenty synthetic languages: a function of (seed, language, split), well tagged, and not to be learned by heart."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter

import pytest

from metaprime.data.readers import synthetic
from metaprime.data.rows import Example
from metaprime.tasks.tagging.labels import LabelSet, repair
from metaprime.types import MetaprimeError

LABELS = LabelSet(synthetic.TYPES)


def texts(sentences: list[Example]) -> list[str]:
    return [" ".join(sentence.words) for sentence in sentences]


def test_the_same_address_gives_the_same_sentences_in_another_process() -> None:
    probe = (
        "import hashlib; from metaprime.data.readers import synthetic\n"
        "print(hashlib.sha256(repr(synthetic.read('3', 'qat', 'test')).encode()).hexdigest())"
    )
    other = [
        subprocess.run(
            [sys.executable, "-c", probe], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    ]
    synthetic.read("3", "qaq", "train")  # what was read before makes no difference
    here = hashlib.sha256(repr(synthetic.read("3", "qat", "test")).encode()).hexdigest()
    assert [text.strip() for text in other] == [here, here]


def test_seed_language_and_split_each_make_a_difference() -> None:
    one = synthetic.read("", "qaa", "train")
    assert synthetic.read("0", "qaa", "train") == one
    assert synthetic.read("1", "qaa", "train") != one
    assert synthetic.read("", "qab", "train") != one
    assert synthetic.read("", "qaa", "validation") != one[:200]


def test_what_is_read_may_be_changed_by_the_reader() -> None:
    read = synthetic.read("", "qaa", "validation")
    read.clear()
    assert len(synthetic.read("", "qaa", "validation")) == synthetic.SPLITS["validation"]


@pytest.mark.parametrize("language", synthetic.LANGUAGES)
def test_every_split_is_valid_and_has_every_tag(language: str) -> None:
    for split, size in synthetic.SPLITS.items():
        sentences = synthetic.read("", language, split)
        assert len(sentences) == size
        counts: Counter[str] = Counter()
        for sentence in sentences:
            assert len(sentence.words) == len(sentence.gold) > 1
            assert all(word and word == "".join(word.split()) for word in sentence.words)
            assert repair(sentence.gold) == (sentence.gold, ())
            counts.update(sentence.gold)
        assert set(counts) == set(LABELS.tags)
        assert min(counts.values()) >= 3
        assert 0.5 < counts["O"] / counts.total() < 0.95


@pytest.mark.parametrize("language", synthetic.LANGUAGES)
def test_the_test_split_is_hardly_seen_in_training(language: str) -> None:
    seen = set(texts(synthetic.read("", language, "train")))
    test = texts(synthetic.read("", language, "test"))
    assert sum(text in seen for text in test) < 0.05 * len(test)


def test_languages_share_little_text() -> None:
    words = {
        name: {word for sentence in synthetic.read("", name, "test") for word in sentence.words if word.isalpha()}
        for name in ("qaa", "qab", "qaf", "qak", "qap")
    }
    for one in words:
        for other in words:
            if one < other:
                assert len(words[one] & words[other]) < 0.3 * min(len(words[one]), len(words[other])), (one, other)


def test_origins_name_the_sentence() -> None:
    assert synthetic.read("2", "qaa", "test")[9].origin == "synthetic:2/qaa/test:sentence 10"


@pytest.mark.parametrize(
    ("root", "language", "split", "words"),
    [
        ("x", "qaa", "train", ["synthetic:x", "whole number"]),
        ("1.5", "qaa", "train", ["synthetic:1.5", "whole number"]),
        ("", "de", "train", ["'de'", "qaa, qab"]),
        ("", "qaa", "dev", ["'dev'", "train, validation, test"]),
    ],
)
def test_mistakes_name_what_there_is(root: str, language: str, split: str, words: list[str]) -> None:
    with pytest.raises(MetaprimeError) as error:
        synthetic.read(root, language, split)
    assert all(word in str(error.value) for word in words)


def test_languages_are_listed() -> None:
    assert synthetic.languages("5") == list(synthetic.LANGUAGES)
    with pytest.raises(MetaprimeError, match="whole number"):
        synthetic.languages("five")
