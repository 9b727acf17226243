"""CoNLL reading: every layout that is accepted, every mistake that is named, and an independent count."""

from __future__ import annotations

from pathlib import Path

import pytest

from metaprime.data import conll
from metaprime.types import MetaprimeError, Sentence

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def count_sentences(path: Path) -> int:
    """The oracle: runs of non-blank lines, counted on the bytes."""
    sentences, inside = 0, False
    for line in path.read_bytes().split(b"\n"):
        blank = not line.strip()
        sentences += inside and blank
        inside = not blank
    return sentences + inside


def parse(folder: Path, text: str | bytes, name: str = "train.conll") -> list[Sentence]:
    path = folder / "de" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return conll.read(str(folder), "de", path.stem)


def pairs(sentences: list[Sentence]) -> list[list[tuple[str, str]]]:
    return [list(zip(sentence.words, sentence.tags, strict=True)) for sentence in sentences]


EXPECTED = [[("Ada", "B-PER"), ("naps", "O")], [("2", "O")]]


@pytest.mark.parametrize(
    "text",
    [
        "Ada\tB-PER\nnaps\tO\n\n2\tO\n",
        "Ada B-PER\nnaps  O\n \t\n2 O",
        "\n\nAda B-PER\nnaps O\n\n\n\n2 O\n\n",
        "0\tAda\tB-PER\n1\tnaps\tO\n\n0\t2\tO\n",
        "1 Ada B-PER\n2 naps O\n\n1 2 O\n",
        "Ada\tNNP\tB-PER\nnaps\tVB\tO\n\n2\tCD\tO\n",
        "Ada NNP B-NP B-PER\nnaps VB B-VP O\n\n2 CD B-NP O\n",
        "-DOCSTART- -X- -X- O\n\nAda NNP B-NP B-PER\nnaps VB B-VP O\n-DOCSTART- -X- -X- O\n2 CD B-NP O\n",
        "Ada\tB-PER\r\nnaps\tO\r\n\r\n2\tO\r\n",
        "\ufeffAda\tB-PER\nnaps\tO\n\n2\tO\n",
        "# id = 1\n# text = Ada naps\nAda\tB-PER\nnaps\tO\n\n# id = 2\tsplit=train\n2\tO\n",
    ],
)
def test_every_layout_gives_the_same_sentences(tmp_path: Path, text: str) -> None:
    assert pairs(parse(tmp_path, text)) == EXPECTED


def test_one_word_that_looks_like_an_index_is_a_word(tmp_path: Path) -> None:
    text = "Ada NNP B-PER\nnaps VB O\n\nshe PRP O\nnaps VB O\n\n1 CD O\n"
    assert pairs(parse(tmp_path, text))[2] == [("1", "O")]


def test_a_hash_with_a_tag_is_a_word_and_a_comment_never_stands_inside(tmp_path: Path) -> None:
    assert pairs(parse(tmp_path, "# O\n1 B-MISC\n# O\n")) == [[("#", "O"), ("1", "B-MISC"), ("#", "O")]]
    with pytest.raises(MetaprimeError, match=r"train\.conll:2: 4 columns"):
        parse(tmp_path, "a O\n# text = b\n")


def test_other_white_space_is_data(tmp_path: Path) -> None:
    text = "a\u2028b\tO\n\u00a0\tO\nNew York\tB-LOC\n\n\u0085 O\n\u3000 O\n"
    assert [sentence.words for sentence in parse(tmp_path, text)] == [
        ("a\u2028b", "\u00a0", "New York"),
        ("\u0085", "\u3000"),
    ]


def test_origin_is_the_line_of_the_first_word(tmp_path: Path) -> None:
    origins = [s.origin for s in parse(tmp_path, "# id = 1\na O\nb O\n\n\n-DOCSTART- O\n\nc O\n-DOCSTART- O\nd O")]
    path = tmp_path / "de" / "train.conll"
    assert origins == [f"{path}:{line}" for line in (2, 8, 10)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a O\n\nb O\nc\n", r"train\.conll:4: 'c' has one column; each line needs a token and its tag"),
        ("a\tO\n\tO\n", r"train\.conll:2: '\\tO' has an empty column; each line needs"),
        ("a\tO\nb\t\n", r"train\.conll:2: 'b\\t' has an empty column"),
        ("a O\n\nb O\nc d O\n", r"train\.conll:4: 3 columns in 'c d O', but 2 on line 3.*give all its lines the same"),
        ("", r"train\.conll: no sentence in it; give a file"),
        ("\n\n-DOCSTART- O\n\n", r"train\.conll: no sentence in it"),
        (b"a O\nb O\n\nJos\xe9 B-PER\n", r"train\.conll:4: byte 0xe9 is not UTF-8; convert the file, e\.g\. iconv"),
        (b"\xef\xbb\xbfa O\n\xff O\n", r"train\.conll:2: byte 0xff is not UTF-8"),
        (
            "1 a O\n2 b O\n\n1 c O\n2 d O\n\n1 e O\n3 f O\n",
            r"train\.conll:7: the first column counts.*number it from 0",
        ),
    ],
)
def test_a_mistake_names_file_and_line_and_remedy(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(MetaprimeError, match=message):
        parse(tmp_path, text)


def test_two_files_for_one_split_are_refused(tmp_path: Path) -> None:
    parse(tmp_path, "a O\n")
    with pytest.raises(MetaprimeError, match=r"'train' is there more than once, as train\.conll, train\.txt; keep one"):
        parse(tmp_path, "a O\n", name="train.txt")


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MetaprimeError, match=r"nowhere\.conll: cannot be read .*check the path"):
        conll.parse(tmp_path / "nowhere.conll")


def test_languages_are_folders_with_a_file(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "train.conll").write_text("a O\n")
    with pytest.raises(MetaprimeError, match=r"no folder in it holds a file named \*\.conll.*the layout is DIR"):
        conll.languages(str(tmp_path))
    for extension in conll.EXTENSIONS:
        parse(tmp_path, "a O\n", name=f"{extension}.{extension}")
    (tmp_path / "als").mkdir()
    (tmp_path / "als" / "test.txt").write_text("a O\n")
    assert conll.languages(str(tmp_path)) == ["als", "de"]
    assert [pairs(conll.read(str(tmp_path), "de", split)) for split in conll.EXTENSIONS] == [[[("a", "O")]]] * 6


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs the real data in {SHARED}")
@pytest.mark.parametrize("name", ["swa_dev.txt", "en_val.conllu"])
def test_real_files_parse_to_the_counted_sentences(name: str) -> None:
    sentences = conll.parse(SHARED / "raw" / name)
    assert len(sentences) == count_sentences(SHARED / "raw" / name) > 500
    assert {tag[:1] for sentence in sentences for tag in sentence.tags} == {"O", "B", "I"}
