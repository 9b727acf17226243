"""Data sets through `datasets`, on folders in the hub's layout: no network, no code of theirs, no archive unpacked."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metaprime.data.readers import hub
from metaprime.data.reading import Format
from metaprime.types import MetaprimeError

CLASSES = ["O", "B-PER", "I-PER"]
FEATURES = datasets.Features(
    {
        "tokens": datasets.List(datasets.Value("string")),
        "ner_tags": datasets.List(datasets.ClassLabel(names=CLASSES)),
        "lang": datasets.Value("string"),
    }
)
COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


def parquet(path: Path, *words: str, language: str = "de") -> None:
    """One sentence a word, each of them a person's name, as `datasets` itself would write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {"tokens": [[word] for word in words], "ner_tags": [[1] for _ in words], "lang": [language for _ in words]}
    pq.write_table(pa.table(rows, schema=FEATURES.arrow_schema), path)


def card(root: Path, configs: dict[str, dict[str, str]]) -> None:
    """The README.md of a set: configuration -> split -> pattern."""
    lines = ["---", "configs:"]
    for config, splits in configs.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        lines += [line for split, path in splits.items() for line in (f"  - split: {split}", f"    path: {path}")]
    root.mkdir(exist_ok=True)
    (root / "README.md").write_text("\n".join([*lines, "---", "A data set."]), "utf-8")


def read(root: Path | str, language: str, split: str) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    reading = hub.read(str(root), language, split)
    assert reading.problems == []
    return [(sentence.words, sentence.gold) for sentence in reading.sentences]


@pytest.fixture
def by_config(tmp_path: Path) -> Path:
    root = tmp_path / "by_config"
    for language, name in (("de", "Ada"), ("nl", "Eva")):
        for split in ("train", "validation"):
            parquet(root / language / f"{split}-00000-of-00001.parquet", f"{name}-{split}")
    splits = ("train", "validation")
    card(root, {language: {split: f"{language}/{split}-*" for split in splits} for language in ("de", "nl")})
    return root


@pytest.fixture
def by_split(tmp_path: Path) -> Path:
    root = tmp_path / "by_split"
    names = ("train_de", "val_de", "train_nl", "nl_test")
    for name in names:
        parquet(root / "data" / f"{name}-00000-of-00001.parquet", name)
    card(root, {"default": {name: f"data/{name}-*" for name in names}})
    return root


@pytest.fixture
def by_column(tmp_path: Path) -> Path:
    root = tmp_path / "by_column"
    root.mkdir()
    rows = [
        {"tokens": [word], "tags": [tag], "language": word[:2]} for word, tag in (("de1", 0), ("nl1", 1), ("de2", 2))
    ]
    (root / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return root


def test_a_language_is_a_configuration(by_config: Path) -> None:
    assert hub.languages(str(by_config)) == ["de", "nl"]
    assert read(by_config, "nl", "train") == [(("Eva-train",), ("B-PER",))]
    for name in ("validation", "dev", "val"):
        assert read(by_config, "de", name) == [(("Ada-validation",), ("B-PER",))]
    reading = hub.read(str(by_config), "de", "train")
    assert reading.place == f"hub:{by_config} de/train"
    assert reading.sentences[0].origin == f"hub:{by_config} de/train:row 0"
    with pytest.raises(MetaprimeError, match=r"no configuration 'fr'; it has de, nl; use one of these"):
        read(by_config, "fr", "train")
    with pytest.raises(
        MetaprimeError, match=r"no split 'test' for 'de'; it has train, validation; set data\.train_split"
    ):
        read(by_config, "de", "test")


def test_a_language_is_the_end_or_beginning_of_a_split(by_split: Path) -> None:
    assert hub.languages(str(by_split)) == ["de", "nl"]
    assert read(by_split, "de", "validation") == [(("val_de",), ("B-PER",))]
    assert read(by_split, "nl", "test") == [(("nl_test",), ("B-PER",))]
    with pytest.raises(MetaprimeError, match=r"no split 'test' for 'de'; it has train_de, val_de, train_nl, nl_test"):
        read(by_split, "de", "test")


def test_a_language_is_a_value_of_a_column(by_column: Path) -> None:
    assert hub.languages(str(by_column)) == ["de", "nl"]
    assert read(by_column, "de", "train") == [(("de1",), ("0",)), (("de2",), ("2",))]
    with pytest.raises(MetaprimeError, match=r"no row in 'fr'; its column language has de, nl; use one of these"):
        read(by_column, "fr", "train")


def test_a_set_that_names_no_language_is_called_by_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "mono").mkdir()
    (tmp_path / "mono" / "train.jsonl").write_text('{"tokens": ["a"], "ner_tags": ["O"]}\n', "utf-8")
    assert hub.languages(str(tmp_path / "mono")) == ["default"]
    assert read(tmp_path / "mono", "default", "train") == [(("a",), ("O",))]
    with pytest.raises(
        MetaprimeError, match=r"or column lang or language identifies .* 'de'; if .*, write 'default' for it"
    ):
        read(tmp_path / "mono", "de", "train")


