"""Runs the files in `run.code`, whose methods, learners, tasks and corpora join those of the package.

A file is run only if the user names it: by `run.code` of a config, or by `--code`. A record names files
and hashes, and nothing is run because of a record.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, MutableMapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from metaprime.data.reading import Corpus
from metaprime.data.sources import CORPORA
from metaprime.meta import LEARNERS, Learner
from metaprime.peft import METHODS, Method
from metaprime.tasks import TASKS, TaskKind
from metaprime.types import MetaprimeError

_TABLES: dict[type, MutableMapping[str, Any]] = {
    Method: METHODS,
    Learner: LEARNERS,
    TaskKind: TASKS,
    Corpus: CORPORA,
}
"""Type of a value -> the table that it joins."""

_sources: dict[str, bytes] = {}
"""Path -> content of each file that this process has run."""

_names: dict[str, list[tuple[type, str]]] = {}
"""Path -> what the file has added to the tables."""


def load_code(files: Iterable[str | Path]) -> None:
    """Runs files, each once for each content, and adds what they define to the tables of the package.

    Args:
        files: paths of Python files.

    Raises:
        MetaprimeError: a file cannot be read or run, defines nothing, or takes a name of the package.

    Example: `load_code(["my_methods.py"])`, after which `peft.method` may name a method in it.
    """
    for file in map(str, files):
        try:
            source = Path(os.path.expanduser(file)).read_bytes()
        except (OSError, ValueError) as error:
            raise MetaprimeError(f"run.code: {file} cannot be read ({error}): correct the path") from None
        run_code({file: source})


def run_code(sources: dict[str, bytes]) -> None:
    """Runs the contents of files: `run_code(loaded_code())` in a spawned process, which must not read a newer one.

    Raises:
        MetaprimeError: as for `load_code`.
    """
    for file, source in sources.items():
        if _sources.get(file) == source:
            continue
        # Another content of the same file replaces what it defined before.
        for kind, name in _names.pop(file, []):
            del _TABLES[kind][name]
        found = _defined(file, _executed(file, source))
        if taken := [name for kind, name, _ in found if name in _TABLES[kind]]:
            raise MetaprimeError(f"run.code: {file}: the name {taken[0]!r} is taken: choose another one")
        for kind, name, value in found:
            _TABLES[kind][name] = value
        _names[file] = [(kind, name) for kind, name, _ in found]
        _sources[file] = source


def loaded_code() -> dict[str, bytes]:
    """Returns path -> content of the files that this process has run: `run_code(loaded_code())` elsewhere."""
    return dict(_sources)


def code_hashes(files: Sequence[str] | None = None) -> dict[str, str]:
    """Returns path -> SHA-256 of files that this process has run: `code_hashes(config.run.code)`.

    Args:
        files: paths as `run.code` has them; None: all.
    """
    chosen = _sources if files is None else {file: _sources[file] for file in files if file in _sources}
    return {file: hashlib.sha256(source).hexdigest() for file, source in chosen.items()}


def _executed(file: str, source: bytes) -> ModuleType:
    """Runs a file as a module, named by its content: processes that exchange its objects find them by that name."""
    module = ModuleType(f"metaprime_own_{hashlib.sha256(source).hexdigest()[:12]}")
    module.__file__ = file
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, file, "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[module.__name__]
        trace, line = error.__traceback__, getattr(error, "lineno", None)
        while trace:
            line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == file else line
            trace = trace.tb_next
        where = f":line {line}" if line else ""
        raise MetaprimeError(f"run.code: {file}{where}: {type(error).__name__}: {error}") from error
    return module


def _defined(file: str, module: ModuleType) -> list[tuple[type, str, Any]]:
    """Returns type, name and value of all that a file defines; what it imports from the package is left out.

    Methods and tasks go by the name in their settings; learners and corpora by that of their variable, or by that of
    the file if the variable is LEARNER or CORPUS.
    """
    found = []
    for variable, value in vars(module).items():
        kind = next((kind for kind in _TABLES if isinstance(value, kind)), None)
        if kind is None or any(value is known for known in _TABLES[kind].values()):
            continue
        by_variable = Path(file).stem if variable in ("LEARNER", "CORPUS") else variable
        found.append((kind, getattr(value, "name", by_variable), value))
    if not found:
        raise MetaprimeError(
            f"run.code: {file} defines no Method, Learner, TaskKind or Corpus: see docs/own_code.md for what it must hold"
        )
    return found
