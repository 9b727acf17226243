"""Writes and reads `results.json`, which describes a suite and names every file that it wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from metaprime.config.yaml import read_value
from metaprime.files import check_readable, write_json
from metaprime.types import MetaprimeError

RESULTS = "results.json"
"""File in a suite's output folder."""


class _Read(BaseModel):
    """Base of the parts: immutable; keys of a newer version are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Facts(_Read):
    """Cost of an arm's priming runs, mean over seeds, for all steps and up to the stopping point.

    Attributes:
        sentence_passes: sentences through the encoder, counted once per pass.
        sentence_passes_chosen: the same up to the stopping point.
        steps_chosen: meta-steps up to the stopping point, one number per seed.
        flops: FLOPs of training.
        flops_chosen: the same up to the stopping point.
        seconds: wall time.
    """

    sentence_passes: int | float | None = None
    sentence_passes_chosen: float | None = None
    steps_chosen: tuple[int, ...] | None = None
    flops: float | None = None
    flops_chosen: float | None = None
    seconds: float | None = None


class Arm(_Read):
    """One way to prepare the encoder.

    Attributes:
        title: name for tables and figures.
        line: arms with the same `line` are joined in figures over parameters; empty: not drawn
            there.
        set: overrides of the base config.
        transfer: overrides of the base config for transfers.
        priming: key of its priming run; None: the arm primes nothing.
        rates: column -> learning rate of its transfers; None: unknown.
        methods: labels of its own methods, in the order of the columns; empty in older files.
        facts: cost of priming; None: unknown.
        simulates: method that its priming practises fine-tuning with, None for none; not set in
            older files.
    """

    title: str
    line: str = ""
    set: Any = None
    transfer: Any = None
    priming: str | None = None
    rates: dict[str, float | None] = {}
    methods: tuple[str, ...] = ()
    facts: Facts | None = None
    simulates: str | None = None


class Entry(_Read):
    """One transfer of the suite: its cell, and the path of its record."""

    arm: str
    seed: int
    language: str
    method: str
    shots: int
    path: str


class Failure(_Read):
    """A cell that ended in an error; `seed` is None if none was recorded."""

    arm: str
    seed: int | None = None
    error: str


class Results(_Read):
    """Content of `results.json`; paths are relative to its folder, arms in the suite's order."""

    name: str
    setting: str | None = None
    command: str = ""
    seeds: tuple[int, ...]
    config: dict[str, Any] = {}
    versions: dict[str, str] = {}
    task: str = "tagging"
    """Name of the task; older files, which lack it, are of tagging."""
    methods: tuple[str, ...]
    """Headings of the columns: labels of methods, or `own` if each arm has its own."""
    titles: dict[str, str] | None = None
    """Column -> short name of its method, if it has one; None in older files."""
    languages: tuple[str, ...]
    shots: tuple[int, ...]
    arms: dict[str, Arm]
    contrasts: tuple[tuple[str, str], ...] = ()
    matched: dict[str, str] = {}
    records: tuple[Entry, ...] = ()
    primings: dict[str, dict[int, str]] = {}
    failed: tuple[Failure, ...] = ()
    asked: bool = True
    """False: the cells were found in a folder (`runs.found`), not asked for together."""

    @model_validator(mode="before")
    @classmethod
    def _arms_in_order(cls, values: Any) -> Any:
        """Restores the suite's order of arms, which `order` lists: the file sorts its keys."""
        if not isinstance(values, dict) or not isinstance(arms := values.get("arms"), dict):
            return values
        listed = [name for name in values.get("order", ()) if name in arms]
        return values | {"arms": {name: arms[name] for name in dict.fromkeys([*listed, *arms])}}


def as_json(results: Results) -> dict[str, Any]:
    """Returns the content of `results.json`, with the order of arms: `as_json(results)["order"]`."""
    return results.model_dump(mode="json", exclude={"asked"}) | {"order": list(results.arms)}


def write_results(folder: Path, results: Results) -> None:
    """Writes `results.json` into the suite's folder, atomically.

    Args:
        folder: the suite's output folder, which must exist; paths in `results` are relative to it.
        results: its content.

    Raises:
        MetaprimeError: the file cannot be written.

    Example:
        write_results(Path("runs/order"), results)
    """
    write_json(folder / RESULTS, as_json(results))


def read_results(folder: Path) -> Results:
    """Reads `results.json`, also that of an older version.

    Args:
        folder: the suite's output folder.

    Raises:
        MetaprimeError: the file is missing, is not JSON, lacks a key, or has a value of the wrong
            type.

    Example:
        results = read_results(Path("runs/order"))
    """
    file = folder / RESULTS
    check_readable(file)
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
            f"{file}: {key}: {first['msg']} ({error.error_count()} in all): run `metaprime ablate` again to rewrite it"
        ) from None


def primed_for(arm: Arm, config: Mapping[str, Any]) -> str | None:
    """Returns the method that an arm's priming practises fine-tuning with; None: none.

    Args:
        arm: arm of the results.
        config: the suite's base config, which is used if the file is too old to have
            `Arm.simulates`.

    Example:
        rows = {name: primed_for(arm, results.config) for name, arm in results.arms.items()}
    """
    if arm.priming is None:
        return None
    if "simulates" in arm.model_fields_set:
        return arm.simulates
    # Imported here: it loads torch, which a report needs only for old files.
    from metaprime.meta import LEARNERS

    learner = LEARNERS.get(str(_setting(arm, config, "learner", "name")))
    simulated = learner.simulates if learner else "peft"
    method = _setting(arm, config, "peft", "method") if simulated == "peft" else simulated
    return None if method is None else str(method)


def _setting(arm: Arm, config: Mapping[str, Any], section: str, field: str) -> Any:
    """Returns a value of the base config after the arm's overrides."""
    value = config.get(section, {}).get(field)
    for key, override in _overrides(arm.set):
        if key == f"{section}.{field}":
            value = override
        elif key == section and isinstance(override, dict):
            value = override.get(field, value)
    return value


def _overrides(overrides: Any) -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, value) of overrides, a mapping or a list of `key=value` strings."""
    if isinstance(overrides, dict):
        yield from overrides.items()
    for line in overrides if isinstance(overrides, list | tuple) else ():
        key, _, value = str(line).partition("=")
        yield key, read_value(value)
