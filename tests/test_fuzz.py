"""Seeded damage: no file ends in anything but sentences or a message, and no sentence is lost without a word.

Every case is a function of its number: `pytest "tests/test_fuzz.py::test_conll[17]"` is case 17 again.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from metaprime.config.loading import load_config
from metaprime.config.sections import Config
from metaprime.data import sources
from metaprime.data.reading import UNSTATED, Policy, Reading, settle
from metaprime.tasks.tagging.labels import LabelSet, Rules
from metaprime.tasks.tagging.reading import examine, read
from metaprime.tasks.tagging.schemes import repair
from metaprime.types import MetaprimeError

LABELS = LabelSet(("PER", "ORG", "LOC"), {"MISC": "O"})
WORDS = (
    *(
        "Ada",
        "Łódź",
        "naps",
        "2",
        ".",
        "1-2",
        "3.1",
        "O",
        "B-PER",
        "-",
        "'",
        '"',
        "\\",
        "{",
        "[null]",
        "a\u2028b",
        "\u0085",
    ),
    *(
        "שלום",
        "\u202eאבג\u202c",
        "e\u0301\u0323\u0308",
        "👩\u200d👧",
        "\u00a0",
        "\u3000",
        "\x0b",
        "\x0c",
        "\x1c",
        "\ufeff",
        "\0",
    ),
)
TAGS = ("O", "O", "O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-MISC", "S-PER", "E-LOC")
NO_TAGS = ("PER", "b-PER", "B-", "B-DATE", "I-Ü-Ö", "-1", "7", "?", "B-\u2028", "B-\0", "X-PER")
LINE_ENDS = ("\n", "\n", "\r\n")
CASES = [*range(80), *(pytest.param(number, marks=pytest.mark.slow) for number in range(80, 800))]
FEWER = [*range(20), *(pytest.param(number, marks=pytest.mark.slow) for number in range(20, 200))]
"""80 of CoNLL and of JSON lines, 20 of parquet and of YAML; ten times that with the slow ones."""

Sentences = list[list[tuple[str, str]]]


def count_conll(data: bytes) -> int:
    """The oracle: runs of lines that are not blank, -DOCSTART-, or, before the first word of one, a comment."""
    runs, inside = 0, False
    for line in data.split(b"\n"):
        # A byte order mark before a line, as joined files have it, is no part of it.
        line = re.sub(rb"^(\xef\xbb\xbf)+", b"", line).rstrip(b" \t\r")
        note = line.startswith(b"# ") and (b"\t" not in line and re.match(rb"# [^ ]+ = ", line + b" "))
        note = note or (line.startswith((b"# ", b"#\t")) and not re.search(rb"[\t ](O|[A-Z]-[^\t ]+)$", line))
        if not line or line.startswith(b"-DOCSTART-"):
            inside = False
        elif not inside and not note:
            runs, inside = runs + 1, True
    return runs


def count_jsonl(data: bytes) -> int:
    """The oracle: lines that are not blank."""
    return sum(bool(re.sub(rb"^(\xef\xbb\xbf)+", b"", line).strip(b" \t\r")) for line in data.split(b"\n"))


def sentences(draw: random.Random, words: tuple[str, ...] = WORDS) -> Sentences:
    """Up to twelve of up to eight words, with tags in no scheme or another."""
    tags = draw.choice((TAGS[:10], TAGS, ("O", "I-PER", "I-LOC"), ("O", "S-PER", "B-LOC", "I-LOC", "E-LOC")))
    return [
        [(draw.choice(words), draw.choice(tags)) for _ in range(draw.randint(1, 8))] for _ in range(draw.randint(0, 12))
    ]


def conll(draw: random.Random) -> tuple[bytes, Sentences | None]:
    """A file, and what is in it if nothing is wrong with its lines."""
    words = tuple(word for word in WORDS if word.strip(" \t\r") and word != "\ufeff")
    given = sentences(draw, words)
    sound, end = draw.random() < 0.3, draw.choice(LINE_ENDS)
    separators = draw.choice(((" ",), ("\t",), ("  ",), ("\t", " ")))
    layout = draw.choice(("two", "two", "pos", "index", "uner"))
    lines = []
    for sentence in given:
        if draw.random() < 0.2:
            lines.append(f"# text = {' '.join(word for word, _ in sentence)}")
        for number, (word, tag) in enumerate(sentence, start=1):
            columns = {"two": [word, tag], "pos": [word, "NN", tag], "index": [str(number), word, tag]}.get(layout)
            lines.append(draw.choice(separators).join(columns or [str(number), word, tag, "-", "ann"]))
        lines += (
            [draw.choice(("", " ", "\t"))] * draw.choice((1, 1, 2)) if draw.random() < 0.9 else ["-DOCSTART- -X- O"]
        )
    if not sound and lines:
        for _ in range(draw.randint(1, 4)):
            spoil(draw, lines)
    data = draw.choice(("", "\ufeff")).encode() + end.join(lines).encode("utf-8", "surrogatepass")
    if not sound:
        data = damaged(draw, data) if draw.random() < 0.3 else data
    return data, given if sound else None


def spoil(draw: random.Random, lines: list[str]) -> None:
    """One mistake of the kind people make."""
    place = draw.randrange(len(lines))
    lines[place : place + 1] = draw.choice(
        (
            [draw.choice(WORDS)],
            [f"{draw.choice(WORDS)} {draw.choice(NO_TAGS)}"],
            [f"{draw.choice(WORDS)}\t{draw.choice(NO_TAGS)}"],
            [lines[place] + draw.choice(("\t", " x", "\tx\ty", "\r", "\0"))],
            [lines[place].replace(" ", "\t") + "\rb O", lines[place]],
            ["\tO"],
            ["a\t"],
            ["1-2\tab\t_", lines[place]],
            [],
        )
    )


def jsonl(draw: random.Random) -> bytes:
    """A file of rows, some of them spoiled."""
    lines = []
    for sentence in sentences(draw):
        tags: list[Any] = [tag for _, tag in sentence]
        if draw.random() < 0.2:
            tags = [draw.randrange(4) for _ in sentence]
        row: Any = {"tokens": [word for word, _ in sentence], draw.choice(("ner_tags", "tags")): tags}
        if draw.random() < 0.3:
            wrong = (None, [], "a", 3, [None], [["a"]], [1.5], {"a": 1}, ["\ud800"], [True], float("nan"), ["?"] * 3)
            row = draw.choice((row | {draw.choice(("tokens", "ner_tags")): draw.choice(wrong)}, [row], {}, "row", None))
        line = json.dumps(row, ensure_ascii=draw.random() < 0.5)
        if draw.random() < 0.1:
            line = draw.choice((line[:-3], line + line, "[" * 3000, line.replace("tokens", "ner_tags"), "\r", "# x"))
        lines += [line, *([draw.choice(("", " ", "\t\r"))] if draw.random() < 0.2 else [])]
    data = draw.choice(("", "\ufeff")).encode() + draw.choice(LINE_ENDS).join(lines).encode("utf-8", "surrogatepass")
    return damaged(draw, data) if draw.random() < 0.3 else data


def damaged(draw: random.Random, data: bytes, most: int = 8) -> bytes:
    """Bytes flipped, cut off, doubled or put in."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, most)):
        if not changed:
            break
        place = draw.randrange(len(changed))
        match draw.randrange(5):
            case 0 | 1:
                changed[place] ^= 1 << draw.randrange(8)
            case 2:
                del changed[place:]
            case 3:
                changed[place:place] = changed[place : place + draw.randint(1, 20)]
            case 4:
                changed[place : place + draw.randint(0, 4)] = draw.randbytes(draw.randint(0, 4))
    return bytes(changed)


