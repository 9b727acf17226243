"""CoNLL reading: every layout that is accepted, every mistake that is named, and an independent count."""

from __future__ import annotations

from pathlib import Path

import pytest

from metaprime.data.readers import conll
from metaprime.data.reading import NOTICES, UNSTATED, Format, Reading
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
    assert [problem for problem in reading.problems if problem.kind not in NOTICES] == []
    return reading.sentences


def examine(folder: Path, text: str | bytes, name: str = "train.conll", form: Format = UNSTATED) -> Reading:
    path = folder / "de" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return conll.read(str(folder), "de", path.stem, form)


def notices(folder: Path, text: str | bytes, form: Format = UNSTATED) -> list[str]:
    reading = examine(folder, text, form=form)
    assert {problem.kind for problem in reading.problems} <= NOTICES
    return [problem.text for problem in reading.problems]


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


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("# B-MISC NN\na O NN\n\nb O NN\n", [[("#", "B-MISC"), ("a", "O")], [("b", "O")]]),
        ("# 0\na 1\n\nb 0\n", [[("#", "0"), ("a", "1")], [("b", "0")]]),
        ("#\tNN\tO\na\tNN\tO\n", [[("#", "O"), ("a", "O")]]),
        ("#\tsource\tdate\na\tNN\tO\n", [[("a", "O")]]),
        ("# the letter O\na NN B-X\n", [[("a", "B-X")]]),
        ("# a\n# O\n# O\n\n# O\n\n# b\n", [[("#", "O"), ("#", "O")], [("#", "O")]]),
        (b"# Jos\xe9\na O\n", [[("a", "O")]]),
    ],
)
def test_a_hash_is_a_word_where_it_has_the_columns_of_the_other_lines(
    tmp_path: Path, text: str | bytes, taken: list[list[tuple[str, str]]]
) -> None:
    assert pairs(parse(tmp_path, text)) == taken


NUMBERED = "Ada\tB-PER\t1.0\nnaps\tO\t1.0\nso\tO\t2.0\ndoes\tO\t2.0\nEve\tB-PER\t2.0\n"
TWO = [[("Ada", "B-PER"), ("naps", "O")], [("so", "O"), ("does", "O"), ("Eve", "B-PER")]]


@pytest.mark.parametrize(
    "text",
    [
        NUMBERED,
        "\n" + NUMBERED + "\n\n",
        "-DOCSTART- O\n\n" + NUMBERED,
        "1\tAda\tB-PER\n1\tnaps\tO\n2\tso\tO\n2\tdoes\tO\n2\tEve\tB-PER\n",
        "Sentence: 1\tAda\tB-PER\n\tnaps\tO\nSentence: 2\tso\tO\n\tdoes\tO\n\tEve\tB-PER\n",
        "s7 1 Ada B-PER\ns7 2 naps O\ns9 1 so O\ns9 2 does O\ns9 3 Eve B-PER\n",
    ],
)
def test_a_column_that_numbers_sentences_stands_for_blank_lines(tmp_path: Path, text: str) -> None:
    assert pairs(parse(tmp_path, text)) == TWO
    assert any(
        notice.startswith("no blank line ends a sentence: one ends where the number in column")
        and notice.endswith("; data.sentences chooses another column, or blank_lines")
        for notice in notices(tmp_path, text)
    )


def test_an_index_that_begins_anew_stands_for_blank_lines(tmp_path: Path) -> None:
    text = "1\tAda\tB-PER\n2\tnaps\tO\n1\tso\tO\n2\tdoes\tO\n3\tEve\tB-PER\n"
    assert pairs(parse(tmp_path, text)) == TWO
    assert notices(tmp_path, text) == [
        "no blank line ends a sentence: one begins where column 1 counts anew; "
        "data.sentences chooses another column, or blank_lines"
    ]
    assert pairs(examine(tmp_path, text, form=Format(sentences=1)).sentences) == TWO


def test_numbers_of_sentences_begin_anew_in_each_document(tmp_path: Path) -> None:
    text = "a O 1\nb O 1\nc O 2\nd O 2\n-DOCSTART- O O\ne O 1\nf O 1\ng O 2\nh O 2\n"
    words = [one.words for one in parse(tmp_path, text)]
    assert words == [("a", "b"), ("c", "d"), ("e", "f"), ("g", "h")]


