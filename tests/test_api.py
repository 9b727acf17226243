"""The public names: each is documented, and each documented example runs."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toy_config import MakeConfig

import metaprime
from metaprime.data.readers import synthetic
from metaprime.meta import LEARNERS
from metaprime.meta.learner import Learner, MetaStep

NAMES = [name for name in metaprime.__all__ if name != "__version__"]
FUNCTIONS = [name for name in NAMES if inspect.isfunction(getattr(metaprime, name))]


@pytest.fixture(scope="module")
def globs(tiny: MakeConfig, toy_bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the examples take for granted: a folder, a small config, and what came of it."""
    folder = tmp_path_factory.mktemp("api")
    config = tiny(folder / "run", "outer.steps=2", "transfer.methods=[pfeiffer]", "transfer.lr=[0.01]")
    corpus = folder / "corpus"
    for split in ("train", "validation", "test"):
        (corpus / "qaa").mkdir(parents=True, exist_ok=True)
        sentences = synthetic.read("", "qaa", split)[:3]
        text = "\n".join("".join(f"{w}\t{t}\n" for w, t in zip(s.words, s.gold, strict=True)) for s in sentences)
        (corpus / "qaa" / f"{split}.conll").write_text(text, "utf-8")
    (folder / "base.yaml").write_text(metaprime.override(config, f"run.output={folder / 'suite'}").as_yaml(), "utf-8")
    suite = folder / "one.yaml"
    suite.write_text("{name: one, base: base.yaml, seeds: [0], arms: [{name: none, priming: null}]}\n", "utf-8")
    primed = metaprime.prime(config, quiet=True)
    results = metaprime.transfer(config, quiet=True)
    metaprime.ablate(suite, jobs=1)
    return {
        "metaprime": metaprime,
        "folder": folder,
        "config": config,
        "corpus": corpus,
        "suite": suite,
        "primed": primed,
        "results": results,
    }


@pytest.fixture(scope="session")
def toy_bert_folder(toy_encoder: Any) -> Path:
    folder: Path = toy_encoder("bert")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_name_runs(name: str, globs: dict[str, Any]) -> None:
    docstring = inspect.getdoc(getattr(metaprime, name)) or ""
    test = doctest.DocTestParser().get_doctest(docstring, dict(globs), name, None, None)
    assert test.examples, f"metaprime.{name} has no example"
    failures: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=failures.append)
    assert not failures, "".join(failures)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_documents_arguments_result_and_errors(name: str) -> None:
    function = getattr(metaprime, name)
    docstring = inspect.getdoc(function) or ""
    parts = dict.fromkeys(("Args:", "Returns:", "Raises:", "Example:"))
    assert [part for part in parts if f"\n{part}\n" not in docstring] == []
    arguments = docstring.partition("\nArgs:\n")[2].partition("\nReturns:\n")[0]
    for argument in inspect.signature(function).parameters:
        assert f"    {argument}: " in arguments, f"{name}: {argument} is not documented"


def test_dir_shows_every_name_and_no_other() -> None:
    assert dir(metaprime) == sorted(metaprime.__all__)
    with pytest.raises(AttributeError, match="no attribute 'primee'"):
        _ = metaprime.primee


def test_every_learner_is_there_and_documented() -> None:
    for name, learner in LEARNERS.items():
        assert getattr(metaprime.learners, name) is learner
        assert isinstance(learner, Learner)
    arguments = (inspect.getdoc(MetaStep.__call__) or "").partition("Args:")[2]
    for argument in ("loss", "backbone", "start", "episodes", "inner"):
        assert f"{argument}: " in arguments


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, metaprime; dir(metaprime); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
