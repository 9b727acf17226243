"""The rooms and the arrows between them: every import of the package is parsed, wherever in a file it stands."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import metaprime

ROOT = Path(__file__).parents[1]

FLOORS: tuple[tuple[str, ...], ...] = (
    ("types", "table", "rng", "packing", "nn", "optim", "files"),
    ("data", "models", "peft", "meta", "stats"),
    ("tasks",),
    ("config", "interop"),
    ("runs",),
    ("build", "reports"),
    ("transfers",),
    ("priming",),
    ("suite", "preflight"),
    ("cli", "__init__", "__main__"),
)
"""Lowest first. A room imports rooms of lower floors only, never one beside it."""

GROUND: dict[str, set[str]] = {
    "types": set(),
    "table": set(),
    "rng": set(),
    "files": {"types"},
    "optim": {"types"},
    "packing": {"types"},
    "nn": {"types", "rng", "packing"},
}
"""The ground floor's files have arrows of their own."""

TOP = ("cli", "__init__", "__main__")
"""The package's doors may import one another."""

WITHIN: dict[str, tuple[str, ...]] = {
    "meta": (
        *("learner", "values", "compiled", "execution", "selection", "inner_optimizers", "chunks", "maml"),
        *("multitask", "reptile", "learners", "__init__"),
    ),
    "runs": (
        *("__init__", "artifact", "checkpoint", "flops", "provenance", "launch", "lock", "log", "records", "results"),
        *("stopping", "folder", "found"),
    ),
    "reports": (
        *("__init__", "compute", "figures", "read", "wording", "curves", "scores", "sentences", "document", "headline"),
        *("formats", "score_tables", "run_tables", "summary", "sections", "write"),
    ),
    "transfers": (
        *("__init__", "shots", "evaluate", "start", "head_only", "finetune", "stacked", "held_out", "rates"),
        *("stability", "record", "transfer", "texts", "predict", "card", "export"),
    ),
    "priming": (
        *(
            "__init__",
            "starts",
            "guards",
            "collapse",
            "memory",
            "batching",
            "settings",
            "outer",
            "best",
            "setup",
            "metrics",
        ),
        *("state", "step", "primed", "prime"),
    ),
    "suite": (
        *(
            "__init__",
            "workers",
            "cells",
            "spec",
            "results",
            "order",
            "early",
            "checks",
            "record",
            "forecast",
            "ablate",
            "recorded",
            "closing",
            "demo",
        ),
    ),
}
"""In these rooms a file imports only files that stand before it."""

ONLY: dict[str, set[str]] = {"meta": {"torch"}, "stats": {"numpy", "scipy"}}
"""Packages, besides the standard library, that a room may import."""

NEVER: dict[str, set[str]] = {"reports": {"torch", "transformers"}, "config": {"transformers"}}
"""Packages that a room must not import."""

LAUNCHED = {"runs", "build", "transfers", "priming", "suite", "preflight"}
"""Rooms that know of several processes: only they import accelerate."""

LATE = ("datasets", "matplotlib", "pandas", "scipy.stats", "seqeval.metrics", "sklearn")
"""Packages, and parts of packages, that take a second to load and that no start of a run needs: imported in functions."""

OUTSIDE_THE_PACKAGE = {"recipes", "tests", "benchmarks", "data_scripts", "findings"}

TAG = re.compile(r"(?<![A-Za-z0-9])[BI]-")
MAY_KNOW_TAGS = ("tasks/tagging/", "data/readers/")


def package_sources() -> dict[str, str]:
    """File -> source of the whole package, by path inside it."""
    package = ROOT / "metaprime"
    return {str(file.relative_to(package)): file.read_text("utf-8") for file in sorted(package.rglob("*.py"))}


def may_import() -> dict[str, set[str]]:
    """Room -> rooms that it may import."""
    allowed: dict[str, set[str]] = {}
    below: set[str] = set()
    for floor in FLOORS:
        allowed |= {room: set(below) for room in floor}
        below |= set(floor)
    return allowed | GROUND | dict.fromkeys(TOP, below)


