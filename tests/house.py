"""Measures the structure of the code and compares each measure with a limit.

The script parses files and imports none of them.

    python tests/house.py                           prints the table of this checkout
    python tests/house.py ROOT                      prints the table of another checkout
    python tests/house.py --list repeated-names     prints the offenders of one count

`sources` maps each file's path inside `metaprime/` to its text, `tests` each path inside `tests/`.
An offender is one line of text that begins with the file, mostly `file:line: name`.
"""

from __future__ import annotations

import argparse
import ast
import io
import math
import re
import subprocess
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TypeAlias

Sources: TypeAlias = Mapping[str, str]
Graph: TypeAlias = Mapping[str, set[str]]
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Definition: TypeAlias = Function | ast.ClassDef

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITION = (*FUNCTION, ast.ClassDef)

MANY_PARAMETERS = 7
LONG_FUNCTION = 45
LONG_FILE = 2000


@dataclass(frozen=True)
class Limit:
    """The largest value that a count may have, or the smallest if `at_least`."""

    bound: float
    at_least: bool = False

    def holds(self, value: float) -> bool:
        """Returns True if the value keeps the limit: `Limit(16).holds(16)`."""
        return value >= self.bound if self.at_least else value <= self.bound


LIMITS: dict[str, Limit] = {
    "files-in-the-largest-folder": Limit(16),
    # The room of tasks holds one folder for each, and grows by one with each.
    "share-of-the-largest-room": Limit(16),
    "functions-taking-config": Limit(12),
    "modules-naming-config": Limit(0),
    "look-ups-by-name": Limit(4),
    "calls-of-rules": Limit(1),
    "calls-of-functional-loss": Limit(2),
    "functions-of-many-parameters": Limit(3),
    "longest-function": Limit(LONG_FUNCTION),
    "long-functions": Limit(0),
    "repeated-names": Limit(15),
    "assignments-from-outside": Limit(0),
    "files-without-a-test": Limit(8),
    "tensor-functions-with-shapes": Limit(60, at_least=True),
    "module-docstrings-opening-with-a-question": Limit(0),
    "import-cycles": Limit(0),
    "hops-to-the-inner-gradient": Limit(1),
    "readme-lines": Limit(130),
    "readme-first-python-line": Limit(59),
}
"""Count -> limit. A count that is not here is reported only."""

CONFIG_ROOMS = {"cli", "suite", "preflight", "config", "__init__"}
CONFIG_FILES = {"priming/setup.py", "priming/prime.py", "transfers/start.py", "transfers/transfer.py"}
"""Rooms and files that may name the whole `Config` in an annotation."""

TABLES = {"METHODS", "LEARNERS", "TASKS"}
TABLE_ROOMS = {"peft", "meta", "tasks", "config"}
TABLE_FILES = {"priming/setup.py", "runs/artifact.py"}
"""Tables of choices, and the rooms and files that may look a name up in them."""

LIBRARY_OBJECTS = {"build/pretrain.py": "tokenizer", "models/language_head.py": "output"}
"""File -> variable that holds a library's object, one attribute of which is called as one of ours."""

RULES = ("rules_of", "starting_rules")
"""Names of the function that says how adapter and head start."""

EXPECTED_TWICE = (
    ("data/", {"CORPUS", "read", "languages", "records"}),
    # What a task gives its kind, and a kind's audit.
    ("tasks/", {"build", "of", "loss", "predict", "to_json", "score", "encode", "ERRORS"}),
    ("tasks/", {"AUDIT", "audit_for", "examine", "facts", "labels", "lengths"}),
    ("tasks/", {"BY_NAME", "MetricName", "OUTPUT", "TRIVIAL", "metrics_of", "texts_of"}),
    ("peft/", {"METHOD", "inject"}),
    ("meta/", {"step"}),
    ("", {"main"}),
)
"""Folder -> names that several files define on purpose, because a table calls each file's own."""

TENSORS = {"Tensor", "Params", "Batch", "ndarray", "Counts", "Floats", "MetaBatch", "Episodes"}
"""Names in an annotation that make the parameter one with a shape."""

