"""Files and folders that this user may not read, also where tests run as root, who may read all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

Forbid = Callable[[Path], None]


def without_permission(monkeypatch: pytest.MonkeyPatch) -> Forbid:
    """Returns a function after whose call the system denies access to a path."""
    denied: set[str] = set()
    honest = os.access

    def access(place: str | Path, mode: int) -> bool:
        return honest(place, mode) and (mode == os.F_OK or str(place) not in denied)

    monkeypatch.setattr(os, "access", access)
    return lambda path: denied.add(str(path.absolute()))
