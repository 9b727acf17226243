"""Own code: what a file adds to the tables, what is refused, and what is recorded of it."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from metaprime.config import code
from metaprime.config.code import code_hashes, load_code, loaded_code, run_code
from metaprime.config.loading import load_config, override
from metaprime.data.sources import CORPORA, read_raw
from metaprime.meta import LEARNERS
from metaprime.peft import METHODS
from metaprime.runs.provenance import Provenance, changes, versions
from metaprime.tasks import TASKS
from metaprime.types import MetaprimeError

OWN = """
from dataclasses import replace
from typing import Literal

from metaprime.data.reading import Corpus, Reading
from metaprime.data.rows import Example
from metaprime.meta.learners import anil
from metaprime.peft.method import Method, MethodConfig
from metaprime.peft.no_adapter import HEAD, no_modules
from metaprime.tasks.tagging.settings import TaggingConfig
from metaprime.tasks.tagging.task import TAGGING


class MiniConfig(MethodConfig):
    method: Literal["mini"] = "mini"
    rank: int = 3


class ChunksConfig(TaggingConfig):
    name: Literal["chunks"] = "chunks"


MINI = Method(MiniConfig, no_modules, "none", "here")
anil_again = replace(anil, formula="as anil")
CHUNKS = replace(TAGGING, config=ChunksConfig)
CORPUS = Corpus(lambda root, language, split, form: Reading([Example((root,), ("O",))]), lambda root: ["qaa"])
"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A file with one value of each kind; what it adds is gone after the test."""
    written = tmp_path / "mine.py"
    written.write_text(OWN, "utf-8")
    yield written
    for path in list(code._names):
        for kind, name in code._names.pop(path):
            del code._TABLES[kind][name]
    code._sources.clear()


def names() -> tuple[set[str], ...]:
    return tuple(map(set, (METHODS, LEARNERS, TASKS, CORPORA)))


def test_each_kind_of_value_joins_its_table_and_imports_do_not(file: Path) -> None:
    before = names()
    load_code([file])
    added = [after - old for after, old in zip(names(), before, strict=True)]
    assert added == [{"mini"}, {"anil_again"}, {"chunks"}, {"mine"}]
    assert read_raw("mine:word", "qaa", "train").sentences[0].words == ("word",)


def test_a_config_names_what_its_own_file_defines(file: Path) -> None:
    keys = ["peft={method: mini, rank: 5}", "learner.name=anil_again", "task.name=chunks", "transfer.methods=[mini]"]
    with pytest.raises(MetaprimeError, match=r"method 'mini' is unknown.*name the file of your own in run\.code"):
        load_config(None, keys)
    config = load_config(None, [f"run.code={file}", *keys])
    assert (config.peft.model_dump(), config.run.code) == ({"method": "mini", "rank": 5}, (str(file),))
    assert override(config, "inner.steps=1").learner.value.formula == "as anil"
    with pytest.raises(MetaprimeError, match=r"unknown key peft\.rnk; did you mean rank\?"):
        load_config(None, [f"run.code={file}", "peft={method: mini, rnk: 5}"])


def test_results_have_another_address_when_the_code_changes(file: Path) -> None:
    plain = load_config()
    first = load_config(None, [f"run.code={file}"])
    digests = {plain.digest("data"), first.digest("data")}
    moved = file.with_name("moved.py")
    file.rename(moved)
    for kind, name in code._names.pop(str(file)):
        del code._TABLES[kind][name]
    assert load_config(None, [f"run.code=[{moved}]"]).digest("data") in digests
    moved.write_text(OWN + "# changed\n", "utf-8")
    assert load_config(None, [f"run.code={moved}"]).digest("data") not in digests


def test_a_hash_is_recorded_and_a_change_of_it_is_said(file: Path) -> None:
    load_code([file])
    before = versions()
    assert before[f"run.code {file}"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert code_hashes(["other.py"]) == {}
    file.write_text(OWN.replace("rank: int = 3", "rank: int = 4"), "utf-8")
    load_code([file])
    assert METHODS["mini"].config().model_dump()["rank"] == 4
    (line,) = changes({"versions": before}, Provenance(versions=versions()))
    assert line.startswith(f"version of run.code {file}: {before[f'run.code {file}']} -> ")


def test_objects_go_to_a_process_that_has_run_the_same_code(file: Path) -> None:
    """A worker gets the parent's content, not the file, which may have changed since."""
    config = load_config(None, [f"run.code={file}", "peft.method=mini"])
    data = pickle.dumps((loaded_code(), pickle.dumps(config)))
    file.unlink()
    probe = (
        "import pickle, sys\nfrom metaprime.config.code import run_code\n"
        "code, config = pickle.loads(sys.stdin.buffer.read())\nrun_code(code)\n"
        "print(pickle.loads(config).peft.rank)"
    )
    done = subprocess.run([sys.executable, "-c", probe], input=data, capture_output=True, check=False)
    assert done.stdout.decode().strip() == "3", done.stderr.decode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nx.y\n", r"mine\.py:line 2: AttributeError"),
        ("x = (\n", r"mine\.py:line 1: SyntaxError"),
        ("x = 1\n", "defines no Method, Learner, TaskKind or Corpus"),
        (OWN.replace('"mini"', '"lora"'), "the name 'lora' is taken: choose another one"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(file: Path, text: str, message: str) -> None:
    before = names()
    file.write_text(text, "utf-8")
    with pytest.raises(MetaprimeError, match=message):
        load_config(None, [f"run.code={file}"])
    assert names() == before


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MetaprimeError, match=r"run\.code: .*none\.py cannot be read"):
        load_config(None, [f"run.code={tmp_path / 'none.py'}"])
    with pytest.raises(MetaprimeError, match=r"run\.code"):
        load_config(None, ["run.code=3"])


def test_a_file_is_run_once_for_each_content(file: Path) -> None:
    load_code([file])
    first = METHODS["mini"]
    load_code([file])
    run_code(loaded_code())
    assert METHODS["mini"] is first
