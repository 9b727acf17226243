"""Transfers from a primed toy, and what they leave on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metaprime.config.loading import override
from metaprime.config.sections import Config
from metaprime.transfers.transfer import transfer


def transferred(config: Config, **options: Any) -> list[dict[str, Any]]:
    """Runs the transfers of a config and returns the records of all cells."""
    return [result.record for result in transfer(config, **options)]


def elsewhere(config: Config, output: Path, *overrides: str) -> Config:
    """Returns a config that transfers from a finished run's primed encoder into another output."""
    primed = Path(config.run.output) / "primed"
    return override(config, f"run.output={output}", f"transfer.encoder={primed}", *overrides)


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Returns content and time of modification of every file below a folder, by relative path."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