ENDS = (("priming/prime.py", "meta/maml.py"), ("loops/prime.py", "meta/inner.py"))
"""The files of the priming loop and of the inner gradient: first today's, then those of 2db22c3."""

WORDS = ("told", "reckoned", "gone on", "goes on", "stands twice", "dear part", "for people", "begun")
"""Words and phrases that plain English does without."""

_DIMENSION = r"(?:\.\.\.|\d+|[A-Za-z])(?:\s*[-+*/]\s*(?:\d+|[A-Za-z]))*"
_TUPLE = rf"\((?=[^)]*[A-Za-z.]){_DIMENSION},\s*(?:{_DIMENSION}(?:,\s*{_DIMENSION})*)?\)"
SHAPE = re.compile(rf"(?<![\w)\]])(?:\(\)|{_TUPLE})|(?<![A-Z])_[A-Z]{{1,5}}\d?\b")
"""A shape: `(T, B, L)`, `(m,)`, `(..., 3)`, `()`, or a suffix as in `losses_T` and `_BLC`."""

SHAPE_SECTION = re.compile(r"^ *(Args|Returns|Yields|Attributes):", re.MULTILINE)
ANY_SECTION = re.compile(r"^ *(Args|Returns|Yields|Attributes|Raises):", re.MULTILINE)
CODE_SPAN = re.compile(r"`([^`]*)`")
CALL = re.compile(r"\w\(.*\)", re.DOTALL)
QUESTION = re.compile(r"(What|Where|Which|How)\b")
FRAGMENT = re.compile(r"(Of|As|Whether|Says|The same)\b")


@cache
def parsed(text: str) -> ast.Module:
    """Returns the syntax tree of a file's text, parsed once: `parsed("x = 1")`."""
    return ast.parse(text)


def room_of(file: str) -> str:
    """Returns the top-level folder or file of a path: `room_of("data/rows.py")` is `data`."""
    return file.split("/")[0].removesuffix(".py")


def _nodes(sources: Sources) -> Iterator[tuple[str, ast.AST]]:
    """Yields every node of every file."""
    for file, text in sources.items():
        for node in ast.walk(parsed(text)):
            yield file, node


def _functions(sources: Sources) -> Iterator[tuple[str, Function]]:
    """Yields every function: methods and nested ones too."""
    for file, node in _nodes(sources):
        if isinstance(node, FUNCTION):
            yield file, node


def _at(file: str, node: ast.stmt | ast.expr, what: str) -> str:
    """Names an offender and its place."""
    return f"{file}:{node.lineno}: {what}"


def lines_of(sources: Sources) -> int:
    """Returns the number of lines of all files: `lines_of({"rng.py": "x = 1\\n"})` is 1."""
    return sum(text.count("\n") for text in sources.values())


def files_in_folders(sources: Sources) -> dict[str, int]:
    """Returns folder -> number of files in it, largest first; the package itself is `.`."""
    folders: dict[str, int] = defaultdict(int)
    for file in sources:
        folders[str(PurePosixPath(file).parent)] += 1
    return dict(sorted(folders.items(), key=lambda item: -item[1]))


def shares_of_rooms(sources: Sources) -> dict[str, float]:
    """Returns room -> its share of the package's lines in per cent, largest first."""
    rooms: dict[str, int] = defaultdict(int)
    for file, text in sources.items():
        rooms[room_of(file)] += text.count("\n")
    whole = max(1, sum(rooms.values()))
    return {room: 100 * lines / whole for room, lines in sorted(rooms.items(), key=lambda item: -item[1])}


def _names_in(annotation: ast.expr | None) -> Iterator[str]:
    """Yields the names in an annotation, those inside quotes too."""
    for node in ast.walk(annotation) if annotation else ():
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"\w+", node.value)


def _parameters(function: Function) -> list[ast.arg]:
    """Lists the parameters, `*args` and `**kwargs` among them, without self and cls."""
    given = function.args
    several = [one for one in (given.vararg, given.kwarg) if one]
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return [one for one in named if one.arg not in ("self", "cls")] + several