def test_a_changed_file_is_read_anew(by_config: Path) -> None:
    assert read(by_config, "de", "train") == [(("Ada-train",), ("B-PER",))]
    parquet(by_config / "de" / "train-00000-of-00001.parquet", "Ida", "Eda")
    assert read(by_config, "de", "train") == [(("Ida",), ("B-PER",)), (("Eda",), ("B-PER",))]


def test_wrong_rows_are_reported_and_wrong_columns_refused(tmp_path: Path) -> None:
    root = tmp_path / "rows"
    root.mkdir()
    (root / "train.jsonl").write_text(
        '{"tokens": ["a", "b"], "ner_tags": ["O"]}\n{"tokens": ["c"], "ner_tags": ["O"]}\n'
    )
    reading = hub.read(str(root), "default", "train")
    assert [(p.kind, p.origin) for p in reading.problems] == [("lengths differ", f"hub:{root} default/train:row 0")]
    (root / "train.jsonl").write_text('{"words": ["a"]}\n')
    with pytest.raises(MetaprimeError, match=r"no column tokens and ner_tags, only words; name the columns"):
        hub.read(str(root), "default", "train")


@pytest.mark.parametrize("text", [b"\x00\xff", b'{"tokens": ["a"]', b"[[[", b""])
def test_files_that_datasets_cannot_read_are_a_message(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "train.jsonl").write_bytes(text)
    with pytest.raises(MetaprimeError, match=r"^hub:.*bad: .*; check its name and revision, log in if it is private"):
        hub.read(str(tmp_path / "bad"), "default", "train")


def test_code_is_never_run_and_the_way_round_is_named(tmp_path: Path, by_config: Path) -> None:
    (by_config / "by_config.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(
        MetaprimeError, match=r"no code of a data set is run: .*@refs/convert/parquet.*conll_to_parquet\.py"
    ):
        read(by_config, "de", "train")
    assert not (tmp_path / "ran").exists()


def test_the_revision_is_passed_on_and_trust_never(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def record(*words: Any, **options: Any) -> list[str]:
        asked.append((*words, options))
        raise RuntimeError("Dataset scripts are no longer supported, but found name.py")

    monkeypatch.setattr("datasets.get_dataset_config_names", record)
    with pytest.raises(MetaprimeError, match=r"hub:owner/name@refs/convert/parquet: .*try hub:owner/name@refs/convert"):
        hub.read("owner/name@refs/convert/parquet", "de", "train")
    assert asked == [("owner/name", {"revision": "refs/convert/parquet"})]
    assert "trust" + "_remote_code" not in Path(hub.__file__).read_text("utf-8")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "@main",
        "a@",
        "../x",
        "a/../b",
        "a/b/c",
        "hf://datasets/a/b",
        "https://u:p@h/x",
        "a/b@../c",
        "a b",
        ".a/b",
    ],
)
def test_a_name_is_a_plain_one(name: str) -> None:
    with pytest.raises(MetaprimeError, match=r"neither a folder nor a data set's name; write hub:OWNER/NAME"):
        hub.read(name, "de", "train")


@pytest.mark.parametrize("path", ["../outside.jsonl", "{root}/../outside.jsonl", "{outside}"])
def test_a_card_does_not_lead_out_of_the_folder(tmp_path: Path, path: str) -> None:
    outside, root = tmp_path / "outside.jsonl", tmp_path / "set"
    outside.write_text('{"tokens": ["secret"], "ner_tags": ["O"]}\n', "utf-8")
    card(root, {"de": {"train": path.format(root=root, outside=outside)}})
    with pytest.raises(MetaprimeError, match=r"outside\.jsonl is not a parquet, JSON or Arrow file of the data set"):
        read(root, "de", "train")


def zipped(path: Path, member: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, '{"tokens": ["a"], "ner_tags": ["O"]}\n')


@pytest.mark.parametrize("member", ["../../evil.jsonl", "inside.jsonl"])
@pytest.mark.parametrize("name", ["train.zip", "train.jsonl", "train.jsonl.gz", "train.parquet"])
def test_archives_are_refused_and_nothing_is_unpacked(tmp_path: Path, name: str, member: str) -> None:
    (tmp_path / "set").mkdir()
    zipped(tmp_path / "set" / name, member)
    with pytest.raises(MetaprimeError, match=r"^hub:.*(is not a parquet|is an archive|No \(supported\) data files)"):
        hub.read(str(tmp_path / "set"), "default", "train")
    assert list(tmp_path.parent.rglob("evil.jsonl")) == list(tmp_path.rglob("inside.jsonl")) == []


@pytest.mark.parametrize("name", ["train.csv", "train.txt", "train.tar", "train.xml"])
def test_other_formats_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / name).write_text("tokens,ner_tags\na,O\n", "utf-8")
    with pytest.raises(
        MetaprimeError, match=rf"{name} is not a parquet, JSON or Arrow file of the data set.*convert it"
    ):
        hub.read(str(tmp_path / "set"), "default", "train")


