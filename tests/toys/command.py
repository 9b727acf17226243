"""A command in this process, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    code: int | str | None
    out: str
    err: str


Run = Callable[..., Ended]


def refused(ended: Ended, *words: str) -> None:
    assert ended.code == 2, ended
    assert "error: " in ended.err
    assert "Traceback" not in ended.err + ended.out
    missing = [word for word in words if word not in ended.err]
    assert not missing, (missing, ended.err)
