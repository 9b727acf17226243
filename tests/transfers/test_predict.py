"""From a sentence as it is typed to a tag for each word."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from toy_transfers import elsewhere

from metaprime.config.loading import override
from metaprime.config.sections import Config
from metaprime.data.readers import synthetic
from metaprime.transfers.predict import evaluate, load, predict
from metaprime.transfers.transfer import transfer
from metaprime.types import MetaprimeError

TAGS = {"O", *(f"{place}-{kind}" for place in "BI" for kind in ("PER", "ORG", "LOC"))}


@pytest.fixture(scope="module")
def cells(primed_run: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run with three transfer cells."""
    output = tmp_path_factory.mktemp("predict") / "run"
    shutil.copytree(primed_run.run.output, output)
    settings = ("transfer.steps=150", "transfer.batch=16", "transfer.shots=60")
    for methods, rate in (("[pfeiffer, head]", 0.03), ("full", 0.001)):
        chosen = (f"run.output={output}", f"transfer.methods={methods}", f"transfer.lr={rate}", *settings)
        transfer(override(primed_run, *chosen))
    return output / "transfer" / "primed"


@pytest.mark.parametrize("method", ["pfeiffer", "head", "full"])
def test_a_cell_tags_text_as_it_tagged_its_test_split(cells: Path, method: str) -> None:
    cell = cells / f"qai-{method}-k60-s0"
    lines = [json.loads(line) for line in (cell / "predictions.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == 20
    # Or the comparison would say little.
    assert any(tag != "O" for line in lines for tag in line["predicted"])
    for line in lines[:6]:
        assert predict(cell, " ".join(line["words"])) == list(zip(line["words"], line["predicted"], strict=True))


def test_a_predictor_takes_one_sentence_or_many_as_text_or_words(cells: Path) -> None:
    tagger = load(cells / "qai-pfeiffer-k60-s0")
    lines = [example.words for example in synthetic.read("", "qai", "test")[:5]]
    alone = [predict(cells / "qai-pfeiffer-k60-s0", " ".join(words)) for words in lines]
    assert any(tag != "O" for sentence in alone for _, tag in sentence)
    assert [tagger(" ".join(words)) for words in lines] == alone
    assert tagger([" ".join(words) for words in lines]) == alone
    assert tagger(lines) == alone
    assert tagger([]) == []


def test_a_predictor_reads_its_encoder_once(cells: Path, tmp_path: Path) -> None:
    shutil.copytree(cells.parents[1], tmp_path / "run")
    tagger = load(tmp_path / "run" / "transfer" / "primed" / "qai-full-k60-s0")
    expected = tagger("Ada naps.")
    shutil.rmtree(tmp_path / "run")
    assert tagger("Ada naps.") == expected


def test_one_short_word_is_enough(cells: Path) -> None:
    assert [word for word, _ in predict(cells / "qai-pfeiffer-k60-s0", "a")] == ["a"]


def test_a_run_may_be_moved_as_a_whole(cells: Path, tmp_path: Path) -> None:
    text = " ".join(synthetic.read("", "qai", "test")[0].words)
    for method in ("pfeiffer", "full"):
        expected = predict(cells / f"qai-{method}-k60-s0", text)
        shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
        shutil.copytree(cells.parents[1], tmp_path / "elsewhere")
        assert predict(tmp_path / "elsewhere" / "transfer" / "primed" / f"qai-{method}-k60-s0", text) == expected


def test_a_primed_folder_tags_too(primed_run: Config) -> None:
    found = predict(Path(primed_run.run.output) / "primed", "Ada naps.")
    assert [word for word, _ in found] == ["Ada", "naps", "."]
    assert {tag for _, tag in found} <= TAGS


def test_a_folder_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    for folder, fault in ((tmp_path, r"holds no metaprime\.json"), (tmp_path / "none", "does not exist")):
        with pytest.raises(MetaprimeError, match=rf"{fault}: give a folder"):
            predict(folder, "Ada naps.")


def test_text_without_a_word_is_refused(primed_run: Config) -> None:
    tagger = load(Path(primed_run.run.output) / "primed")
    for text in ("  ", ["Ada naps.", ""], [["Ada"], []]):
        with pytest.raises(MetaprimeError, match="a text has no word: give at least one"):
            tagger(text)


def test_an_encoder_that_changed_is_refused(cells: Path, tmp_path: Path) -> None:
    shutil.copytree(cells.parents[1], tmp_path / "run")
    cell = tmp_path / "run" / "transfer" / "primed"
    # The frozen methods belong to the primed encoder, which is now another one.
    shutil.copy(cell / "qai-full-k60-s0" / "encoder" / "model.safetensors", tmp_path / "run" / "primed")
    with pytest.raises(
        MetaprimeError, match=r"has weights .*, but adapter and head were trained on .*: restore that encoder"
    ):
        predict(cell / "qai-head-k60-s0", "Ada naps.")


@pytest.mark.parametrize("name", ["metaprime.json", "metaprime.safetensors"])
def test_a_damaged_folder_is_named(cells: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(cells / "qai-head-k60-s0", tmp_path / "cell")
    file = tmp_path / "cell" / name
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(MetaprimeError, match=r"cell: .* is damaged"):
        predict(tmp_path / "cell", "Ada naps.")


def test_a_cell_is_scored_on_its_own_language_as_recorded_and_on_others(primed_run: Config, tmp_path: Path) -> None:
    changes = ("transfer.methods=[pfeiffer]", "transfer.steps=100", "transfer.batch=16", "transfer.shots=60")
    config = elsewhere(primed_run, tmp_path / "run", *changes, "transfer.lr=0.03", "transfer.test_sentences=null")
    (result,) = transfer(config)
    assert result.score > 0
    scores = evaluate(result.path, "synthetic:", ["qai", "qao"])
    assert list(scores) == ["qai", "qao"]
    assert scores["qai"].details == result.scores
    assert scores["qai"].headline == result.score
    assert scores["qao"].details != result.scores
    trained = evaluate(result.path, "synthetic:", ["qai"], split="train")["qai"]
    assert trained.details["sentences"] != result.scores["sentences"]


def test_no_language_and_one_that_is_not_there_are_refused(primed_run: Config) -> None:
    primed = Path(primed_run.run.output) / "primed"
    with pytest.raises(MetaprimeError, match="name at least one language"):
        evaluate(primed, "synthetic:", [])
    with pytest.raises(MetaprimeError, match="zzz"):
        evaluate(primed, "synthetic:", ["zzz"])
