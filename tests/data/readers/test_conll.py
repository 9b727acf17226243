"""CoNLL reading: every layout that is accepted, every mistake that is named, and an independent count."""

from __future__ import annotations

from pathlib import Path

import pytest

from metaprime.data.readers import conll
from metaprime.data.reading import Reading
from metaprime.data.rows import Example
from metaprime.types import MetaprimeError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def count_sentences(path: Path) -> int:
    """The oracle: runs of non-blank lines, counted on the bytes."""
    sentences, inside = 0, False
    for line in path.read_bytes().split(b"\n"):
        blank = not line.strip()
        sentences += inside and blank
        inside = not blank
    return sentences + inside


def parse(folder: Path, text: str | bytes, name: str = "train.conll") -> list[Example]:
    reading = examine(folder, text, name)
    assert reading.problems == []
    return reading.sentences


def examine(folder: Path, text: str | bytes, name: str = "train.conll") -> Reading:
    path = folder / "de" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return conll.read(str(folder), "de", path.stem)


def pairs(sentences: list[Example]) -> list[list[tuple[str, str]]]:
    return [list(zip(sentence.words, sentence.gold, strict=True)) for sentence in sentences]


def problems(folder: Path, text: str | bytes) -> list[str]:
    """`kind line: text` of each, the ones that cost a sentence marked with !."""
    found = examine(folder, text).problems
    return [f"{'!' * p.dropped}{p.kind} {p.origin.rpartition(':')[2]}: {p.text}" for p in found]


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
        "Ada\tB-PER\t\nnaps\tO\t\n\n2\tO\t\n",
        "1\tAda\tB-PER\t-\tann\n2\tnaps\tO\t-\t-\n\n1\t2\tO\t-\t-\n",
        "1\tAda\tB-PER\t-\tann\n2\tnaps\tO\n\n1\t2\tO\n",
        "# text = an O\n1\tAda\tB-PER\t-\tann\n2\tnaps\tO\t-\t-\n\n# x\n# text = B-X\n1\t2\tO\t-\t-\n",
        "1\tAda\tB-PER\t-\n2-3\tnaps\t_\t-\n2\tnaps\tO\t-\n2.1\tnot\t_\t-\n\n1\t2\tO\t-\n",
        "# text = vitamin O\nAda B-PER\nnaps O\n\n# x\n2 O\n",
    ],
)
def test_every_layout_gives_the_same_sentences(tmp_path: Path, text: str) -> None:
    assert pairs(parse(tmp_path, text)) == EXPECTED


def test_one_word_that_looks_like_an_index_is_a_word(tmp_path: Path) -> None:
    text = "Ada NNP B-PER\nnaps VB O\n\nshe PRP O\nnaps VB O\n\n1 CD O\n"
    assert pairs(parse(tmp_path, text))[2] == [("1", "O")]


def test_a_hash_with_a_tag_is_a_word_and_a_comment_never_stands_inside(tmp_path: Path) -> None:
    assert pairs(parse(tmp_path, "# O\n1 B-MISC\n# O\n")) == [[("#", "O"), ("1", "B-MISC"), ("#", "O")]]
    assert problems(tmp_path, "a O\nb O\n# text = b\n")[0].startswith(
        "!column count 3: 4 columns in '# text = b', but 2"
    )


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


def test_the_origin_of_words_that_are_not_on_neighbouring_lines_names_both_ends(tmp_path: Path) -> None:
    text = "1\ta\tO\n2-3\tbc\t_\n2\tb\tO\n3\tc\tO\n\n1\td\tO\n"
    path = tmp_path / "de" / "train.conll"
    assert [s.origin for s in parse(tmp_path, text)] == [f"{path}:lines 1-4", f"{path}:6"]


