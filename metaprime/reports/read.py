"""Reads a suite of runs from the disk: `results.json` and the records, predictions and metrics it names.

A suite may be half done. What is not there or cannot be read is named in `problems`; the rest is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from metaprime.runs.log import read_metrics
from metaprime.runs.records import Record, headline, read_record
from metaprime.runs.results import Arm, Entry, Results, read_results
from metaprime.stats.bootstrap import Counts, f1_of_counts
from metaprime.tasks.tagging.errors import ErrorCounts, count, matches
from metaprime.types import MetaprimeError

PREDICTIONS = "predictions.jsonl"


@dataclass(frozen=True, eq=False)
class Transfer:
    """One cell that is done. `counts_B3` and `errors` are None where its predictions cannot be read."""

    entry: Entry
    folder: Path
    record: Record
    f1: float
    counts_B3: Counts | None
    errors: ErrorCounts | None


@dataclass(frozen=True, eq=False)
class Suite:
    """Results, every transfer that could be read, metrics of priming by arm and seed, and one line for whatever could not."""

    folder: Path
    results: Results
    transfers: tuple[Transfer, ...]
    metrics: Mapping[str, Mapping[int, Sequence[Mapping[str, Any]]]]
    problems: tuple[str, ...]
    control: str | None = field(init=False)
    """The first arm without priming: what gains are measured against."""

    def __post_init__(self) -> None:
        unprimed = (name for name, arm in self.results.arms.items() if arm.priming is None)
        object.__setattr__(self, "control", next(unprimed, None))

    def title(self, arm: str) -> str:
        """Returns an arm's title; its name where the results do not describe it."""
        return self.results.arms[arm].title if arm in self.results.arms else arm

    def select(self, **wanted: Any) -> list[Transfer]:
        """Returns the transfers whose entry has all the wanted values."""
        return [t for t in self.transfers if all(getattr(t.entry, key) == value for key, value in wanted.items())]

    def replicates(self, arm: str, method: str, shots: int) -> dict[int, list[Transfer]]:
        """Returns the transfers of each seed that has every language: a mean over fewer is another quantity."""
        found: dict[int, list[Transfer]] = {}
        for transfer in self.select(arm=arm, method=method, shots=shots):
            found.setdefault(transfer.entry.seed, []).append(transfer)
        whole = set(self.results.languages)
        return {seed: found[seed] for seed in sorted(found) if {t.entry.language for t in found[seed]} == whole}

    def by_seed(self, arm: str, method: str, shots: int) -> dict[int, float]:
        """Returns lenient F1 (per cent), mean over languages, of each complete seed."""
        replicates = self.replicates(arm, method, shots)
        return {seed: float(np.mean([t.f1 for t in done])) for seed, done in replicates.items()}

    def missing(self) -> list[tuple[str, int, int, int]]:
        """Lists (arm, seed, cells there, cells wanted) wherever some are lacking."""
        lacking = []
        wanted = len(self.results.languages) * len(self.results.shots) * len(self.results.methods)
        for arm in self.results.arms:
            for seed in self.results.seeds:
                if (there := len(self.select(arm=arm, seed=seed))) < wanted:
                    lacking.append((arm, seed, there, wanted))
        return lacking


def primed_for(arm: Arm, config: Mapping[str, Any]) -> str | None:
    """Returns the method that an arm's priming practises fine-tuning with; None for none.

    Args:
        arm: one of the results'.
        config: the suite's base config; read where the file is older than `Arm.simulates`.

    Example:
        rows = {name: primed_for(arm, results.config) for name, arm in results.arms.items()}
    """
    if arm.priming is None:
        return None
    if "simulates" in arm.model_fields_set:
        return arm.simulates
    # Imported here: it loads torch, which a report needs for old files alone.
    from metaprime.meta import LEARNERS

    learner = LEARNERS.get(str(_setting(arm, config, "learner", "name")))
    simulated = learner.simulates if learner else "peft"
    method = _setting(arm, config, "peft", "method") if simulated == "peft" else simulated
    return None if method is None else str(method)


def _setting(arm: Arm, config: Mapping[str, Any], section: str, field: str) -> Any:
    """Returns a value of the base config as the arm's overrides leave it."""
    value = config.get(section, {}).get(field)
    for key, given in _overrides(arm.set):
        if key == f"{section}.{field}":
            value = given
        elif key == section and isinstance(given, dict):
            value = given.get(field, value)
    return value


def _overrides(given: Any) -> Iterator[tuple[str, Any]]:
    """Yields overrides as (dotted key, value), written as a mapping or as `key=value` strings."""
    if isinstance(given, dict):
        yield from given.items()
    for line in given if isinstance(given, list | tuple) else ():
        key, _, value = str(line).partition("=")
        yield key, yaml.safe_load(value)