def _last_name(node: ast.expr) -> str:
    """Returns `c` of `a.b.c`, and `c` of `c`."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _is_config(annotation: ast.expr | None) -> bool:
    """Tells whether an annotation is `Config`, `Config | None` or `Optional[Config]`."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return _is_config(ast.parse(annotation.value, mode="eval").body)
    if isinstance(annotation, ast.BinOp):
        return _is_config(annotation.left) or _is_config(annotation.right)
    if isinstance(annotation, ast.Subscript) and _last_name(annotation.value) == "Optional":
        return _is_config(annotation.slice)
    return annotation is not None and _last_name(annotation) == "Config"


def functions_taking_config(sources: Sources) -> list[str]:
    """Returns the functions with a parameter annotated `Config`, such as `cli/app.py:40: prime`."""
    return [
        _at(file, function, function.name)
        for file, function in _functions(sources)
        if any(_is_config(parameter.annotation) for parameter in _parameters(function))
    ]


def modules_naming_config(sources: Sources) -> list[str]:
    """Returns files that annotate with `Config` but may not: `rng.py: 1 annotations`."""
    found: dict[str, int] = defaultdict(int)
    for file, node in _nodes(sources):
        if room_of(file) in CONFIG_ROOMS or file in CONFIG_FILES:
            continue
        if isinstance(node, FUNCTION):
            found[file] += "Config" in _names_in(node.returns)
        elif isinstance(node, ast.arg | ast.AnnAssign):
            found[file] += "Config" in _names_in(node.annotation)
    return [f"{file}: {times} annotations" for file, times in found.items() if times]


def look_ups_by_name(sources: Sources) -> list[str]:
    """Returns look-ups in tables by files that may not: `priming/step.py:9: LEARNERS[name]`."""
    return [
        _at(file, node, ast.unparse(node))
        for file, node in _nodes(sources)
        if isinstance(node, ast.Subscript)
        and _last_name(node.value) in TABLES
        and isinstance(node.ctx, ast.Load)
        and room_of(file) not in TABLE_ROOMS
        and file not in TABLE_FILES
    ]


def calls_of(sources: Sources, names: Sequence[str]) -> list[str]:
    """Returns the calls of functions with these names: `priming/step.py:24: rules_of(config)`."""
    return [
        _at(file, node, ast.unparse(node))
        for file, node in _nodes(sources)
        if isinstance(node, ast.Call) and _last_name(node.func) in names
    ]


def _own_attributes(sources: Sources) -> set[str]:
    """Returns the names of all attributes that the package's classes declare or give to themselves."""
    found = set()
    for _, node in _nodes(sources):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _last_name(node.value) == "self":
            found.add(node.attr)
        elif isinstance(node, ast.ClassDef):
            found.update(_last_name(one.target) for one in node.body if isinstance(one, ast.AnnAssign))
    return found


def assignments_from_outside(sources: Sources) -> list[str]:
    """Returns assignments to attributes of the package's classes by others: `build/model.py:9: model.loss`.

    Attributes that no class of the package declares are those of a library's objects.
    """
    attributes = _own_attributes(sources)
    return [
        _at(file, node, ast.unparse(node))
        for file, node in _nodes(sources)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id not in ("self", "cls")
        and node.attr in attributes
        and LIBRARY_OBJECTS.get(file) != node.value.id
    ]


def functions_of_many_parameters(sources: Sources) -> list[str]:
    """Returns functions with seven parameters or more: `meta/maml.py:9: adapt, 7 parameters`."""
    return [
        _at(file, function, f"{function.name}, {len(_parameters(function))} parameters")
        for file, function in _functions(sources)
        if len(_parameters(function)) >= MANY_PARAMETERS
    ]


def length_of(function: Function) -> int:
    """Returns the lines from `def` to the last one, without those of the docstring."""
    first = function.body[0]
    prose = (first.end_lineno or 0) - first.lineno + 1 if _is_prose(first) else 0
    return (function.end_lineno or 0) - function.lineno + 1 - prose