def test_a_tag_is_in_the_last_column_that_looks_like_it(tmp_path: Path) -> None:
    assert pairs(parse(tmp_path, "a B-NP B-PER x\nb B-VP O O\nc O O y\n")) == [[("a", "B-PER"), ("b", "O"), ("c", "O")]]
    assert pairs(parse(tmp_path, "a NN per\nb NN o\n")) == [[("a", "per"), ("b", "o")]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "a O\n\nb O\nc\n",
            ["!malformed line 4: 'c' has one column; each line needs a token and its tag, separated by a"],
        ),
        ("a\tO\n\tO\n", ["!malformed line 2: '\\tO' has an empty column; each line needs a token"]),
        ("a\tO\nb\t\n", ["!malformed line 2: 'b\\t' has an empty column"]),
        ("a O\n\nb O\nc d O\n", ["!column count 4: 3 columns in 'c d O', but 2 on line 1 and most others; give all"]),
        ("New York B-LOC\n\na O\n\nb O\n", ["!column count 1: 3 columns in 'New York B-LOC', but 2 on line 3"]),
        (b"a O\nb O\n\nJos\xe9 B-PER\n", ["!not UTF-8 4: byte 0xe9 is not UTF-8; convert the file, e.g. iconv -f"]),
        (b"\xef\xbb\xbfa O\n\xff O\n", ["!not UTF-8 2: byte 0xff is not UTF-8"]),
        (
            "a O\rb O\rc O\r",
            ["!malformed line 1: 'a O\\rb O\\rc O' has a carriage return in it; end lines with a line"],
        ),
        ("a O\n\nb\nc\n\nd O\n", ["!malformed line 3: 'b' has one", "malformed line 4: 'c' has one"]),
        (
            "1 a O\n2 b O\n\n1 c O\n2 d O\n\n1 e O\n3 f O\n",
            ["!malformed line 7: the first column counts the words in the other sentences but not in this one, which"],
        ),
        ("c\nd e f\n\na O\nb O\n", ["!malformed line 1: 'c' has one", "column count 2: 3 columns"]),
        ("1-2 ab O\n\n1 a O\n2 b O\n\n1 a O\n", ["!malformed line 1: the first column counts"]),
        (b"a O\nb \xff\nc\n", ["!not UTF-8 2: ", "malformed line 3: "]),
    ],
)
def test_a_mistake_names_its_line_and_remedy_and_costs_one_sentence(
    tmp_path: Path, text: str | bytes, found: list[str]
) -> None:
    told = problems(tmp_path, text)
    assert len(told) == len(found)
    assert [line.startswith(start) for line, start in zip(told, found, strict=True)] == [True] * len(found), told


def test_what_is_sound_around_a_mistake_is_kept(tmp_path: Path) -> None:
    reading = examine(tmp_path, "a O\n\nb\n\nc O\n")
    assert [sentence.words for sentence in reading.sentences] == [("a",), ("c",)]
    assert reading.place == str(tmp_path / "de" / "train.conll")


@pytest.mark.parametrize("text", ["", "\n\n-DOCSTART- O\n\n", "\ufeff", "# id = 1\n", " \t\r\n\r\n"])
def test_a_file_without_sentences_gives_none(tmp_path: Path, text: str) -> None:
    assert parse(tmp_path, text) == []


def test_two_files_for_one_split_are_refused(tmp_path: Path) -> None:
    parse(tmp_path, "a O\n")
    with pytest.raises(MetaprimeError, match=r"several files for split 'train': train\.conll, train\.txt; keep one"):
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
    assert [pairs(conll.read(str(tmp_path), "de", split).sentences) for split in conll.EXTENSIONS] == [
        [[("a", "O")]]
    ] * 6


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs the real data in {SHARED}")
@pytest.mark.parametrize("name", ["swa_dev.txt", "en_val.conllu"])
def test_real_files_parse_to_the_counted_sentences(name: str) -> None:
    reading = conll.parse(SHARED / "raw" / name)
    assert reading.problems == []
    sentences = reading.sentences
    assert len(sentences) == count_sentences(SHARED / "raw" / name) > 500
    assert {tag[:1] for sentence in sentences for tag in sentence.gold} == {"O", "B", "I"}