def test_stated_ends_of_sentences_are_taken_without_a_notice(tmp_path: Path) -> None:
    assert pairs(examine(tmp_path, NUMBERED, form=Format(sentences="blank_lines")).sentences) == [TWO[0] + TWO[1]]
    # Blank lines end a sentence too; an empty number is that of the line before.
    text = "a\tO\tx\nb\tO\t\nc\tO\ty\n\nd\tO\ty\n"
    reading = examine(tmp_path, text, form=Format(sentences=3))
    assert [one.words for one in reading.sentences] == [("a", "b"), ("c",), ("d",)]
    assert reading.problems == []


def test_a_mistake_costs_one_of_the_numbered_sentences(tmp_path: Path) -> None:
    text = "a\tO\t1\nb\tO\t1\nc\tO\t2\nd\n\te\tO\t2\nf\tO\t3\ng\tO\t3\n"
    reading = examine(tmp_path, text, form=Format(sentences=3))
    assert [one.words for one in reading.sentences] == [("a", "b"), ("f", "g")]
    assert sum(problem.dropped for problem in reading.problems) == 1


@pytest.mark.parametrize("start", ["", "-DOCSTART- O\n\n"])
def test_a_file_without_blank_lines_is_told_with_its_length(tmp_path: Path, start: str) -> None:
    text = start + "a B-PER\nb O\n" * 30
    (told,) = problems(tmp_path, text)
    assert told.startswith(f"!no blank line {3 if start else 1}: one sentence of 60 words, as no blank line ends")
    assert "data.sentences: blank_lines takes it as it is" in told
    reading = examine(tmp_path, text, form=Format(sentences="blank_lines"))
    assert (len(reading.sentences[0].words), reading.problems) == (60, [])
    assert [len(one.words) for one in parse(tmp_path, text + "\n" + "c O\n" * 50)] == [60, 50]
    assert len(parse(tmp_path, "a O\n" * 40)) == 1


def test_the_prefix_of_a_language_is_taken_off_with_a_notice(tmp_path: Path) -> None:
    assert pairs(parse(tmp_path, "de:Ada B-PER\nde:: O\n\nde:de:x O\n")) == [
        [("Ada", "B-PER"), (":", "O")],
        [("de:x", "O")],
    ]
    text = "be-x-old:a O\n" * 10
    assert notices(tmp_path, text) == [
        "all words begin with be-x-old:, which is taken off, as the prefix of a language"
    ]
    assert notices(tmp_path, "de:a O\n" * 19 + "b O\n") == [
        "19 of 20 words begin with de:, which is taken off, as the prefix of a language"
    ]
    assert {word for one in parse(tmp_path, text) for word in one.words} == {"a"}
    for other in ("http:x O\n" * 9, "de:a O\nb O\n" * 10, "de:a O\nnl:b O\n" * 10):
        assert notices(tmp_path, other) == []
        assert ":" in parse(tmp_path, other)[0].words[0]


def test_marks_of_joined_files_are_no_words(tmp_path: Path) -> None:
    text = "\ufeff-DOCSTART- O\n\nAda B-PER\nnaps O\n\n\ufeff-DOCSTART- O\n\n\ufeffAix B-LOC\n"
    assert pairs(parse(tmp_path, text)) == [[("Ada", "B-PER"), ("naps", "O")], [("Aix", "B-LOC")]]
    assert len(notices(tmp_path, text)) == 1


def test_a_file_in_a_stated_encoding(tmp_path: Path) -> None:
    text = "Юрий\tB-PER\nспит\tO\n"
    reading = examine(tmp_path, text.encode("cp1251"), form=Format(encoding="cp1251"))
    assert reading.sentences[0].words == ("Юрий", "спит")
    assert [p.kind for p in examine(tmp_path, text.encode("utf-16")).problems] == ["byte order mark"]


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


