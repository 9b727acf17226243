"""Writes and reads `results.json`, which names every file that a suite made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from metaprime.files import write_json
from metaprime.types import MetaprimeError

RESULTS = "results.json"


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Facts(_Read):
    """Cost of a priming run, mean over its seeds: of all steps allowed and up to the stopping point chosen."""

    sentence_passes: int | float | None = None
    sentence_passes_chosen: float | None = None
    steps_chosen: tuple[int, ...] | None = None
    flops: float | None = None
    flops_chosen: float | None = None
    seconds: float | None = None


class Arm(_Read):
    """One way to prepare the encoder; `set` and `transfer` are its overrides of the base config, `line` joins it with others."""

    title: str
    line: str = ""
    set: Any = None
    transfer: Any = None
    priming: str | None = None
    rates: dict[str, float | None] = {}
    methods: tuple[str, ...] = ()
    """Labels of its own methods, in the order of the columns; empty in a file from before they were kept."""
    facts: Facts | None = None
    simulates: str | None = None
    """The method that its priming practises fine-tuning with; None: none. Not set in a file from before it was kept."""


class Entry(_Read):
    """Place of one transfer's record, and the cell of the suite that it fills."""

    arm: str
    seed: int
    language: str
    method: str
    shots: int
    path: str


class Failure(_Read):
    """A cell that ended in an error."""

    arm: str
    seed: int | None = None
    error: str


class Results(_Read):
    """Content of `results.json`. Paths are relative to its folder; arms are in the suite's order."""

    name: str
    setting: str | None = None
    command: str = ""
    seeds: tuple[int, ...]
    config: dict[str, Any] = {}
    versions: dict[str, str] = {}
    task: str = "tagging"
    """Name of the task; a file from before there were several is of tagging."""
    methods: tuple[str, ...]
    """Headings of the columns: a method's label, or `own` where each arm has another."""
    titles: dict[str, str] | None = None
    """Short names of methods that have one, for narrow columns; None in a file from before they were kept."""
    languages: tuple[str, ...]
    shots: tuple[int, ...]
    arms: dict[str, Arm]
    contrasts: tuple[tuple[str, str], ...] = ()
    matched: dict[str, str] = {}
    records: tuple[Entry, ...] = ()
    primings: dict[str, dict[int, str]] = {}
    failed: tuple[Failure, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _arms_in_order(cls, values: Any) -> Any:
        """Puts arms as the suite lists them under `order`; the file sorts its keys."""
        if not isinstance(values, dict) or not isinstance(arms := values.get("arms"), dict):
            return values
        first = [name for name in values.get("order", ()) if name in arms]
        return values | {"arms": {name: arms[name] for name in dict.fromkeys([*first, *arms])}}


def as_json(results: Results) -> dict[str, Any]:
    """Returns what `results.json` holds: plain values, and under `order` the arms' names, since the file sorts its keys."""
    return results.model_dump(mode="json") | {"order": list(results.arms)}


def write_results(folder: Path, results: Results) -> None:
    """Writes `results.json` into the suite's folder, whole or not at all.

    Args:
        folder: the suite's; what `results` names is relative to it.

    Raises:
        MetaprimeError: the file cannot be written.

    Example:
        write_results(Path("runs/order"), results)
    """
    write_json(folder / RESULTS, as_json(results))


def read_results(folder: Path) -> Results:
    """Reads `results.json`, an older version's too.

    Raises:
        MetaprimeError: the file is missing, is not JSON, or lacks a key or has a value of another kind.

    Example:
        results = read_results(Path("runs/order"))
    """
    file = folder / RESULTS
    try:
        return Results.model_validate_json(file.read_bytes())
    except OSError as error:
        raise MetaprimeError(
            f"{file} cannot be read ({error.strerror}): give the output folder of `metaprime ablate`"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise MetaprimeError(
            f"{file}: {key}: {first['msg']} ({error.error_count()} in all): run `metaprime ablate` again to write it anew"
        ) from None
