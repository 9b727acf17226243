"""Each count finds a made-up offender and invents none; the real tree keeps the limits."""

from __future__ import annotations

import importlib.util
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "house.py"


def load_script() -> ModuleType:
    """Loads the script from its path: `tests/peft` on the import path would look like a package."""
    spec = importlib.util.spec_from_file_location("house", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by its name.
    sys.modules["house"] = module
    spec.loader.exec_module(module)
    return module


house = load_script()

LONG = "def f():\n" + "    x = 1\n" * 45
DOCUMENTED = 'def f():\n    """Returns\n    one."""\n' + "    x = 1\n" * 44


def calls(sources: dict[str, str]) -> list[str]:
    found: list[str] = house.calls_of(sources, ["rules_of", "starting_rules"])
    return found


def untested(sources: dict[str, str]) -> list[str]:
    found: list[str] = house.files_without_a_test(sources, {"runs/test_lock.py": "", "test_rng.py": ""})
    return found


def goes_on(sources: dict[str, str]) -> list[str]:
    found: list[str] = house.uses_of(sources, "goes on")
    return found


@pytest.mark.parametrize(
    ("count", "sources", "offenders"),
    [
        (
            house.functions_taking_config,
            {
                "a.py": "def f(config: Config): ...",
                "b/c.py": "class C:\n    async def g(self, *, other: 'Config | None' = None): ...",
                "d.py": "def f():\n    def inner(x: Optional[sections.Config]): ...",
            },
            ["a.py:1: f", "b/c.py:2: g", "d.py:2: inner"],
        ),
        (
            house.modules_naming_config,
            {
                "priming/step.py": "def f(x: list[Config]) -> Config: ...",
                "runs/lock.py": "class Held:\n    config: 'Config'",
            },
            ["priming/step.py: 2 annotations", "runs/lock.py: 1 annotations"],
        ),
        (
            house.look_ups_by_name,
            {"priming/step.py": "x = LEARNERS[name].step", "loops/a.py": "x = peft.METHODS['lora']\ny = TASKS[0]"},
            ["priming/step.py:1: LEARNERS[name]", "loops/a.py:1: peft.METHODS['lora']", "loops/a.py:2: TASKS[0]"],
        ),
        (
            calls,
            {"priming/step.py": "x = rules_of(config)\ny = starts.starting_rules()"},
            ["priming/step.py:1: rules_of(config)", "priming/step.py:2: starts.starting_rules()"],
        ),
        (
            house.assignments_from_outside,
            {
                "a.py": "model.loss = 1\nrun.best += 1\nx, run.first = 1, 2\nrun.last: int = 3",
                "b.py": "class C:\n    loss: int\n    def f(self):\n        self.best = self.first = self.last = 1",
            },
            ["a.py:1: model.loss", "a.py:2: run.best", "a.py:3: run.first", "a.py:4: run.last"],
        ),
        (
            house.functions_of_many_parameters,
            {
                "a.py": "class C:\n    def f(self, a, /, b, *args, c, d, e, **kwargs): ...",
                "b.py": "def g(a, b, c, d, e, f, g, h): ...",
            },
            ["a.py:2: f, 7 parameters", "b.py:1: g, 8 parameters"],
        ),
        (
            house.long_functions,
            {"a.py": LONG, "b.py": LONG + "    y = 1\n"},
            ["b.py:1: f, 47 lines", "a.py:1: f, 46 lines"],
        ),
        (
            house.repeated_names,
            {
                "a.py": "SIZE = 1\ndef _rows(): ...",
                "b.py": "SIZE: int = 2\nclass Cell: ...",
                "c.py": "FIRST, SIZE = 1, 2\ndef _rows(): ...",
                "peft/lora.py": "read = 1",
                "peft/ia3.py": "read = 1",
            },
            ["a.py, b.py, c.py: SIZE", "peft/lora.py, peft/ia3.py: read"],
        ),
        (untested, {"runs/folder.py": "def f(): ...", "types.py": "class C: ..."}, ["runs/folder.py", "types.py"]),
        (
            house.without_docstring,
            {"a.py": "def f(): ...\nclass C:\n    def g(self): ...", "peft/__init__.py": "def h(): ..."},
            ["a.py:1: f", "a.py:2: C", "a.py:3: C.g", "peft/__init__.py:1: h"],
        ),
        (house.without_section, {"a.py": 'def f():\n    """Returns one, see Args: there."""'}, ["a.py:1: f"]),
        (
            house.without_example,
            {
                "a.py": 'def f():\n    """Returns `one` (or two) of `three`.\n\n    Args:\n        x: y\n    """',
                "b.py": 'def f():\n    """f()"""',
            },
            ["a.py:1: f", "b.py:1: f"],
        ),
        (
            house.without_shapes,
            {
                "a.py": 'def f(x: torch.Tensor):\n    """Returns (T, B)."""',
                "b.py": 'def f(x: "Sequence[Params]"):\n    """Is x.\n\n    Args:\n        x: one, as f(a, b) is\n    """',
                "c.py": "@dataclass(frozen=True)\nclass C:\n    x: Batch\n    def f(self): ...",
                "d.py": "class D:\n    def __init__(self, x: Batch): ...",
            },
            ["a.py:1: f", "b.py:1: f", "c.py:2: C", "d.py:1: D"],
        ),
        (house.module_questions, {"a.py": '"""How a thing is done."""'}, ["a.py: How a thing is done."]),
        (
            house.docstring_fragments,
            {"a.py": '"""Of late."""\nSIZE = 1\n"""As given."""\ndef f():\n    """The same, later.\n\n    More."""'},
            ["a.py:1: Of late.", "a.py:3: As given.", "a.py:5: The same, later."],
        ),
        (
            goes_on,
            {"a.py": '"""It\n\ngoes\n    on."""\nx = f"{y} Goes on"\n# It goes\n# on and goes on.\n'},
            ["a.py:3: goes on", "a.py:5: goes on", "a.py:6: goes on", "a.py:7: goes on"],
        ),
        (
            house.import_cycles,
            {
                "meta/a.py": "from metaprime.meta.b import f",
                "meta/b.py": "def late():\n    from . import c",
                "meta/c.py": "import metaprime.meta.a",
                "meta/d.py": "from metaprime.meta import a",
                "__init__.py": "from metaprime.rng import stream",
                "rng.py": "from metaprime import version",
            },
            ["__init__.py, rng.py", "meta/a.py, meta/b.py, meta/c.py"],
        ),
    ],
)
def test_an_offender_is_found(count: Callable[[Any], list[str]], sources: dict[str, str], offenders: list[str]) -> None:
    found = count(sources)
    assert sorted(found) == sorted(offenders)


@pytest.mark.parametrize(
    ("count", "sources"),
    [
        (
            house.functions_taking_config,
            {"a.py": "x: Config\ndef f(a: PeftConfig, b: dict[str, c.Config | None], c, d: 'x') -> Config: ..."},
        ),
        (
            house.modules_naming_config,
            {
                **dict.fromkeys(("cli/app.py", "cli.py", "suite/a.py", "preflight/a.py"), "x: Config"),
                **dict.fromkeys(("config/a.py", "config.py", "__init__.py"), "x: Config"),
                **dict.fromkeys(("priming/setup.py", "priming/prime.py", "transfers/start.py"), "x: Config"),
                "transfers/transfer.py": "x: Config",
                "priming/step.py": "from metaprime.config import Config\nx: PeftConfig = Config()",
            },
        ),
        (
            house.look_ups_by_name,
            {
                **dict.fromkeys(
                    ("peft/a.py", "meta/a.py", "tasks/a.py", "config/a.py", "config.py"), "METHODS['lora']"
                ),
                **dict.fromkeys(("priming/setup.py", "runs/artifact.py"), "LEARNERS['maml']"),
                "priming/step.py": "METHODS.values()\nx['METHODS']\nRATES[0]\nMETHODS['new'] = 1",
            },
        ),
        (calls, {"a.py": "def rules_of(config): ...\nf = rules_of\nf(config)"}),
        (
            house.assignments_from_outside,
            {
                "a.py": "class C:\n    def f(self):\n        self.x = 1\nx = run.x\nf.__doc__ = ''\na.b.x = 1\nx['x'] = 1",
                "b.py": "output.weight = model.last_hidden_state = 1",
                "build/pretrain.py": "tokenizer.x = 1",
            },
        ),
        (
            house.functions_of_many_parameters,
            {
                "a.py": "class C:\n    def f(self, a, b, c, d, e, f): ...",
                "b.py": "class C:\n    @classmethod\n    def g(cls, *, a, b, c, d, e, f): ...",
            },
        ),
        (house.long_functions, {"a.py": DOCUMENTED, "b.py": "@wraps\n" + LONG.replace("    x = 1\n", "", 1)}),
        (
            house.repeated_names,
            {
                **dict.fromkeys(("a.py", "b.py"), "__all__ = []\nlog = 1\n_ = 1\nT = TypeVar('T')\ndef main(): ..."),
                **dict.fromkeys(("data/a.py", "data/readers/b.py"), "def read(): ...\ndef languages(): ..."),
                **dict.fromkeys(("peft/a.py", "peft/b.py"), "METHOD = 1\ndef inject(): ..."),
                **dict.fromkeys(("meta/a.py", "meta/b.py"), "def step():\n    inner = 1"),
                "d.py": "x = {}\nx.a = x['b'] = 1",
                "e.py": "from f import x\nx.a = x['b'] = 1",
                "c.py": "ONE = 1\nif ONE:\n    ONE = 2\ndef f(): ...\ndef f(): ...",
            },
        ),
        (
            untested,
            {
                **dict.fromkeys(("runs/lock.py", "rng.py", "runs/__init__.py", "__main__.py"), "def f(): ..."),
                "runs/names.py": "RUN = 'run'",
            },
        ),
        (
            house.without_docstring,
            {
                "a.py": 'def f():\n    """Returns one."""\ndef _g(): ...\nclass _C:\n    def h(self): ...',
                **dict.fromkeys(("_a.py", "__main__.py", "_b/c.py"), "def f(): ..."),
                "b.py": 'def f():\n    """Returns one."""\n    def inner(): ...',
            },
        ),
        (
            house.without_section,
            {
                f"{name}.py": f'def f():\n    """Does it.\n\n    {name}:\n        x: one\n    """'
                for name in ("Args", "Returns", "Attributes", "Raises")
            },
        ),
        (
            house.without_example,
            {
                "a.py": 'def f():\n    """Returns one: `f()`."""',
                "b.py": 'def f():\n    """Returns one.\n\n    >>> f\n    """',
                "c.py": 'def f():\n    """Returns one.\n\n        x = f\n    """',
            },
        ),
        (
            house.without_shapes,
            {
                **{
                    f"{number}.py": f'def f(x: Batch):\n    """Returns it.\n\n    Args:\n        x: {shape}\n    """'
                    for number, shape in enumerate(
                        ["(T, B, L)", "(m,)", "(..., 3)", "(B, H, L, D / H)", "scalar ()", "losses_T", "one _BLC"]
                    )
                },
                "a.py": "def f(x: int): ...\ndef _g(x: Batch): ...\nclass C(nn.Module):\n    x: torch.Tensor",
            },
        ),
        (
            house.module_questions,
            {"a.py": '"""Howitzers."""', "b.py": 'def f():\n    """How it is done."""', "c.py": ""},
        ),
        (house.docstring_fragments, {"a.py": '"""Offers. As given."""\nx = "As given."', "b.py": ""}),
        (goes_on, {"a.py": '"""It goes\n\nand on."""\ngoes = on\nx = "goes once"\n# it goes\nx = 1\n# on'}),
        (
            house.import_cycles,
            {
                "__init__.py": "if TYPE_CHECKING:\n    from metaprime.meta.a import f\nelse:\n    import os",
                "meta/__init__.py": "from metaprime.meta import a",
                "meta/a.py": "from metaprime import version\nfrom .b import f",
                "meta/b.py": "import torch",
            },
        ),
    ],
)
def test_no_offender_is_invented(count: Callable[[Any], list[str]], sources: dict[str, str]) -> None:
    assert count(sources) == []


def test_sizes() -> None:
    sources = {"a/b.py": "x\n" * 6, "a/c/d.py": "x\n", "a/c/e.py": "x\n", "rng.py": "x\n" * 2}
    assert house.files_in_folders(sources) == {"a/c": 2, "a": 1, ".": 1}
    assert house.shares_of_rooms(sources) == {"a": 80, "rng": 20}
    assert house.lines_of(sources) == 10


def test_lengths_leave_decorators_and_docstrings_out() -> None:
    sources = {
        "a.py": '@wraps\ndef f():\n    """Returns\n    one."""\n    def inner():\n        return 1\n    return inner'
    }
    assert house.lengths_of_functions(sources) == {"a.py:2: f": 4, "a.py:5: inner": 2}


def test_floors_are_the_longest_chain_inside_a_room() -> None:
    sources = {
        "meta/a.py": "from metaprime.meta.b import f\nfrom metaprime.meta.c import g\nfrom metaprime.rng import h",
        "meta/b.py": "from metaprime.meta.c import g",
        "meta/c.py": "import metaprime.rng",
        "rng.py": "import metaprime.nn",
        "nn.py": "",
    }
    assert house.floors_of_rooms(sources) == {
        "meta": ["meta/a.py", "meta/b.py", "meta/c.py"],
        "rng": ["rng.py"],
        "nn": ["nn.py"],
    }


def test_floors_of_a_circle_end() -> None:
    sources = {"meta/a.py": "from metaprime.meta.b import f", "meta/b.py": "from metaprime.meta.a import g"}
    assert house.floors_of_rooms(sources) == {"meta": ["meta/a.py"]}


@pytest.mark.parametrize(
    ("sources", "hops"),
    [
        ({"priming/prime.py": "from metaprime.meta import maml", "meta/maml.py": ""}, 1),
        (
            {
                "priming/prime.py": "from metaprime.meta import LEARNERS",
                "meta/__init__.py": "from metaprime.meta.learners import MAML",
                "meta/learners.py": "from metaprime.meta.maml import adapt",
                "meta/maml.py": "",
            },
            3,
        ),
        ({"loops/prime.py": "from metaprime.meta.inner import adapt", "meta/inner.py": "", "meta/maml.py": ""}, 1),
        ({"priming/prime.py": "# The inner loop: meta/maml.py.", "meta/maml.py": ""}, 1),
        ({"priming/prime.py": "# The inner loop: meta/gone.py.", "meta/maml.py": ""}, math.inf),
        ({"priming/prime.py": "", "meta/maml.py": ""}, math.inf),
        ({}, math.inf),
    ],
)
def test_hops_to_the_inner_gradient(sources: dict[str, str], hops: float) -> None:
    assert house.hops_to_the_inner_gradient(sources) == hops


def test_first_python_line() -> None:
    assert house.first_python_line("# A\n```sh\n```\n```python\n```\n```python\n```") == 4
    assert house.first_python_line("# A\n```sh\n```") == math.inf


def test_asserts() -> None:
    text = "def test():\n    assert x\n    with pytest.raises(E), open(p):\n        with pytest.warns(W) as w: f()"
    assert house.asserts_in({"a.py": "x = 'assert y'\nopen(p)", "b.py": text}) == {"b.py": 3, "a.py": 0}


TREE = {
    "metaprime/rng.py": 'def f():\n    """Returns one."""\n\n\ndef g(x: Config): ...\n',
    "tests/test_rng.py": "assert 1\n",
    "README.md": "# A\n",
    "long.md": "x\n" * 2001,
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


def test_shares_are_of_public_definitions(tree: Path) -> None:
    found = house.counts(house.read_tree(tree))
    assert found["public-with-docstring"].value == 50
    assert found["public-with-section"].value == 0
    assert found["tensor-functions-with-shapes"].value == 100, "there is nothing that takes tensors"


def test_table_is_aligned(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    house.main([str(tree)])
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["count", "value", "limit", "ok"]
    by_name = {row.split()[0]: row for row in rows}
    assert by_name["readme-lines"].split() == ["readme-lines", "1", "<=", "130", "yes"]
    assert by_name["readme-first-python-line"].split() == ["readme-first-python-line", "none", "<=", "59", "no"]
    assert by_name["share-of-the-largest-room"].split()[1:] == ["100.0", "%", "<=", "16", "%", "no"]
    assert by_name["tensor-functions-with-shapes"].split()[1:] == ["100.0", "%", ">=", "60", "%", "yes"]
    assert by_name["asserts-in-tests"].split() == ["asserts-in-tests", "1"]
    assert {row.index("=") for row in rows if "=" in row} == {head.index("limit") + 1}
    assert {row.index("yes") for row in rows if row.endswith("yes")} == {head.index("ok")}


def test_offenders_of_one_count_are_listed(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    house.main([str(tree), "--list", "functions-taking-config"])
    assert capsys.readouterr().out == "rng.py:5: g\n"


def test_an_unknown_count_is_refused(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        house.main([str(tree), "--list", "no-such"])
    assert "--list no-such: no such count; there are files-in-the-largest-folder, " in capsys.readouterr().err


def test_a_folder_without_the_package_is_refused(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        house.main([str(tree / "tests")])
    assert f"{tree / 'tests'} has no folder metaprime" in capsys.readouterr().err


def test_long_files_are_those_that_git_tracks(tree: Path) -> None:
    assert house.counts(house.read_tree(tree))["long-files-in-git"].value is None
    if shutil.which("git") is None:
        pytest.skip("needs git")
    (tree / "binary").write_bytes(b"\0" + b"\n" * 3000)
    (tree / "short.md").write_text("x\n" * 2000, "utf-8")
    for command in (["init", "--quiet"], ["add", "long.md", "short.md", "binary"]):
        subprocess.run(["git", *command], cwd=tree, check=True)
    (tree / "untracked.md").write_text("x\n" * 3000, "utf-8")
    found = house.counts(house.read_tree(tree))
    assert found["long-files-in-git"].offenders == ["long.md: 2001"]
    assert found["lines-of-long-files-in-git"].value == 2001


def test_the_script_needs_the_standard_library_only(tree: Path) -> None:
    done = subprocess.run([sys.executable, "-I", "-S", SCRIPT, tree], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("count ")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    measured: dict[str, Any] = house.counts(house.read_tree(ROOT))
    return measured


def test_every_limit_is_one_of_a_count(found: dict[str, Any]) -> None:
    assert set(house.LIMITS) <= set(found)


@pytest.mark.parametrize("name", sorted(house.LIMITS))
def test_the_tree_keeps_the_limit(found: dict[str, Any], name: str) -> None:
    one = found[name]
    assert house.LIMITS[name].holds(one.value), f"{name} is {one.value}: {one.offenders}"


@pytest.mark.parametrize(
    ("limit", "kept", "exceeded"), [(house.Limit(16), 16, 16.1), (house.Limit(60, at_least=True), 60, 59.9)]
)
def test_a_limit_includes_its_bound(limit: Any, kept: float, exceeded: float) -> None:
    assert limit.holds(kept)
    assert not limit.holds(exceeded)