def short_titles(results: Results) -> Mapping[str, str]:
    """Returns short names of methods, for narrow columns; a method without one is not in it.

    Example:
        head = short_titles(results).get("pfeiffer", "pfeiffer")  # "AT"
    """
    if results.titles is not None:
        return results.titles
    # Imported here: it loads torch, which a report needs for old files alone.
    from metaprime.peft import METHODS

    return {name: method.short for name, method in METHODS.items() if method.short}


def read_suite(folder: Path, results: Results | None = None) -> Suite:
    """Reads everything that tables and reports need.

    Args:
        folder: the suite's, which holds `results.json`.
        results: its content, from whoever has just written it; None: it is read.

    Raises:
        MetaprimeError: `results.json` is missing or damaged.

    Example:
        suite = read_suite(Path("runs/order"))
    """
    results = results or read_results(folder)
    problems: list[str] = []
    transfers = tuple(_read_transfers(folder, results, problems))
    metrics: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for arm, folders in results.primings.items():
        metrics[arm] = {}
        for seed, path in sorted(folders.items()):
            try:
                metrics[arm][seed] = read_metrics(folder / path)
            except MetaprimeError as error:
                problems.append(str(error))
    return Suite(folder, results, transfers, metrics, tuple(dict.fromkeys(problems)))


def _read_transfers(folder: Path, results: Results, problems: list[str]) -> Iterator[Transfer]:
    """Yields the transfers that can be read; notes the others."""
    for entry in results.records:
        try:
            yield _read_transfer(folder, entry, problems)
        except MetaprimeError as error:
            problems.append(str(error))


def _read_transfer(folder: Path, entry: Entry, problems: list[str]) -> Transfer:
    file = folder / entry.path
    record = read_record(file)
    try:
        f1 = headline(record)
    except (KeyError, TypeError, ValueError) as error:
        raise MetaprimeError(f"record {file} has no score ({error!r}): remove it and run the command again") from None
    if not math.isfinite(f1):
        raise MetaprimeError(f"record {file}: F1 is {f1}: remove it and run the command again")
    try:
        per_sentence = [count(matches(line["gold"], line["predicted"])) for line in read_predictions(file.parent)]
    except MetaprimeError as error:
        problems.append(str(error))
        return Transfer(entry, file.parent, record, f1, None, None)
    counts_B3 = np.array([(c.correct, c.predicted, c.gold) for c in per_sentence], dtype=np.int64).reshape(-1, 3)
    if abs(f1_of_counts(counts_B3) - f1) > 0.01:
        problems.append(
            f"record {file}: F1 is {f1:.2f}, of {PREDICTIONS} beside it {f1_of_counts(counts_B3):.2f}: they are not of one "
            "run; remove the folder and run the command again"
        )
        return Transfer(entry, file.parent, record, f1, None, None)
    return Transfer(entry, file.parent, record, f1, counts_B3, sum(per_sentence, ErrorCounts()))


def read_predictions(folder: Path) -> list[dict[str, list[str]]]:
    """Reads words, gold and predicted tags of every test sentence.

    Raises:
        MetaprimeError: the file is missing or damaged.
    """
    file = folder / PREDICTIONS
    try:
        return [_prediction(text, number) for number, text in enumerate(file.read_text("utf-8").splitlines(), 1)]
    except (OSError, ValueError) as error:
        raise MetaprimeError(
            f"predictions {file} cannot be read ({error}): remove {folder} and run the command again"
        ) from None


def _prediction(text: str, number: int) -> dict[str, list[str]]:
    try:
        line = json.loads(text)
        found = {key: [str(item) for item in line[key]] for key in ("words", "gold", "predicted")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"line {number}: {error!r}") from None
    if len({len(items) for items in found.values()}) != 1:
        raise ValueError(f"line {number}: words, gold and predicted differ in number")
    return found


class TransferCost(NamedTuple):
    """Cost of one transfer; nan where it is unknown."""

    passes: float
    flops: float
    seconds: float


def cost(transfers: Sequence[Transfer]) -> TransferCost:
    """Returns sentence passes, FLOPs and seconds of one transfer, each a mean over the records that say."""
    passes: list[float] = []
    flops: list[float] = []
    seconds: list[float] = []
    for transfer in transfers:
        record, training = transfer.record, transfer.record["training"]
        settings, sentences = record.get("config", {}).get("transfer", {}), training.get("sentences")
        if "steps" in settings and "batch" in settings and sentences:
            passes.append(settings["steps"] * min(settings["batch"], sentences))
        if training.get("flops") is not None:
            flops.append(training["flops"])
        if "seconds" in record.get("volatile", {}):
            seconds.append(record["volatile"]["seconds"])
    return TransferCost(mean_of_known(passes), mean_of_known(flops), mean_of_known(seconds))


def mean_of_known(values: Sequence[float]) -> float:
    """Returns the mean of what is finite; nan if nothing is."""
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan
