"""Defines arguments and options that commands share, and prints output once per launch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", show_default=False)]
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


def first_process() -> bool:
    """Returns True in the first process of a launch, and without one."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Prints a line in the first process only: `say("results: runs/demo")`."""
    if first_process():
        typer.echo(text)