MAY_IMPORT = may_import()


def room_of(file: str) -> str:
    """`data/readers/conll.py` -> data, `rng.py` -> rng, `data/__init__.py` -> data, `__init__.py` -> __init__."""
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


def wrong_within(file: str, target: list[str]) -> bool:
    """Whether a file of a room with an order imports one that does not stand before it."""
    room, *path = file.removesuffix(".py").split("/")
    if room not in WITHIN or not path:
        return False
    order = WITHIN[room]
    own = path[0]
    other = target[0] if target and target[0] in order else "__init__"
    return own not in order or (other != own and order.index(other) > order.index(own))


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
                bad = wrong_within(file, rest[1:]) if target == room else target not in MAY_IMPORT[room]
            else:
                bad = (
                    top in OUTSIDE_THE_PACKAGE
                    or (top == "accelerate" and room not in LAUNCHED)
                    or top in NEVER.get(room, ())
                    or (room in ONLY and top not in ONLY[room] and top not in sys.stdlib_module_names)
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


@pytest.mark.parametrize("room", WITHIN)
def test_an_order_names_every_file_of_its_room(room: str) -> None:
    files = {file.removeprefix(f"{room}/").removesuffix(".py") for file in package_sources() if room_of(file) == room}
    assert set(WITHIN[room]) == files
    assert len(WITHIN[room]) == len(files)


def test_the_rooms_are_really_read() -> None:
    seen = {(room_of(f), n) for f, s in package_sources().items() for n in imported(f, ast.parse(s))}
    assert ("priming", "accelerate.Accelerator") in seen
    assert ("cli", "metaprime.priming.prime.prime") in seen  # inside a function
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
        ("meta/maml.py", "import numpy as np"),
        ("meta/maml.py", "from transformers import AutoModel"),
        ("meta/maml.py", "from metaprime.config.sections import Config"),
        ("stats/intervals.py", "import torch"),
        ("stats/intervals.py", "import pandas"),
        ("tasks/tagging/task.py", "from metaprime.build import data"),
        ("tasks/tagging/task.py", "from metaprime.config.sections import Config"),
        ("models/encoder.py", "from accelerate import Accelerator"),
        ("cli/app.py", "import accelerate.utils"),
        ("config/sections.py", "import metaprime.interop.learn2learn"),
        ("config/sections.py", "from metaprime.runs import folder"),
        ("interop/learn2learn.py", "from metaprime.priming.prime import prime"),
        ("interop/learn2learn.py", "from metaprime.config.sections import Config"),
        ("runs/folder.py", "from metaprime.build.model import build_model"),
        ("build/model.py", "from metaprime.reports.read import read_suite"),
        ("build/model.py", "from metaprime.transfers.start import open_source"),
        ("reports/read.py", "from metaprime.build.data import build_task"),
        ("reports/read.py", "import torch"),
        ("reports/read.py", "from metaprime.transfers.record import Cell"),
        ("transfers/transfer.py", "from metaprime.priming.prime import prime"),
        ("priming/prime.py", "from metaprime.suite.ablate import ablate"),
        ("suite/ablate.py", "from metaprime.preflight.cost import estimate"),
        ("preflight/cost.py", "from metaprime.suite.ablate import ablate"),
        ("priming/prime.py", "from metaprime.cli import app"),
        ("priming/prime.py", "from recipes import prime"),
        ("priming/prime.py", "import benchmarks.speed"),
        ("priming/prime.py", "from tests.conftest import make_toy"),
        ("reports/wording.py", "from data_scripts import conll_to_parquet"),
        ("rng.py", "from metaprime.types import Params"),
        ("attic/old.py", ""),
    ],
)
def test_a_wrong_arrow_between_rooms_is_found(file: str, source: str) -> None:
    # Without those that the package itself has: they fail their own test.
    before = wrong_arrows(package_sources())
    assert len(set(wrong_arrows({**package_sources(), file: source})) - set(before)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("priming/starts.py", "from metaprime.priming.prime import prime"),
        ("priming/setup.py", "from metaprime.priming import step"),
        ("priming/new.py", "from metaprime.priming.prime import prime"),
        ("transfers/finetune.py", "from metaprime.transfers.transfer import transfer"),
        ("transfers/start.py", "from .record import Cell"),
        ("suite/spec.py", "from metaprime.suite.ablate import ablate"),
        ("runs/provenance.py", "def late():\n    from metaprime.runs.folder import open_output"),
        ("reports/read.py", "from metaprime.reports.write import report"),
        ("meta/learner.py", "from metaprime.meta.maml import adapt"),
        ("meta/learner.py", "from metaprime.meta import LEARNERS"),
    ],
)
def test_a_wrong_arrow_inside_a_room_is_found(file: str, source: str) -> None:
    # Without those that the package itself has: they fail their own test.
    before = wrong_arrows(package_sources())
    assert len(set(wrong_arrows({**package_sources(), file: source})) - set(before)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("meta/maml.py", "import math\nfrom torch import nn\nfrom metaprime.meta.learner import Learner"),
        (
            "data/new.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from metaprime.models import encoder",
        ),
        ("priming/prime.py", "import accelerate\nfrom metaprime.interop import learn2learn"),
        ("priming/prime.py", "from metaprime.priming.setup import assemble"),
        ("__main__.py", "from metaprime.cli.app import main"),
    ],
)
def test_a_right_arrow_is_not(file: str, source: str) -> None:
    assert wrong_arrows({file: source}) == []


