"""The pages for readers are true: links lead somewhere, commands, keys and YAML are known, Python runs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
import yaml
from pydantic import BaseModel
from typer.core import TyperGroup

import metaprime
from metaprime.cli.app import app
from metaprime.config.loading import load_config
from metaprime.config.sections import Config
from metaprime.peft import METHODS
from metaprime.suite.spec import SuiteSection, read_plan
from metaprime.tasks import TASKS

ROOT = Path(__file__).parents[1]
ENTRANCES = [path for name in ("README.md", "CONTRIBUTING.md") if (path := ROOT / name).is_file()]
PAGES = [*ENTRANCES, *sorted((ROOT / "docs").rglob("*.md"))]
CHANGELOG = ROOT / "CHANGELOG.md"

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`]+)`")
KEY = re.compile(rf"(?<![\w./-])((?:{'|'.join(Config.model_fields)})\.[a-z_]+(?:\.[a-z_]+)*)(?=[=:\s\],}}]|$)")

FILES = ("json", "yaml", "py")
"""Endings of files that are called like a section: `run.json` is no key."""


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def of_pages(*pages: Path) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=named)


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks in one of some languages; the language of a plain fence is empty."""
    return [content for language, content in FENCE.findall(text) if language in languages]


def prose(text: str) -> str:
    return FENCE.sub("", text)


def inline(text: str) -> list[str]:
    """Code within sentences and tables, on one line each."""
    return [" ".join(code.split()) for code in INLINE.findall(prose(text))]


def shell(text: str) -> list[str]:
    """Lines of shell on a page, without comments."""
    lines = [line.split(" #")[0].strip() for block in blocks(text, "", "sh") for line in block.splitlines()]
    return [*lines, *inline(text)]


# Links


