"""Defines arguments and options that commands share, and prints output once per launch. Nothing here loads torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaprime import __version__
from metaprime.types import MetaprimeError

if TYPE_CHECKING:
    from metaprime.config.sections import Config

ConfigFile = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG.yaml", show_default=False, help="A config file; without one, the first key=value stands here."
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value ...]", help="For example inner.steps=1 outer.lr=5e-5")
]
Resume = Annotated[bool, typer.Option("--resume", help="Resume from the newest checkpoint in run.output.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the contents of run.output.")]
MaxTime = Annotated[
    str | None,
    typer.Option(
        "--max-time",
        metavar="MINUTES",
        show_default=False,
        help="Save and stop within this time (minutes, or 90m, 2h, 1h30m) with exit code 75; signals do so with 128 + theirs.",
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code", help="Run Python files that come with the encoder: allow only those that you have read."
    ),
]

Code = Annotated[
    list[Path] | None,
    typer.Option(
        "--code",
        metavar="FILE",
        show_default=False,
        help="Run a Python file of own methods, learners or tasks that the folder needs: allow only what you have read.",
    ),
]


def first_process() -> bool:
    """Returns True in the first process of a launch, and without one."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Prints a line in the first process only: `say("results: runs/demo")`."""
    if first_process():
        typer.echo(text)


def without_file(word: str | None, overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """Returns config file and overrides of a command whose config may be left out.

    Args:
        word: its first argument: the file, or the first override.
        overrides: its other arguments.

    Example: `without_file("outer.steps=5", ["inner.steps=1"])` is `(None, ["outer.steps=5", "inner.steps=1"])`.
    """
    if word is None or "=" not in word or Path(word).exists():
        return word, list(overrides)
    return None, [word, *overrides]


def read_config(word: str, overrides: Sequence[str] | None) -> Config:
    """Reads the config of a command: `read_config("demo.yaml", ["outer.steps=5"])`.

    Args:
        word: its first argument: the file, or the first override of the defaults.
        overrides: its other arguments.

    Raises:
        MetaprimeError: the config contradicts itself.
    """
    from metaprime.config.loading import load_config

    return load_config(*without_file(word, overrides or []))


def check_folder(folder: Path, remedy: str) -> None:
    """Refuses a folder that does not exist, before a command loads what it needs to read it.

    Raises:
        MetaprimeError: there is no such folder.

    Example: `check_folder(Path("runs/demo"), "give a folder that exists")`.
    """
    if not folder.exists():
        raise MetaprimeError(f"{folder} does not exist: {remedy}")


def print_versions(wanted: bool) -> None:
    """Prints the versions of metaprime, torch and transformers and exits: `print_versions(True)`."""
    if not wanted:
        return
    # From the packages' metadata: importing them takes seconds.
    from importlib.metadata import PackageNotFoundError, version

    say(f"metaprime {__version__}")
    for package in ("torch", "transformers"):
        try:
            say(f"{package} {version(package)}")
        except PackageNotFoundError:
            say(f"{package} is not installed")
    raise typer.Exit
