"""Commands in this process."""

from __future__ import annotations

import logging
import sys

import pytest
from command import Ended, Run

from metaprime.cli import app as cli


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("prime", "x.yaml")`: the command in this process, from argument list to exit code."""

    def call(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["metaprime", *map(str, words)])
        monkeypatch.setattr(logging, "basicConfig", lambda **options: None)  # pytest's own handlers stay
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return Ended(stop.value.code or 0, *capsys.readouterr())

    return call