def lengths_of_functions(sources: Sources) -> dict[str, int]:
    """Returns function -> lines, longest first, such as `{"meta/maml.py:9: adapt": 30}`."""
    lengths = {_at(file, one, one.name): length_of(one) for file, one in _functions(sources)}
    return dict(sorted(lengths.items(), key=lambda item: -item[1]))


def long_functions(sources: Sources) -> list[str]:
    """Returns the functions of more than 45 lines: `meta/maml.py:9: adapt, 46 lines`."""
    found = lengths_of_functions(sources)
    return [f"{name}, {lines} lines" for name, lines in found.items() if lines > LONG_FUNCTION]


def _is_dunder(name: str) -> bool:
    """Tells whether a name is one of Python's own, such as `__all__`."""
    return name.startswith("__") and name.endswith("__")


def _stored(target: ast.expr) -> list[ast.Name]:
    """Lists the names that an assignment binds; `table[key]` and `x.attr` bind none."""
    return [one for one in ast.walk(target) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)]


def _defined(text: str) -> Iterator[str]:
    """Yields the names that a file defines at its top level; type variables are left out."""
    for node in parsed(text).body:
        if isinstance(node, DEFINITION):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            made = _last_name(node.value.func) if isinstance(node.value, ast.Call) else ""
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if made not in ("TypeVar", "ParamSpec", "TypeVarTuple"):
                yield from (one.id for target in targets for one in _stored(target))


def repeated_names(sources: Sources) -> list[str]:
    """Returns the public names that several files define at top level: `nn.py, runs/lock.py: SIZE`."""
    homes: dict[str, list[str]] = defaultdict(list)
    for file, text in sources.items():
        expected = {"log", "_"}.union(*(names for folder, names in EXPECTED_TWICE if file.startswith(folder)))
        for name in set(_defined(text)) - expected:
            if not name.startswith("_"):
                homes[name].append(file)
    return sorted(f"{', '.join(files)}: {name}" for name, files in homes.items() if len(files) > 1)


def files_without_a_test(sources: Sources, tests: Sources) -> list[str]:
    """Returns the files with a function or class but without `tests/<folder>/test_<file>.py`."""
    return [
        file
        for file, text in sources.items()
        if PurePosixPath(file).stem not in ("__init__", "__main__")
        and any(isinstance(node, DEFINITION) for node in parsed(text).body)
        and str(PurePosixPath(file).with_name(f"test_{PurePosixPath(file).name}")) not in tests
    ]


def _is_prose(node: ast.AST) -> bool:
    """Tells whether a node is a docstring: a string that is a statement, of attributes too."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@dataclass(frozen=True)
class Public:
    """A public function, method or class.

    Attributes:
        place: file, line and name, such as `meta/maml.py:25: adapt`.
        node: its definition.
        docstring: its docstring, empty if it has none.
    """

    place: str
    node: Definition
    docstring: str


def _public_file(file: str) -> bool:
    """Tells whether no part of a path begins with an underscore; `__init__.py` is public."""
    return not any(part.startswith("_") and part != "__init__.py" for part in file.split("/"))


def public_definitions(sources: Sources) -> list[Public]:
    """Returns public functions, classes and methods: `public_definitions({"rng.py": text})`."""
    found = []
    for file, text in sources.items():
        for node in parsed(text).body if _public_file(file) else ():
            if not isinstance(node, DEFINITION) or node.name.startswith("_"):
                continue
            found.append(Public(_at(file, node, node.name), node, ast.get_docstring(node) or ""))
            for method in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(method, FUNCTION) and not method.name.startswith("_"):
                    name = _at(file, method, f"{node.name}.{method.name}")
                    found.append(Public(name, method, ast.get_docstring(method) or ""))
    return found


def _annotations(node: Definition) -> Iterator[ast.expr | None]:
    """Yields the annotations of what a function, a class's `__init__` or a dataclass takes."""
    if isinstance(node, FUNCTION):
        yield from (parameter.annotation for parameter in _parameters(node))
        return
    dataclass_like = any("dataclass" in ast.unparse(one) for one in node.decorator_list)
    for one in node.body:
        if isinstance(one, FUNCTION) and one.name == "__init__":
            yield from (parameter.annotation for parameter in _parameters(one))
        elif isinstance(one, ast.AnnAssign) and dataclass_like:
            yield one.annotation