def offline(cache: Path, *roots: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line for each `hub.read(root, "nl", "dev")`, in a process that has never been online."""
    program = (
        "import sys\nfrom metaprime.data.readers import hub\nfrom metaprime.types import MetaprimeError\n"
        "for root in sys.argv[1:]:\n"
        "    try:\n        print([s.words for s in hub.read(root, 'nl', 'dev').sentences])\n"
        "    except MetaprimeError as error:\n        print(error)\n"
    )
    fresh = {"HF_HOME": str(cache), "HF_DATASETS_CACHE": str(cache / "datasets"), "HF_HUB_OFFLINE": "1", **environment}
    command = [sys.executable, "-c", program, *roots]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **fresh}, check=False
    )


def test_offline_a_set_is_read_out_of_the_cache_at_its_revision_or_says_what_to_do(
    tmp_path: Path, by_config: Path
) -> None:
    for language in ("de", "nl"):
        datasets.load_dataset(str(by_config), language)
    for prepared in sorted((tmp_path / "cache").glob("by_config/*/0.0.0/*")):
        if prepared.is_dir():  # as if it had come from the hub, whose sets are kept by owner and commit
            there = tmp_path / "home" / "datasets" / "owner___by_config" / prepared.parts[-3] / "0.0.0" / COMMIT
            shutil.copytree(prepared, there)
    at, other = f"owner/by_config@{COMMIT}", f"owner/by_config@{COMMIT[::-1]}"
    done = offline(tmp_path / "home", "owner/by_config", at, other, "owner/name", HF_TOKEN="hf_SECRETSECRET")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[('Eva-validation',)]",
        "[('Eva-validation',)]",
        f"hub:{other}: cannot be reached, and the cached copy is revision {COMMIT}; connect once",
        "hub:owner/name: ConnectionError: Couldn't reach 'owner/name' on the Hub (OfflineModeIsEnabled); read it once with a "
        "connection and without HF_HUB_OFFLINE, or download it and write hub:DIR",
    ]
    assert "SECRET" not in done.stdout + done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file() and b"SECRET" in path.read_bytes()] == []


def test_progress_bars_are_as_they_were(by_config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = datasets.is_progress_bar_enabled()
    read(by_config, "de", "train")
    assert datasets.is_progress_bar_enabled() == before
    assert capfd.readouterr().err == ""


def test_nothing_is_logged_that_datasets_would_say(by_config: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read(by_config, "de", "train")
    assert caplog.messages == []


def test_own_splits_take_every_separator() -> None:
    splits: Sequence[str] = ("train-de", "de.train", "train", "trainde", "train_de_x")
    assert hub._own_splits(splits, "de", ("train",)) == ["train-de", "de.train"]


def test_files_that_name_the_tags_in_different_orders_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "orders"
    parquet(root / "data" / "train-00000-of-00002.parquet", "Ada")
    other = FEATURES.copy()
    other["ner_tags"] = datasets.List(datasets.ClassLabel(names=["O", "B-LOC", "B-PER"]))
    rows = {"tokens": [["Eva"]], "ner_tags": [[2]], "lang": ["de"]}
    file = root / "data" / "train-00001-of-00002.parquet"
    pq.write_table(pa.table(rows, schema=other.arrow_schema), file)
    parquet(root / "data" / "test-00000-of-00001.parquet", "Ida")
    message = (
        rf"{file} names the numbers in ner_tags O, B-LOC, B-PER, but `datasets` reads all files .* with O, B-PER, I-PER"
    )
    with pytest.raises(MetaprimeError, match=message):
        read(root, "de", "train")
    assert read(root, "de", "test") == [(("Ida",), ("B-PER",))]


def test_splits_that_name_the_tags_in_different_orders_have_their_own(tmp_path: Path) -> None:
    root = tmp_path / "splits"
    parquet(root / "data" / "train-00000-of-00001.parquet", "Ada")
    other = FEATURES.copy()
    other["ner_tags"] = datasets.List(datasets.ClassLabel(names=["O", "B-LOC", "B-PER"]))
    rows = {"tokens": [["Eva"]], "ner_tags": [[2]], "lang": ["de"]}
    pq.write_table(pa.table(rows, schema=other.arrow_schema), root / "data" / "test-00000-of-00001.parquet")
    assert read(root, "de", "train") == [(("Ada",), ("B-PER",))]
    assert read(root, "de", "test") == [(("Eva",), ("B-PER",))]


def test_columns_with_other_names_are_named_by_keys(tmp_path: Path) -> None:
    root = tmp_path / "named"
    root.mkdir()
    row = {"words": ["Ada"], "ner": ["B-PER"], "lang": "de"}
    (root / "train.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    reading = hub.read(str(root), "de", "train", Format(words="words", tags="ner"))
    assert [sentence.gold for sentence in reading.sentences] == [("B-PER",)]