def anchors(page: Path) -> set[str]:
    """Names that a page's headings can be linked by, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> list[str]:
    """Links that lead to no file of the repository, or to no heading of it."""
    broken = []
    for link in re.findall(r"\]\(([^)]+)\)", prose(text)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or ROOT not in file.parents or (anchor and anchor not in anchors(file)):
            broken.append(link)
    return broken


@of_pages(*PAGES, CHANGELOG)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page, page.read_text("utf-8")) == []


@pytest.mark.parametrize("link", ["nowhere.md", "../docs/nowhere.md", "data.md#nowhere", "#nowhere", "../../outside"])
def test_a_broken_link_is_found(link: str) -> None:
    assert broken_links(ROOT / "docs" / "data.md", f"[a]({link}) [b](data.md#labels)") == [link]


# Commands


def wrong_words(line: str) -> list[str]:
    """Words of a metaprime command line that no command knows: subcommands, options, keys and files of recipes."""
    words = line.replace("[", " ").replace("]", " ").replace("|", " ").split()
    if words[:3] == ["accelerate", "launch", "-m"]:
        words = words[3:]
    if words[:1] != ["metaprime"]:
        return []
    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while isinstance(command, TyperGroup):
        if not rest:
            return [line]
        name, *rest = rest
        if name not in command.commands:
            return [name]
        command = command.commands[name]
    options = {option for parameter in command.params for option in parameter.opts}
    wrong = [word for word in rest if word.startswith("-") and word not in options]
    wrong += [word for word in rest if word.startswith("recipes/") and not (ROOT / word).is_file()]
    return wrong + unknown_keys(" ".join(rest))


@of_pages(*PAGES)
def test_commands_are_known(page: Path) -> None:
    assert [wrong for line in shell(page.read_text("utf-8")) for wrong in wrong_words(line)] == []


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("metaprime primee CONFIG.yaml", ["primee"]),
        ("metaprime peft shw NAME", ["shw"]),
        ("metaprime prime CONFIG.yaml --resum", ["--resum"]),
        ("metaprime prime recipes/configs/smok.yaml", ["recipes/configs/smok.yaml"]),
        ("metaprime prime CONFIG.yaml inner.stepz=1", ["inner.stepz"]),
        ("accelerate launch -m metaprime primee CONFIG.yaml", ["primee"]),
        ("metaprime peft export DIR OUT [--format peft|adapterhub] inner.steps=1", []),
    ],
)
def test_an_unknown_word_of_a_command_is_found(line: str, wrong: list[str]) -> None:
    assert wrong_words(line) == wrong


def test_commands_are_found_on_the_pages() -> None:
    lines = [line for page in PAGES for line in shell(page.read_text("utf-8")) if line.startswith("metaprime ")]
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    assert {line.split()[1] for line in lines} == set(group.commands)


@of_pages(*PAGES)
def test_make_has_the_targets_that_are_named(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    lines = [line for line in shell(page.read_text("utf-8")) if line.startswith("make ")]
    assert [line for line in lines if line.split()[1] not in targets] == []


# Keys and YAML


def models_at(model: type[BaseModel], name: str) -> list[type[BaseModel]]:
    """The classes of config that a field of a class may have."""
    if (model, name) == (Config, "task"):
        return [kind.config for kind in TASKS.values()]
    if (model, name) == (Config, "peft"):
        return [method.config for method in METHODS.values()]
    annotation = model.model_fields[name].annotation
    return [one for one in (annotation, *get_args(annotation)) if isinstance(one, type) and issubclass(one, BaseModel)]


def is_key(key: str) -> bool:
    models: list[type[BaseModel]] = [Config]
    for name in key.split("."):
        owners = [model for model in models if name in model.model_fields]
        if not owners:
            return False
        models = [found for owner in owners for found in models_at(owner, name)]
    return True


def unknown_keys(text: str) -> list[str]:
    return [key for key in KEY.findall(text) if not key.endswith(FILES) and not is_key(key)]


@of_pages(*PAGES)
def test_keys_are_known(page: Path) -> None:
    assert [key for code in inline(page.read_text("utf-8")) for key in unknown_keys(code)] == []


@pytest.mark.parametrize("key", ["data.labels", "task.tag", "encoder.pretrain.layer", "outer.adapter.x", "peft.ranks"])
def test_an_unknown_key_is_found(key: str) -> None:
    assert unknown_keys(f"{key}: 1") == [key]
    assert unknown_keys("task.labels, encoder.pretrain.layers=2 peft.rank") == []


def check_yaml(text: str, folder: Path) -> None:
    """Loads a block as what it is: a suite over the repository's configs, a method's settings, or sections of a config.

    Raises:
        MetaprimeError: it has a key that is unknown there, or a value that is refused.
    """
    values = yaml.safe_load(text)
    if set(values) <= set(SuiteSection.model_fields) and "arms" in values:
        shutil.copytree(ROOT / "recipes", folder / "recipes")
        suite = folder / "recipes" / "ablations" / "shown.yaml"
        suite.write_text(text, encoding="utf-8")
        assert read_plan(suite).arms
        return
    sections = {"peft": values} if "method" in values else values
    load_config(None, [f"{name}={json.dumps(value)}" for name, value in sections.items()])


def yaml_blocks() -> Iterator[Any]:
    for page in PAGES:
        for number, text in enumerate(blocks(page.read_text("utf-8"), "yaml"), 1):
            yield pytest.param(text, id=f"{named(page)}-{number}")


@pytest.mark.parametrize("text", list(yaml_blocks()))
def test_yaml_is_accepted(text: str, tmp_path: Path) -> None:
    check_yaml(text, tmp_path)


@pytest.mark.parametrize(
    "text", ["data: {labels: [PER]}", "dta: {}", "method: lora\nranks: 1", "{name: a, base: b, arms: [{nam: a}]}"]
)
def test_wrong_yaml_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(metaprime.MetaprimeError):
        check_yaml(text, tmp_path)


# Python


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    names = {re.match(r"\w+", code) for code in inline(text)}
    shown = {name[0] for name in names if name}
    assert set(metaprime.__all__) - {"__version__"} <= shown


def test_python_of_the_api_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All blocks in their order, as one reader would type them."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "docs.api"}
    found = blocks((ROOT / "docs" / "api.md").read_text("utf-8"), "python")
    for number, block in enumerate(found, 1):
        exec(compile(block, f"docs/api.md, block {number}", "exec"), names)
    shown = capsys.readouterr().out
    assert "runs/api/primed BertModel 4" in shown
    assert re.search(r"^qai head 20 \d+\.\d+ \d+\.\d+$", shown, re.MULTILINE)
    assert "('Gipipe', '" in shown
    assert "['first', 'none', 'second'] []" in shown
    assert "{'backbone.weight': (4, 3), 'backbone.bias': (4,)}" in shown
    assert "did you mean steps?" in shown
    assert len(found) >= 8


def test_every_surprise_is_held_by_a_test_that_exists() -> None:
    rows = [line for line in (ROOT / "docs/surprises.md").read_text("utf-8").splitlines() if "`tests/" in line]
    named = [name for row in rows for name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)", row)]
    assert len(named) >= len(rows) > 10
    for file, name in named:
        assert f"def {name}(" in (ROOT / file).read_text("utf-8"), f"{file}::{name}"