def place(folder: Path, name: str, data: bytes) -> str:
    (folder / "xx").mkdir(exist_ok=True)
    (folder / "xx" / name).write_bytes(data)
    return f"{name.rpartition('.')[2]}:{folder}"


def checked(source: str, counted: int, policies: tuple[Policy, ...] = get_args(Policy)) -> Reading:
    """Reads under every policy: every sentence counted is given or reported, and what is given is sound."""
    for invalid in policies:
        reading = examine(source, "xx", "train", Rules(LABELS, invalid, ["O", "B-PER", "I-PER"]))
        assert len(reading.sentences) + sum(problem.dropped for problem in reading.problems) == counted
        for sentence in reading.sentences:
            assert len(sentence.words) == len(sentence.gold) > 0
            assert set(sentence.gold) <= set(LABELS.tags)
            assert repair(sentence.gold) == (sentence.gold, ())
            "".join(sentence.words).encode()
        for problem in reading.problems:
            assert reading.place in problem.origin
            assert len(problem.text) < 500
            f"{problem.origin} {problem.text}".encode()
        value_or_message(partial(settle, reading, invalid))
    return reading


def value_or_message(call: Callable[[], Any]) -> Any:
    """What a call gives; None where it ends in a message for people. Anything else it ends in fails the test."""
    try:
        return call()
    except MetaprimeError as error:
        said = str(error)
    assert said.strip()
    return None