def takes_tensors(node: Definition) -> bool:
    """Returns True if an annotation of what it takes names tensors or arrays: `values: Params`."""
    return any(TENSORS.intersection(_names_in(annotation)) for annotation in _annotations(node))


def has_shapes(docstring: str) -> bool:
    """Returns True if a docstring has a section and names a shape, such as `(T, B, L)`."""
    return bool(SHAPE_SECTION.search(docstring) and SHAPE.search(docstring))


def _is_code(line: str) -> bool:
    """Tells whether a line of a docstring is a statement that does something, and no prose."""
    try:
        (statement,) = ast.parse(line.strip()).body
    except (SyntaxError, ValueError):
        return False
    calls = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    return calls or isinstance(statement, ast.Assign | ast.Import | ast.ImportFrom)


def has_example(docstring: str) -> bool:
    """Returns True if a docstring has `>>>`, a call in backticks, or code below its first line."""
    called = any(CALL.search(span) for span in CODE_SPAN.findall(docstring))
    return called or ">>>" in docstring or any(map(_is_code, docstring.splitlines()[1:]))


def without_shapes(sources: Sources) -> list[str]:
    """Returns the public definitions that take tensors and whose docstring names no shape."""
    return [
        one.place for one in public_definitions(sources) if takes_tensors(one.node) and not has_shapes(one.docstring)
    ]


def without_docstring(sources: Sources) -> list[str]:
    """Returns the public definitions that have no docstring."""
    return [one.place for one in public_definitions(sources) if not one.docstring]


def without_section(sources: Sources) -> list[str]:
    """Returns the public definitions whose docstring has no section such as `Args:`."""
    return [one.place for one in public_definitions(sources) if not ANY_SECTION.search(one.docstring)]


def without_example(sources: Sources) -> list[str]:
    """Returns the public definitions whose docstring shows no use."""
    return [one.place for one in public_definitions(sources) if not has_example(one.docstring)]


def module_questions(sources: Sources) -> list[str]:
    """Returns the files whose docstring opens with a question word: `meta/maml.py: How ...`."""
    opened = {file: (ast.get_docstring(parsed(text)) or "").partition("\n")[0] for file, text in sources.items()}
    return [f"{file}: {line}" for file, line in opened.items() if QUESTION.match(line)]


def docstring_fragments(sources: Sources) -> list[str]:
    """Returns the docstrings that open with Of, As, Whether, Says or The same."""
    prose = [(file, node) for file, node in _nodes(sources) if isinstance(node, ast.Expr) and _is_prose(node)]
    texts = [(file, node, str(ast.literal_eval(node.value)).strip()) for file, node in prose]
    return [_at(file, node, text.partition("\n")[0]) for file, node, text in texts if FRAGMENT.match(text)]


@cache
def _written(text: str) -> list[tuple[int, str]]:
    """Lists (line, text) of every string and comment; comments on consecutive lines are joined."""
    strings = [node for node in ast.walk(parsed(text)) if isinstance(node, ast.Constant)]
    found = [(node.lineno, node.value) for node in strings if isinstance(node.value, str)]
    comments: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            line, words = token.start[0], token.string.lstrip("# ")
            if comments and line == comments[-1][0] + comments[-1][1].count("\n") + 1:
                line, before = comments.pop()
                words = f"{before}\n{words}"
            comments.append((line, words))
    return found + comments


def uses_of(sources: Sources, phrase: str) -> list[str]:
    """Returns uses of a phrase in strings and comments, over line ends too: `rng.py:3: goes on`."""
    pattern = re.compile(r"\b" + r"\s+".join(phrase.split()) + r"\b", re.IGNORECASE)
    return [
        f"{file}:{line + words.count(chr(10), 0, match.start())}: {phrase}"
        for file, text in sources.items()
        for line, words in _written(text)
        for match in pattern.finditer(words)
    ]


