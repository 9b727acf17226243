"""The worked examples of CONTRIBUTING.md, each applied to a copy of the package and run there by its own commands."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from metaprime.data.readers import synthetic

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)

HIDDEN, LAYERS = 16, 2
SPLITS = ("train", "validation", "test")
COUNT = 40
CLASSES = ("none", "PER", "ORG", "LOC")
SMALL = (
    f"encoder.pretrain={{layers: {LAYERS}, hidden: {HIDDEN}, heads: 2, vocabulary: 300, steps: 2, batch: 4, threads: 1}}",
    "inner.steps=2",
    "outer.steps=2",
    "outer.validate_every=2",
    "transfer.methods=[pfeiffer]",
    "transfer.steps=2",
    "transfer.lr=0.01",
    "transfer.test_sentences=20",
)
"""Overrides for every command that takes a config, but of keys that the command itself sets."""

COMMANDS = """
import json, sys
import metaprime
from metaprime.cli.app import main
codes = []
for words in json.loads(sys.argv[1]):
    sys.argv = words
    try:
        main()
    except SystemExit as stop:
        codes.append(stop.code or 0)
    print("---")
print(json.dumps({"package": metaprime.__file__, "codes": codes}))
"""
"""Runs one command after another from argument list to exit code; one process, since most of the time goes into imports."""


@dataclass(frozen=True)
class Example:
    """One worked example: the new file, the changed file with its hunks, and the commands."""

    file: str
    code: str
    table: str
    hunks: tuple[tuple[str, str], ...]
    commands: tuple[tuple[str, ...], ...]


def example(title: str) -> Example:
    """Reads the section of that title."""
    section = TEXT.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    blocks = dict(BLOCK.findall(section))
    assert list(blocks) == ["python", "diff", "sh"]
    file, table = (
        re.findall(r"`(metaprime/[\w/]+\.py)`", section.split(f"\n```{kind}\n")[0])[-1] for kind in ("python", "diff")
    )
    hunks = tuple((side(hunk, " -"), side(hunk, " +")) for hunk in blocks["diff"].split("@@\n"))
    commands = tuple(tuple(shlex.split(line)) for line in blocks["sh"].splitlines())
    return Example(file, blocks["python"], table, hunks, commands)


def side(hunk: str, marks: str) -> str:
    """The lines of a hunk that begin with one of these marks, without it: the old ones or the new ones."""
    return "".join(line[1:] for line in hunk.splitlines(keepends=True) if line[0] in marks)


EXAMPLES = {
    title.split()[-1]: example(title)
    for title in ("Add a learner", "Add a PEFT method", "Add a task", "Add a corpus reader")
}


def copied(folder: Path) -> Path:
    """Copies the package, the recipes and the linters' settings."""
    for name in ("metaprime", "recipes"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def apply(one: Example, folder: Path) -> None:
    """Writes an example's file and changes its table."""
    assert not (folder / one.file).exists()
    (folder / one.file).write_text(one.code, "utf-8")
    text = (folder / one.table).read_text("utf-8")
    for old, new in one.hunks:
        assert text.count(old) == 1, f"{one.table} does not have once:\n{old}"
        text = text.replace(old, new)
    (folder / one.table).write_text(text, "utf-8")


def sources(folder: Path) -> dict[str, list[str]]:
    """Every file below `metaprime/` but bytecode, by path, as lines."""
    files = (file for file in (folder / "metaprime").rglob("*") if file.is_file() and file.suffix != ".pyc")
    return {str(file.relative_to(folder)): file.read_text("utf-8").splitlines() for file in files}


@dataclass(frozen=True)
class Ended:
    """What became of commands: exit codes, what each wrote on stdout, and what all of them wrote on stderr."""

    codes: list[int]
    out: list[str]
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run("learner", more)`: the commands of that example, and more of them, in `tmp_path` with its copy of the package."""

    def call(name: str, more: Sequence[Sequence[str]] = ()) -> Ended:
        package = copied(tmp_path / "package")
        apply(EXAMPLES[name], package)
        (tmp_path / "recipes").symlink_to(package / "recipes")
        commands = [small(words) for words in (*EXAMPLES[name].commands, *more)]
        done = subprocess.run(
            [sys.executable, "-c", COMMANDS, json.dumps(commands)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        *out, last = done.stdout.split("---\n")
        found = json.loads(last)
        assert found["package"] == str(package / "metaprime" / "__init__.py")
        return Ended(found["codes"], out, done.stderr)

    return call


def small(words: Sequence[str]) -> list[str]:
    """A command, made small where it takes a config."""
    said = {word.partition("=")[0] for word in words}
    takes_config = any(word.endswith(".yaml") for word in words)
    seeds = ["seeds=0-1"] if "ablate" in words else []
    return [*words, *(key for key in SMALL if takes_config and key.partition("=")[0] not in said), *seeds]


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_one_file_and_one_line(name: str, tmp_path: Path) -> None:
    one = EXAMPLES[name]
    before = sources(ROOT)
    apply(one, copied(tmp_path))
    after = sources(tmp_path)
    assert after.keys() - before.keys() == {one.file}
    assert before.keys() <= after.keys()
    assert {file for file in before if before[file] != after[file]} == {one.table}
    changes = [line for line in difflib.ndiff(before[one.table], after[one.table]) if line[0] in "+-"]
    assert len(changes) == 1


def test_the_examples_pass_the_linters(tmp_path: Path) -> None:
    copied(tmp_path)
    for one in EXAMPLES.values():
        apply(one, tmp_path)
    # Types of other packages are read from where `make lint` left them; without it this takes half a minute.
    with contextlib.suppress(OSError):
        shutil.copytree(ROOT / ".mypy_cache", tmp_path / ".mypy_cache")
    files = [file for one in EXAMPLES.values() for file in (one.file, one.table)]
    for tool in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        done = subprocess.run(
            [sys.executable, "-m", *tool, *files], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_learner_primes(run: Run, tmp_path: Path) -> None:
    (words,) = EXAMPLES["learner"].commands
    other = [word.replace("without_query", "peft_maml") for word in words]
    same = ["inner.support=same", "encoder.name=runs/without_query/base"]
    more = [
        [*words[:-1], *same, "run.output=runs/seen"],
        [*other[:-1], *same, "run.output=runs/longer", "inner.steps=3"],
    ]
    ended = run("learner", more)
    assert ended.codes == [0, 0, 0], ended.err
    runs = tmp_path / "runs"
    card = json.loads((runs / "without_query" / "primed" / "metaprime.json").read_text("utf-8"))
    assert card["provenance"]["config"]["learner"]["name"] == "without_query"
    seen, longer = (
        [line for line in lines_of(runs / name / "metrics.jsonl") if "query_loss" in line]
        for name in ("seen", "longer")
    )
    assert [line["step"] for line in seen] == [1, 2]
    # Where all inner steps have one support batch, its loss after two steps is the loss before a third.
    assert seen[0]["query_loss"] == pytest.approx(longer[0]["support_loss_after"], rel=1e-5)
    assert seen[0]["query_loss"] != pytest.approx(longer[0]["query_loss"], rel=1e-3)


@pytest.mark.slow
def test_the_method_primes_and_transfers(run: Run, tmp_path: Path) -> None:
    ended = run("method")
    assert ended.codes == [0, 0, 0], ended.err
    assert "gamma * y + delta" in ended.out[2]
    output = tmp_path / "runs" / "scale_shift"
    primed = load_file(output / "primed" / "metaprime.safetensors")
    assert primed["adapter.1.factors"].shape == (HIDDEN,)
    cell = output / "transfer" / "primed" / "qai-scale_shift-k20-s0"
    tuned = load_file(cell / "metaprime.safetensors")
    assert (tuned["adapter.1.factors"] != 1).any()
    assert (tuned["adapter.1.delta"] != 0).any()
    record = json.loads((cell / "record.json").read_text("utf-8"))
    assert record["peft"] == {"method": "scale_shift"}
    assert record["parameters"]["adapter"] == 2 * HIDDEN * LAYERS
    assert record["frozen"]["unchanged"]


def test_the_task_goes_all_the_way(run: Run, tmp_path: Path) -> None:
    control = ["learner.name=masked_words", "run.output=runs/masked", "encoder.name=runs/sentences/base"]
    prime = EXAMPLES["task"].commands[0]
    # The task has no checks of its corpora, which is one error and not one for each split.
    ended = run("task", [[*prime[:-1], *control], ["metaprime", "data", "check", *prime[2:]]])
    assert ended.codes == [0, 0, 0, 0, 0, 0, 2], ended.err
    assert ended.err.count("task.name 'sentences' has no checks of its corpora") == 1
    _, transferred, predicted, suite, *_ = ended.out
    assert "primed: accuracy" in transferred
    assert predicted.strip() in CLASSES
    assert "accuracy, mean" in suite
    assert "F1" not in transferred + suite
    output = tmp_path / "runs" / "sentences"
    assert "validation_accuracy" in lines_of(output / "metrics.jsonl")[-1]
    check_sentences(output / "transfer" / "primed" / "qai-pfeiffer-k20-s0")
    check_suite(tmp_path / "runs" / "suite" / "order")


def check_sentences(cell: Path) -> None:
    """The classes are those of the corpus, the accuracy is that of the predictions, the head has a row for each class."""
    record = json.loads((cell / "record.json").read_text("utf-8"))
    lines = lines_of(cell / "predictions.jsonl")
    right = [line["gold"] == line["predicted"] for line in lines]
    assert len(right) == 20
    assert record["scores"] == {"accuracy": 100 * sum(right) / len(right)}
    tags = {one.words: one.gold for one in synthetic.read("", "qai", "test")}
    for line in lines:
        types = [tag[2:] for tag in tags[tuple(line["words"])] if tag.startswith("B-")]
        assert line["gold"] == (types[0] if types else "none")
    assert len({line["gold"] for line in lines}) > 1
    assert json.loads((cell / "metaprime.json").read_text("utf-8"))["labels"] == list(CLASSES)
    assert load_file(cell / "metaprime.safetensors")["head.weight"].shape == (len(CLASSES), HIDDEN)


def check_suite(suite: Path) -> None:
    """Every arm and seed is there, and what is written about them is about accuracy."""
    results = json.loads((suite / "results.json").read_text("utf-8"))
    assert (results["task"], results["failed"]) == ("sentences", [])
    assert len(results["records"]) == len(results["arms"]) * len(results["seeds"]) == 6
    for name in ("table.md", "report.md", "report.html", "report.tex", "report.csv"):
        # Names of styles are not to be read.
        text = re.sub(r"<style>.*?</style>|<[^>]*>", " ", (suite / name).read_text("utf-8"), flags=re.DOTALL)
        assert "accuracy" in text, name
        assert not re.search(r"\bf1\b|\bentit(y|ies)\b", text, re.IGNORECASE), name
    assert "Accuracy (%)" in (suite / "report.md").read_text("utf-8")
    (header, *rows) = (suite / "report.csv").read_text("utf-8").splitlines()
    place = header.split(",").index("accuracy")
    assert all(0 <= float(row.split(",")[place]) <= 100 for row in rows)


@pytest.mark.slow
def test_the_reader_checks_and_primes(run: Run, tmp_path: Path) -> None:
    languages = ("qaa", "qaf", "qak", "qap", "qad")
    for language in languages:
        for split in SPLITS:
            write_lines(tmp_path / "corpus" / language / f"{split}.lines", language, split)
    bad = tmp_path / "bad" / "qaa" / "train.lines"
    write_lines(bad, "qaa", "train")
    with bad.open("ab") as file:
        file.write(b"no tab\nb\xe4d\tO\none\xe2\x80\xa8word\tO\n")
    check = ["metaprime", "data", "check", "--json"]
    prime = EXAMPLES["reader"].commands[-1]
    refused = [word.replace(":corpus", ":bad").replace("/lines", "/refused") for word in prime]
    ended = run("reader", [[*check, "lines:corpus"], [*check, "lines:bad"], refused])
    assert ended.codes == [0, 0, 0, 1, 2], ended.err
    sound, damaged = (json.loads(out) for out in ended.out[2:4])
    assert {name: facts["sentences"] for name, facts in sound["splits"].items()} == {
        f"{language}/{split}": COUNT for language in languages for split in SPLITS
    }
    assert sound["clean"]
    assert damaged["splits"]["qaa/train"]["sentences"] == COUNT + 1
    assert damaged["splits"]["qaa/train"]["problems"] == {"malformed line": 1, "not UTF-8": 1}
    for number, wrong in ((COUNT + 1, "'no tab' has no tab"), (COUNT + 2, "byte 0xe4")):
        assert f"train.lines:line {number}: {wrong}" in ended.err
    assert (tmp_path / "runs" / "lines" / "primed" / "model.safetensors").is_file()
    assert not (tmp_path / "runs" / "refused" / "primed").exists()


def write_lines(file: Path, language: str, split: str) -> None:
    """COUNT synthetic sentences in the format of the example."""
    file.parent.mkdir(parents=True, exist_ok=True)
    texts = (f"{' '.join(one.words)}\t{' '.join(one.gold)}\n" for one in synthetic.read("", language, split)[:COUNT])
    file.write_text("".join(texts), "utf-8")
