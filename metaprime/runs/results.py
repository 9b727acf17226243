"""`results.json`: names every file that a suite made."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

RESULTS = "results.json"


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Facts(_Read):
    """What a priming run cost, mean over its seeds: allowed and up to the stopping point chosen."""

    sentence_passes: float | None = None
    sentence_passes_chosen: float | None = None
    steps_chosen: Any = None
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
    facts: Facts | None = None


class Entry(_Read):
    """Where one transfer's record lies, and which cell of the suite it fills."""

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
    """`results.json`."""

    name: str
    setting: str | None = None
    command: str = ""
    seeds: tuple[int, ...]
    config: dict[str, Any] = {}
    versions: dict[str, str] = {}
    methods: tuple[str, ...]
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
        """As the suite lists them under `order`; the file sorts its keys."""
        if not isinstance(values, dict) or not isinstance(arms := values.get("arms"), dict):
            return values
        first = [name for name in values.get("order", ()) if name in arms]
        return values | {"arms": {name: arms[name] for name in dict.fromkeys([*first, *arms])}}