def _imported(file: str, node: ast.AST) -> Iterator[str]:
    """Yields the dotted names that a file imports at run time, inside functions too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from _imported(file, ast.Module(child.orelse, []))
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            here = ["metaprime", *file.split("/")[:-1]][: -child.level + 1 or None] if child.level else []
            base = [*here, *([child.module] if child.module else [])]
            yield from (".".join([*base, alias.name]) for alias in child.names)
        yield from _imported(file, child)


def _file_of(name: str, files: Sources) -> str | None:
    """Finds the file that a dotted name is in: `metaprime.meta.maml.adapt` is in `meta/maml.py`."""
    top, *parts = name.split(".")
    for end in range(len(parts), -1, -1) if top == "metaprime" else ():
        path = "/".join(parts[:end])
        for file in (f"{path}.py", f"{path}/__init__.py".lstrip("/")):
            if file in files:
                return file
    return None


def imports_between(sources: Sources) -> dict[str, set[str]]:
    """Returns file -> files of the package that it imports: `{"meta/maml.py": {"types.py"}}`."""
    named = {
        file: {_file_of(name, sources) for name in _imported(file, parsed(text))} for file, text in sources.items()
    }
    return {file: {target for target in targets if target} for file, targets in named.items()}


def distances(graph: Graph, start: str) -> dict[str, int]:
    """Returns file -> the least number of imports, one or more, that lead there from `start`."""
    found: dict[str, int] = {}
    edge, steps = {start}, 0
    while edge:
        steps += 1
        edge = {target for file in edge for target in graph[file]} - found.keys()
        found |= dict.fromkeys(edge, steps)
    return found


def import_cycles(sources: Sources) -> list[str]:
    """Returns the groups of files that import one another in a circle: `meta/a.py, meta/b.py`."""
    graph = imports_between(sources)
    reached = {file: distances(graph, file) for file in graph}
    circles = {
        frozenset(other for other in reached[file] if file in reached[other]) for file in graph if file in reached[file]
    }
    return sorted(", ".join(sorted(circle)) for circle in circles)


def floors_of_rooms(sources: Sources) -> dict[str, list[str]]:
    """Returns room -> the longest chain of imports inside it; circles are left out."""
    graph = imports_between(sources)
    longest: dict[str, list[str]] = {}

    def chain(file: str) -> list[str]:
        if file not in longest:
            below = [one for one in graph[file] if room_of(one) == room_of(file) and file not in reached[one]]
            longest[file] = [file, *max(map(chain, sorted(below)), key=len, default=[])]
        return longest[file]

    reached = {file: {file, *distances(graph, file)} for file in graph}
    rooms: dict[str, list[str]] = {}
    for file in graph:
        rooms[room_of(file)] = max(rooms.get(room_of(file), []), chain(file), key=len)
    return dict(sorted(rooms.items(), key=lambda item: -len(item[1])))


def files_named_in(text: str, sources: Sources) -> set[str]:
    """Returns the files of the package that a text sends its reader to: `"see meta/maml.py"`."""
    return {path for path in re.findall(r"[\w/]+\.py", text) if path in sources}


def hops_to_the_inner_gradient(sources: Sources) -> float:
    """Returns how many files a reader opens after the priming loop to see the inner gradient, or infinity.

    The loop sends its reader on by an import or by the path in a docstring or a comment, every other
    file by an import.
    """
    for start, end in ENDS:
        if start in sources:
            graph = imports_between(sources)
            graph[start] |= files_named_in(sources[start], sources)
            return distances(graph, start).get(end, math.inf)
    return math.inf


def first_python_line(readme: str) -> float:
    """Returns the line on which the first block of Python opens, or infinity."""
    lines = readme.splitlines()
    return next((number for number, line in enumerate(lines, 1) if line.startswith("```python")), math.inf)


def _expects(node: ast.AST) -> bool:
    """Tells whether a node is an assertion: `assert`, `pytest.raises` or `pytest.warns`."""
    if isinstance(node, ast.withitem) and isinstance(node.context_expr, ast.Call):
        return ast.unparse(node.context_expr.func) in ("pytest.raises", "pytest.warns")
    return isinstance(node, ast.Assert)


def asserts_in(tests: Sources) -> dict[str, int]:
    """Returns file -> number of assertions, most first: `asserts_in({"test_a.py": "assert x"})`."""
    found = {file: sum(_expects(node) for node in ast.walk(parsed(text))) for file, text in tests.items()}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


@dataclass(frozen=True)
class Tree:
    """The texts of a checkout.

    Attributes:
        sources: path inside `metaprime/` -> text.
        tests: path inside `tests/` -> text.
        readme: text of the README, empty if there is none.
        tracked: path -> lines of each text file that git tracks, None without git.
    """

    sources: Sources
    tests: Sources
    readme: str
    tracked: Mapping[str, int] | None


@dataclass(frozen=True)
class Found:
    """The outcome of one count.

    Attributes:
        value: the number; None if it could not be found.
        offenders: lines that say what it counts.
        unit: sign behind the number.
    """

    value: float | None
    offenders: Sequence[str] = ()
    unit: str = ""


def _texts(folder: Path) -> dict[str, str]:
    """Reads the Python files below a folder."""
    return {file.relative_to(folder).as_posix(): file.read_text("utf-8") for file in sorted(folder.rglob("*.py"))}


def _tracked(root: Path) -> dict[str, int] | None:
    """Counts the lines of the text files that git tracks below a folder."""
    try:
        listed = subprocess.run(["git", "-C", root, "ls-files", "-z"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    paths = [root / name for name in listed.stdout.split("\0") if name]
    contents = {path: path.read_bytes() for path in paths if path.is_file()}
    return {
        str(path.relative_to(root)): data.count(b"\n") for path, data in contents.items() if b"\0" not in data
    } or None


def read_tree(root: Path) -> Tree:
    """Returns the texts of a checkout: `read_tree(Path("."))`.

    Raises:
        FileNotFoundError: the folder holds no `metaprime/`.
    """
    if not (root / "metaprime").is_dir():
        raise FileNotFoundError(f"{root} has no folder metaprime: give the root of a checkout")
    readme = root / "README.md"
    text = readme.read_text("utf-8") if readme.is_file() else ""
    return Tree(_texts(root / "metaprime"), _texts(root / "tests"), text, _tracked(root))


def _listed(offenders: Sequence[str]) -> Found:
    """Counts offenders."""
    return Found(len(offenders), offenders)


def _largest(values: Mapping[str, float], unit: str = "") -> Found:
    """Reports the first of values that are sorted, largest first, and lists them all."""
    lines = [f"{name}: {value:.4g}{unit}" for name, value in values.items()]
    return Found(next(iter(values.values()), 0), lines, unit)


def _share(without: Sequence[str], of: int) -> Found:
    """Reports the share in per cent of those that are not among the offenders."""
    return Found(100 * (1 - len(without) / of) if of else 100, without, " %")


def _of_sizes(tree: Tree) -> dict[str, Found]:
    """Measures files, rooms and functions."""
    lengths = lengths_of_functions(tree.sources)
    return {
        "files-in-the-largest-folder": _largest(files_in_folders(tree.sources)),
        "share-of-the-largest-room": _largest(shares_of_rooms(tree.sources), " %"),
        "functions-of-many-parameters": _listed(functions_of_many_parameters(tree.sources)),
        "longest-function": _largest(dict(list(lengths.items())[:20])),
        "long-functions": _listed(long_functions(tree.sources)),
    }


def _of_couplings(tree: Tree) -> dict[str, Found]:
    """Measures what files know of one another."""
    floors = floors_of_rooms(tree.sources)
    return {
        "functions-taking-config": _listed(functions_taking_config(tree.sources)),
        "modules-naming-config": _listed(modules_naming_config(tree.sources)),
        "look-ups-by-name": _listed(look_ups_by_name(tree.sources)),
        "calls-of-rules": _listed(calls_of(tree.sources, RULES)),
        "calls-of-functional-loss": _listed(calls_of(tree.sources, ["functional_loss"])),
        "assignments-from-outside": _listed(assignments_from_outside(tree.sources)),
        "repeated-names": _listed(repeated_names(tree.sources)),
        "import-cycles": _listed(import_cycles(tree.sources)),
        "floors-of-the-deepest-room": Found(
            max(map(len, floors.values()), default=0),
            [f"{room}: {len(chain)}: {' > '.join(chain)}" for room, chain in floors.items()],
        ),
        "hops-to-the-inner-gradient": Found(hops_to_the_inner_gradient(tree.sources)),
    }


def _of_prose(tree: Tree) -> dict[str, Found]:
    """Measures docstrings, words and the README."""
    public = public_definitions(tree.sources)
    words = {f"word-{phrase.replace(' ', '-')}": _listed(uses_of(tree.sources, phrase)) for phrase in WORDS}
    return {
        "tensor-functions-with-shapes": _share(
            without_shapes(tree.sources), sum(takes_tensors(one.node) for one in public)
        ),
        "public-with-docstring": _share(without_docstring(tree.sources), len(public)),
        "public-with-section": _share(without_section(tree.sources), len(public)),
        "public-with-example": _share(without_example(tree.sources), len(public)),
        "module-docstrings-opening-with-a-question": _listed(module_questions(tree.sources)),
        "docstrings-opening-with-a-fragment": _listed(docstring_fragments(tree.sources)),
        **words,
        "readme-lines": Found(tree.readme.count("\n")),
        "readme-first-python-line": Found(first_python_line(tree.readme)),
    }


def _of_files(tree: Tree) -> dict[str, Found]:
    """Measures tests and long files."""
    asserts = asserts_in(tree.tests)
    long = {path: lines for path, lines in (tree.tracked or {}).items() if lines > LONG_FILE}
    lines = [f"{path}: {lines}" for path, lines in long.items()]
    return {
        "files-without-a-test": _listed(files_without_a_test(tree.sources, tree.tests)),
        "asserts-in-tests": Found(sum(asserts.values()), [f"{file}: {n}" for file, n in asserts.items()]),
        "lines-of-the-package": Found(lines_of(tree.sources)),
        "lines-of-tests": Found(lines_of(tree.tests)),
        "long-files-in-git": Found(None if tree.tracked is None else len(long), lines),
        "lines-of-long-files-in-git": Found(None if tree.tracked is None else sum(long.values()), lines),
    }


def counts(tree: Tree) -> dict[str, Found]:
    """Returns count -> outcome: `counts(read_tree(Path(".")))["import-cycles"].value`."""
    return {**_of_sizes(tree), **_of_couplings(tree), **_of_prose(tree), **_of_files(tree)}


def _shown(value: float | None, unit: str) -> str:
    """Formats a value for the table."""
    if value is None or math.isinf(value):
        return "none"
    return f"{value:.1f}{unit}" if unit else f"{value:,}"


def table(found: Mapping[str, Found]) -> str:
    """Returns the counts as aligned text: `table(counts(tree))`."""
    rows = [("count", "value", "limit", "ok")]
    for name, one in found.items():
        limit = LIMITS.get(name)
        bound = f"{'>=' if limit.at_least else '<='} {limit.bound:g}{one.unit}" if limit else ""
        kept = ("yes" if limit.holds(one.value) else "no") if limit and one.value is not None else ""
        rows.append((name, _shown(one.value, one.unit), bound, kept))
    name_width, value_width, limit_width, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    return "\n".join(
        f"{name:<{name_width}}  {value:>{value_width}}  {limit:<{limit_width}}  {ok}".rstrip()
        for name, value, limit, ok in rows
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table, or the offenders of one count: `main(["--list", "repeated-names"])`."""
    parser = argparse.ArgumentParser(description="Measures the structure of the code.")
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parents[1], help="root of a checkout")
    parser.add_argument("--list", metavar="NAME", help="print the offenders of one count instead of the table")
    given = parser.parse_args(arguments)
    try:
        found = counts(read_tree(given.root))
    except FileNotFoundError as error:
        parser.error(str(error))
    if given.list and given.list not in found:
        parser.error(f"--list {given.list}: no such count; there are {', '.join(found)}")
    print("\n".join(found[given.list].offenders) if given.list else table(found))


if __name__ == "__main__":
    main()