@pytest.mark.parametrize(
    ("text", "taken", "said"),
    [
        # Two levels, with a line about the source that is no sentence's word.
        (
            "#\thttp://x.org\t[2011-03-01]\n1\tAda\tB-PER\tO\n2\tof\tI-PER\tO\n3\tAix\tI-PER\tB-LOC\n\n1\tnaps\tO\tO\n",
            [[("Ada", "B-PER"), ("of", "I-PER"), ("Aix", "I-PER")], [("naps", "O")]],
            ["column 3 is read as the tags, though column 4 could be too; task.tags chooses another"],
        ),
        # Chunks behind the entities, and before them.
        (
            "Ada B-PER NN B-NP\nnaps O VB B-VP\n\nAix B-LOC NN B-NP\n",
            [[("Ada", "B-PER"), ("naps", "O")], [("Aix", "B-LOC")]],
            ["column 2 is read as the tags, though column 4 could be too; task.tags chooses another"],
        ),
        (
            "Ada NN B-NP B-PER\nnaps VB B-VP O\n",
            [[("Ada", "B-PER"), ("naps", "O")]],
            ["column 4 is read as the tags, though column 3 could be too; task.tags chooses another"],
        ),
        # Spans of a treebank that cover almost all words.
        (
            "Ada B-SUBJ O\nand I-SUBJ O\nEve I-SUBJ O\nnap B-PRED O\n. O O\n\n" * 4,
            [[("Ada", "O"), ("and", "O"), ("Eve", "O"), ("nap", "O"), (".", "O")]] * 4,
            ["column 3 is read as the tags, though column 2 could be too; task.tags chooses another"],
        ),
        # Gold before predicted.
        (
            "Ada NN B-PER O\nnaps VB O O\n",
            [[("Ada", "B-PER"), ("naps", "O")]],
            ["column 3 is read as the tags, though column 4 could be too; task.tags chooses another"],
        ),
        (
            "1\tAda\tada\t_\tname=B-PER|SpaceAfter=No\n2\tnaps\tnap\t_\tSpaceAfter=No\n3\t.\t.\t_\tname=O\n",
            [[("Ada", "B-PER"), ("naps", "O"), (".", "O")]],
            [
                "the values of name= in column 5 are read as the tags, and a word without it has O; "
                "task.tags chooses another column"
            ],
        ),
        (
            "B-PER\tAda\nO\tnaps\n",
            [[("Ada", "B-PER"), ("naps", "O")]],
            ["column 1 is read as the tags; task.tags chooses another"],
        ),
        (
            "Ada NN x\nnaps VB y\n",
            [[("Ada", "x"), ("naps", "y")]],
            ["no column looks like tags: the last one, column 3, is read as the tags; task.tags chooses another"],
        ),
        (
            "1 1 Ada B-PER\n1 2 naps O\n\n2 1 Aix B-LOC\n2 2 . O\n",
            [[("Ada", "B-PER"), ("naps", "O")], [("Aix", "B-LOC"), (".", "O")]],
            ["column 3 is read as the words, as column 1 numbers the sentences; task.words chooses another"],
        ),
    ],
    ids=["levels", "chunks last", "chunks", "dense", "predicted", "MISC", "tags first", "none", "numbers"],
)
def test_a_choice_between_columns_is_told(
    tmp_path: Path, text: str, taken: list[list[tuple[str, str]]], said: list[str]
) -> None:
    assert pairs(parse(tmp_path, text)) == taken
    assert notices(tmp_path, text) == said


def test_stated_columns_are_taken_without_a_notice(tmp_path: Path) -> None:
    text = "1\tAda\tB-PER\tO\n2\tof\tI-PER\tO\n3\tAix\tI-PER\tB-LOC\n"
    for form, taken in (
        (Format(tags=4), [("Ada", "O"), ("of", "O"), ("Aix", "B-LOC")]),
        (Format(tags=3, words=1), [("1", "B-PER"), ("2", "I-PER"), ("3", "I-PER")]),
        (Format(tags=2, words=3), [("B-PER", "Ada"), ("I-PER", "of"), ("I-PER", "Aix")]),
    ):
        reading = examine(tmp_path, text, form=form)
        assert pairs(reading.sentences) == [taken]
        assert reading.problems == []
    misc = "1 Ada x=B|name=B-PER\n2 . x=A\n"
    assert pairs(examine(tmp_path, misc, form=Format(tags=3)).sentences) == [[("Ada", "B-PER"), (".", "O")]]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (Format(tags=3), r"train\.conll: task\.tags is 3, but it has 2 columns; correct task\.tags"),
        (Format(words="text"), r"task\.words is 'text', but its columns have numbers, 1 to 2; correct task\.words"),
        (Format(words=2, tags=2), r"task\.words and task\.tags both name column 2; correct one"),
        (Format(sentences=3), r"data\.sentences is 3, but it has 2 columns; correct data\.sentences"),
    ],
)
def test_a_stated_column_that_is_not_there_is_refused(tmp_path: Path, form: Format, message: str) -> None:
    with pytest.raises(MetaprimeError, match=message):
        examine(tmp_path, "Ada B-PER\nnaps O\n", form=form)


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
        (
            b"a O\nb O\n\nJos\xe9 B-PER\n",
            ["!not UTF-8 4: byte 0xe9 is not UTF-8 (byte 4 of the line); data.encoding names the"],
        ),
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
