"""The rooms and the arrows between them: every import of the package is parsed, wherever in a file it stands."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GROUND = {"types", "streams", "files", "yaml_files", "per_episode", "noise"}
INNER = {"data", "models", "peft", "meta", "evaluation"}
MAY_IMPORT: dict[str, set[str]] = {
    "types": set(),
    "streams": set(),
    "per_episode": set(),
    "noise": set(),
    "files": {"types"},
    "yaml_files": {"types"},
    **dict.fromkeys(INNER, GROUND),
    "tasks": GROUND | INNER,
    "config": GROUND | INNER | {"tasks"},
    "interop": GROUND | INNER | {"tasks", "config"},
    "loops": GROUND | INNER | {"tasks", "config", "interop"},
}
MAY_IMPORT |= {outer: {*MAY_IMPORT, "cli", "__init__"} for outer in ("cli", "__init__", "__main__")}
OUTSIDE_THE_PACKAGE = {"recipes", "tests", "benchmarks", "data_scripts"}
TAG = re.compile(r"(?<![A-Za-z0-9])[BI]-")
MAY_KNOW_TAGS = ("tasks/tagging.py", "data/", "evaluation/metrics.py")


def package_sources() -> dict[str, str]:
    """File -> source of the whole package, by path inside it."""
    package = ROOT / "metaprime"
    return {str(file.relative_to(package)): file.read_text("utf-8") for file in sorted(package.rglob("*.py"))}


def room_of(file: str) -> str:
    """`data/conll.py` -> data, `cli.py` -> cli, `data/__init__.py` -> data, `__init__.py` -> __init__."""
    return file.split("/")[0].removesuffix(".py")


def imported(file: str, tree: ast.AST) -> Iterator[str]:
    """Dotted names that a file imports at run time, inside functions too, but not under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for other in node.orelse:
                yield from imported(file, ast.Module([other], []))
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = ["metaprime", *file.split("/")[:-1]]
                base = ".".join([*here[: len(here) - node.level + 1], *([base] if base else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            yield from (str(a.value) for a in node.args[:1] if isinstance(a, ast.Constant))
        yield from imported(file, node)


def wrong_arrows(sources: Mapping[str, str]) -> list[str]:
    """One line for each import that no arrow allows."""
    wrong = []
    for file, source in sources.items():
        room = room_of(file)
        if room not in MAY_IMPORT:
            wrong.append(f"{file}: {room} is no known room")
            continue
        for name in imported(file, ast.parse(source)):
            top, *rest = name.split(".")
            if top == "metaprime":
                target = rest[0] if rest and rest[0] in MAY_IMPORT else "__init__"
                bad = target != room and target not in MAY_IMPORT[room]
            else:
                bad = (
                    top in OUTSIDE_THE_PACKAGE
                    or (top == "accelerate" and room != "loops")
                    or (room == "meta" and top != "torch" and top not in sys.stdlib_module_names)
                )
            if bad:
                wrong.append(f"{file}: imports {name}")
    return wrong


def tag_literals(sources: Mapping[str, str]) -> list[str]:
    """String literals, docstrings apart, that spell a tag's prefix where no tag should be known."""
    found = []
    for file, source in sources.items():
        if file.startswith(MAY_KNOW_TAGS):
            continue
        tree = ast.parse(source)
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = [
            n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in prose
        ]
        found += [f"{file}:{node.lineno}: {node.value!r}" for node in texts if TAG.search(str(node.value))]
    return found


def test_every_file_is_in_a_room_and_every_import_follows_an_arrow() -> None:
    sources = package_sources()
    assert {room_of(file) for file in sources} == set(MAY_IMPORT), "a room is new or gone: say here what it may import"
    assert wrong_arrows(sources) == []


def test_the_rooms_are_really_read() -> None:
    seen = {(room_of(f), n) for f, s in package_sources().items() for n in imported(f, ast.parse(s))}
    assert ("loops", "accelerate.Accelerator") in seen
    assert ("cli", "metaprime.loops.prime.prime") in seen  # inside a function
    assert ("types", "torch") not in seen  # under TYPE_CHECKING


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("data/episodes.py", "from metaprime.models.encoder import load_encoder"),
        ("data/episodes.py", "import metaprime.models"),
        ("data/episodes.py", "from metaprime import models"),
        ("data/episodes.py", "from ..models import encoder"),
        ("data/episodes.py", "def late():\n    from metaprime.models import encoder"),
        ("data/episodes.py", "import importlib\nx = importlib.import_module('metaprime.models')"),
        ("data/episodes.py", "from metaprime import prime"),
        ("peft/lora.py", "from metaprime.models.sites import resolve"),
        ("meta/inner.py", "import numpy as np"),
        ("meta/inner.py", "from transformers import AutoModel"),
        ("meta/inner.py", "from metaprime.config import Config"),
        ("tasks/tagging.py", "from metaprime.loops import build"),
        ("tasks/tagging.py", "from metaprime.config import Config"),
        ("models/encoder.py", "from accelerate import Accelerator"),
        ("cli.py", "import accelerate.utils"),
        ("config.py", "import metaprime.interop.learn2learn"),
        ("interop/learn2learn.py", "from metaprime.loops.prime import prime"),
        ("loops/prime.py", "from metaprime.cli import app"),
        ("loops/prime.py", "from recipes import prime"),
        ("loops/prime.py", "import benchmarks.speed"),
        ("loops/prime.py", "from tests.conftest import make_toy"),
        ("evaluation/tables.py", "from data_scripts import conll_to_parquet"),
        ("streams.py", "from metaprime.types import Params"),
        ("attic/old.py", ""),
    ],
)
def test_a_wrong_arrow_is_found(file: str, source: str) -> None:
    assert len(wrong_arrows({**package_sources(), file: source})) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("meta/inner.py", "import math\nfrom torch import nn\nfrom metaprime.meta.learner import Learner"),
        (
            "data/new.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from metaprime.models import encoder",
        ),
        ("loops/new.py", "import accelerate\nfrom metaprime.interop import learn2learn"),
        ("__main__.py", "from metaprime.cli import main"),
    ],
)
def test_a_right_arrow_is_not(file: str, source: str) -> None:
    assert wrong_arrows({file: source}) == []


def test_tags_are_known_in_their_own_files_only() -> None:
    assert tag_literals(package_sources()) == []


@pytest.mark.parametrize("source", ['x = "B-"', 'x = f"I-{name}"', 'x = tag == "B-PER"'])
def test_a_tag_elsewhere_is_found(source: str) -> None:
    assert len(tag_literals({"loops/build.py": source})) == 1
    assert tag_literals({"tasks/tagging.py": source, "data/labels.py": source}) == []


def test_help_needs_neither_torch_nor_transformers() -> None:
    probe = (
        "import sys; sys.argv = ['metaprime', '--help']\n"
        "import metaprime.cli\n"
        "try:\n    metaprime.cli.main()\n"
        "except SystemExit as stop:\n    code = stop.code\n"
        "heavy = {'torch', 'transformers', 'accelerate', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "prime" in done.stdout
    assert "transfer" in done.stdout