def test_tags_are_known_in_their_own_files_only() -> None:
    assert tag_literals(package_sources()) == []


@pytest.mark.parametrize("source", ['x = "B-"', 'x = f"I-{name}"', 'x = tag == "B-PER"'])
def test_a_tag_elsewhere_is_found(source: str) -> None:
    assert len(tag_literals({"build/model.py": source})) == 1
    assert tag_literals({"tasks/tagging/task.py": source, "data/readers/conll.py": source}) == []


def test_help_needs_neither_torch_nor_transformers() -> None:
    probe = (
        "import sys; sys.argv = ['metaprime', '--help']\n"
        "import metaprime.cli.app\n"
        "try:\n    metaprime.cli.app.main()\n"
        "except SystemExit as stop:\n    code = stop.code\n"
        "heavy = {'torch', 'transformers', 'accelerate', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "prime" in done.stdout
    assert "transfer" in done.stdout


def loaded_early(sources: Mapping[str, str]) -> list[str]:
    """One line for each import of LATE that is made when its file is loaded."""
    found = []
    for file, source in sources.items():
        top = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = imported(file, ast.Module(top, []))  # type: ignore[arg-type]
        found += [f"{file}: {name}" for name in names if name.startswith(LATE)]
    return found


def test_what_takes_a_second_to_load_is_loaded_when_it_is_used() -> None:
    assert loaded_early(package_sources()) == []


@pytest.mark.parametrize(
    "source",
    ["import sklearn", "from scipy import stats", "from seqeval.metrics.sequence_labeling import get_entities"],
)
def test_an_import_of_it_at_the_top_is_found(source: str) -> None:
    assert len(loaded_early({"stats/intervals.py": source})) == 1
    assert loaded_early({"stats/intervals.py": f"def late():\n    {source}"}) == []
    assert loaded_early({"stats/intervals.py": "import scipy\nfrom seqeval.scheme import IOB2"}) == []


def test_no_public_name_is_that_of_a_room() -> None:
    """The import system binds a room to its name in the package, over whatever `metaprime` offers under that name."""
    assert set(metaprime.__all__) & set(MAY_IMPORT) == set()