@pytest.fixture(autouse=True)
def _no_notices(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.CRITICAL, "metaprime"):
        yield


@pytest.mark.parametrize("number", CASES)
def test_conll(tmp_path: Path, number: int) -> None:
    data, given = conll(random.Random(f"conll {number}"))
    reading = checked(place(tmp_path, "train.conll", data), count_conll(data))
    if given is not None:
        raw = sources.CORPORA["conll"].read(str(tmp_path), "xx", "train", UNSTATED)
        assert [list(zip(s.words, s.gold, strict=True)) for s in raw.sentences] == given
        assert [p for p in raw.problems if p.dropped] == []
        assert len(reading.sentences) <= len(given)


@pytest.mark.parametrize("number", CASES)
def test_jsonl(tmp_path: Path, number: int) -> None:
    data = jsonl(random.Random(f"jsonl {number}"))
    checked(place(tmp_path, "train.jsonl", data), count_jsonl(data))


def test_a_sentence_of_a_hundred_thousand_words_and_a_line_of_ten_megabytes(tmp_path: Path) -> None:
    long = b"".join(b"w%d\t%s\n" % (n, b"B-PER" if n % 9 else b"O") for n in range(100_000))
    wide = b"x" * 10_000_000
    data = b"\n".join([long, wide + b"\tO\n", wide + b"\n", b"a\tB-" + wide + b"\n", b"b\tO\n"])
    assert len(checked(place(tmp_path, "train.conll", data), count_conll(data), ("drop",)).sentences) == 3
    rows = [
        {"tokens": ["w"] * 100_000, "ner_tags": ["B-PER"] * 100_000},
        {"tokens": [wide.decode()], "ner_tags": ["O"]},
        {"tokens": ["a"], "ner_tags": [wide.decode()]},
    ]
    data = "\n".join([*map(json.dumps, rows), "[" * 10_000_000, '"' + wide.decode()]).encode()
    assert len(checked(place(tmp_path, "train.jsonl", data), 5, ("drop",)).sentences) == 2


