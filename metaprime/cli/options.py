"""Arguments and options that several commands share, and output of the first process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value ...]", help="For example inner.steps=1 outer.lr=5e-5")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in run.output.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what run.output holds.")]
MaxTime = Annotated[
    str | None,
    typer.Option(
        "--max-time",
        metavar="MINUTES",
        show_default=False,
        help="Stop in order within so many minutes (or 90m, 2h, 1h30m) and end with exit code 75, as SIGTERM (143) does.",
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run Python files that come with the encoder: only those you have read."),
]


def first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    if first_process():
        typer.echo(text)
