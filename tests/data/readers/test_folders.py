"""Where files are: names of splits, endings that name one, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_permissions import Forbid

from metaprime.data.readers import folders
from metaprime.types import MetaprimeError

KINDS = ("conll", "iob2")


def locate(root: Path, split: str, *names: str) -> str:
    (root / "de").mkdir()
    for name in names:
        (root / "de" / name).touch()
    return folders.locate(str(root), "de", split, KINDS).name


@pytest.mark.parametrize("asked", folders.VALIDATION)
@pytest.mark.parametrize("there", folders.VALIDATION)
def test_validation_goes_by_four_names(tmp_path: Path, asked: str, there: str) -> None:
    assert locate(tmp_path, asked, "train.conll", f"{there}.conll", "x.md") == f"{there}.conll"


@pytest.mark.parametrize("name", ["en_ewt-ud-dev.iob2", "de_validation.conll", "a.b.val.conll"])
def test_a_name_may_end_in_the_split(tmp_path: Path, name: str) -> None:
    assert locate(tmp_path, "validation", name, "en_ewt-ud-train.iob2", "mydev.conll", "dev-old.conll") == name


def test_a_file_of_the_very_name_goes_before_one_that_ends_in_it(tmp_path: Path) -> None:
    assert locate(tmp_path, "train", "train.conll", "small-train.conll") == "train.conll"


@pytest.mark.parametrize(
    "names", [("dev.conll", "val.conll"), ("a-dev.conll", "b_val.iob2"), ("dev.iob2", "dev.conll")]
)
def test_two_files_for_one_split_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(MetaprimeError, match=r"several files for split 'dev': .*, .*; keep one of the files"):
        locate(tmp_path, "dev", *names)


def test_a_split_that_is_not_there_lists_the_files(tmp_path: Path) -> None:
    with pytest.raises(MetaprimeError, match=r"test\.conll: no such split; the folder has train\.conll; use one of"):
        locate(tmp_path, "test", "train.conll", "protest.md")


def test_the_splits_of_a_language(tmp_path: Path) -> None:
    locate(tmp_path, "dev", "en_ewt-ud-dev.iob2", "en_ewt-ud-train.iob2", "test.conll", "extra.conll")
    assert folders.splits(str(tmp_path), "de", KINDS) == ["dev", "extra", "test", "train"]


@pytest.mark.parametrize("root", ["~nobody-of-that-name/x", "a\0b", "x" * 5000, "/dev/null/x"])
def test_a_root_that_cannot_be_one_is_a_message(root: str) -> None:
    with pytest.raises(MetaprimeError, match="no such folder"):
        folders.languages(root, KINDS)


def test_a_language_that_cannot_be_a_folder_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "de").mkdir()
    with pytest.raises(MetaprimeError, match=r"no such language; .* has de; use one"):
        folders.locate(str(tmp_path), "x" * 5000, "train", KINDS)


def test_a_folder_without_permission_is_not_called_missing(tmp_path: Path, forbid: Forbid) -> None:
    (tmp_path / "de").mkdir()
    (tmp_path / "de" / "train.conll").touch()
    forbid(tmp_path / "de")
    for ask in (
        lambda: folders.languages(str(tmp_path), KINDS),
        lambda: folders.locate(str(tmp_path), "de", "train", KINDS),
    ):
        with pytest.raises(MetaprimeError, match=r"de: permission denied: have its owner"):
            ask()