def parquet(draw: random.Random, path: Path) -> None:
    """A table, sound or of other types than it should be, in one of the ways parquet is written."""
    given = sentences(draw)
    columns: dict[str, Any] = {
        "tokens": [[word for word, _ in sentence] for sentence in given],
        "ner_tags": [[tag for _, tag in sentence] for sentence in given],
    }
    wrong: tuple[Any, ...] = ("text", 3, 1.5, None, [1], [[["deep"]]], {"a": [1]}, b"\xff", [None], [True], [], [2**40])
    if draw.random() < 0.5:
        columns[draw.choice(("tokens", "ner_tags"))] = [draw.choice(wrong)] * len(given)
    table = pa.table(columns)
    if draw.random() < 0.5:
        feature = draw.choice(
            ({"names": ["O", "B-PER"], "_type": "ClassLabel"}, {"feature": []}, [], None, "[" * 3000, 7)
        )
        info = {"info": {"features": {"ner_tags": [feature]}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    compression = draw.choice(("none", "snappy", "zstd", "gzip"))
    pq.write_table(table, path, compression=compression, use_dictionary=draw.random() < 0.5)


@pytest.mark.parametrize("number", FEWER)
def test_parquet(tmp_path: Path, number: int) -> None:
    draw = random.Random(f"parquet {number}")
    source = place(tmp_path, "train.parquet", b"")
    path = tmp_path / "xx" / "train.parquet"
    parquet(draw, path)
    if draw.random() < 0.8:
        path.write_bytes(damaged(draw, path.read_bytes()))
    value_or_message(lambda: examine(source, "xx", "train", Rules(LABELS)))
    value_or_message(lambda: read(source, "xx", "train", Rules(LABELS, "drop")))


ODD = (
    None,
    "",
    "x",
    -1,
    0,
    1.5,
    10**30,
    True,
    [],
    [[]],
    {},
    {"x": {"y": 1}},
    [None],
    ["..", "/"],
    "\u2028",
    "~",
    {1: 2},
)


def mutated(draw: random.Random, value: Any) -> Any:
    """A config with something in it that does not belong there."""
    if isinstance(value, dict) and value and draw.random() < 0.95:
        key = draw.choice(list(value))
        renamed = {draw.choice((key, key, key, f"{key}s", 7, None, "")): mutated(draw, value[key])}
        return {name: part for name, part in value.items() if name != key} | renamed
    return draw.choice(ODD)


@pytest.mark.parametrize("number", FEWER)
def test_yaml(tmp_path: Path, number: int) -> None:
    draw = random.Random(f"yaml {number}")
    values = yaml.safe_load(Config().as_yaml())
    for _ in range(draw.randint(0, 3)):
        values = mutated(draw, values)
    data = yaml.safe_dump(values, allow_unicode=draw.random() < 0.5).encode("utf-8", "surrogatepass")
    if draw.random() < 0.5:
        data = damaged(draw, data, 2)
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    overrides = draw.choice(([], [], ["inner.steps=2"], ["=", "x"], ["data.languages=[", "peft=3"], ["run.x.y=1"]))
    loaded = value_or_message(lambda: load_config(path, overrides))
    assert loaded is None or isinstance(loaded, Config)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("run: " + "[" * 5000, id="nesting"),
        pytest.param("inner: {steps: " + "1" * 5000 + "}", id="digits"),
        "run: {seed: 2024-13-45}",
        "run: !!int abc",
        "run: !!binary x",
        "run: !!python/object/apply:os.getcwd []",
        "data: &itself {source: *itself}",
        "provenance: {inner.steps.x: paper}",
        "{? [1] : 2}",
        "run: 1\n---\nrun: 2",
        "\0",
    ],
)
def test_yaml_that_is_none_is_a_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text, "utf-8")
    with pytest.raises(MetaprimeError, match=r"x\.yaml"):
        load_config(tmp_path / "x.yaml")
    key, _, value = text.partition(": ")
    assert value_or_message(lambda: load_config(None, [f"{key}={value}"])) is None


TINY = """
run: {{output: {folder}/run, cache: false}}
encoder: {{name: {encoder}}}
data:
  {{source: "{source}", languages: [xx], validation_languages: [], target_languages: [yy], invalid: drop}}
episodes: {{per_step: 1, support: 1, query: 1}}
peft: {{method: pfeiffer, bottleneck: 2}}
inner: {{steps: 1}}
outer: {{steps: 1, validate_every: 0, checkpoint_every: 1}}
"""


@pytest.mark.parametrize(
    "number", [*range(3), *(pytest.param(number, marks=pytest.mark.slow) for number in range(3, 24))]
)
def test_the_command_ends_well_or_with_a_message(tmp_path: Path, toy_bert: Path, number: int) -> None:
    draw = random.Random(f"command {number}")
    sound = b"Ada\tB-PER\nnaps\tO\n\nEva B-PER\n\nhere O\n\n" * 4
    if number % 3 == 0:
        source = place(tmp_path, "train.conll", sound + damaged(draw, sound))
    elif number % 3 == 1:
        source = place(tmp_path, "train.jsonl", jsonl(draw))
    else:
        source = place(tmp_path, "train.parquet", b"")
        parquet(draw, tmp_path / "xx" / "train.parquet")
    text = TINY.format(folder=tmp_path, encoder=toy_bert, source=source).encode()
    if number >= 12:
        text = damaged(draw, text, 2)
    (tmp_path / "x.yaml").write_bytes(text)
    command = [sys.executable, "-m", "metaprime", "prime", str(tmp_path / "x.yaml")]
    done = subprocess.run(
        command, capture_output=True, cwd=tmp_path, env={**os.environ, **HERE}, timeout=300, check=False
    )
    said = done.stdout.decode("utf-8", "replace") + done.stderr.decode("utf-8", "replace")
    assert done.returncode in (0, 2), said
    assert "Traceback" not in said
    assert (done.returncode == 2) == ("error: " in said)


HERE = {"PYTHONPATH": str(Path(__file__).parents[1]), "HF_HUB_OFFLINE": "1"}
