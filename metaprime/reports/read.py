"""Reads a suite of runs from the disk: `results.json` and the records, predictions and metrics that it names.

A suite may be half done. What is missing or cannot be read is named in `problems`; the rest is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import yaml

from metaprime.runs.log import read_metrics
from metaprime.runs.records import PREDICTIONS, Record, headline, read_record
from metaprime.runs.results import RESULTS, Arm, Entry, Results, read_results
from metaprime.stats.bootstrap import Counts
from metaprime.types import MetaprimeError

if TYPE_CHECKING:
    from metaprime.tasks import TaskKind


@dataclass(frozen=True, eq=False)
class Transfer:
    """One cell that is done.

    Attributes:
        entry: which cell it is.
        folder: its files.
        record: its record.json.
        score: the task's headline metric.
        counts_Bk: the task's counts of each test example (`tasks.task.Statistics`); None: they cannot be read.
        errors: matches of each kind (`tasks.task.Errors`); None likewise.
    """

    entry: Entry
    folder: Path
    record: Record
    score: float
    counts_Bk: Counts | None
    errors: tuple[int, ...] | None


@dataclass(frozen=True, eq=False)
class Suite:
    """A suite as it was read.

    Attributes:
        folder: its files.
        results: its results.json.
        kind: the kind of task that it is on.
        transfers: every transfer that could be read.
        metrics: lines of metrics.jsonl by arm and seed.
        problems: one line for whatever could not be read.
        control: the first arm without priming, against which gains are measured.
    """

    folder: Path
    results: Results
    kind: TaskKind
    transfers: tuple[Transfer, ...]
    metrics: Mapping[str, Mapping[int, Sequence[Mapping[str, Any]]]]
    problems: tuple[str, ...]
    control: str | None = field(init=False)

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
        """Returns the headline metric of each complete seed, mean over languages."""
        replicates = self.replicates(arm, method, shots)
        return {seed: float(np.mean([t.score for t in done])) for seed, done in replicates.items()}

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
    kind = kind_of(results, folder)
    transfers = tuple(_read_transfers(folder, results, kind, problems))
    metrics: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for arm, folders in results.primings.items():
        metrics[arm] = {}
        for seed, path in sorted(folders.items()):
            try:
                metrics[arm][seed] = read_metrics(folder / path)
            except MetaprimeError as error:
                problems.append(str(error))
    return Suite(folder, results, kind, transfers, metrics, tuple(dict.fromkeys(problems)))


def kind_of(results: Results, folder: Path) -> TaskKind:
    """Returns the kind of task that a suite is on.

    Raises:
        MetaprimeError: its name is not one that this version knows.
    """
    # Imported here: it loads torch, which nothing else in a report needs.
    from metaprime.tasks import TASKS

    if results.task not in TASKS:
        raise MetaprimeError(
            f"{folder / RESULTS}: task {results.task!r} is unknown here (known: {', '.join(TASKS)}): use the version of "
            "metaprime that wrote it"
        )
    return TASKS[results.task]


def _read_transfers(folder: Path, results: Results, kind: TaskKind, problems: list[str]) -> Iterator[Transfer]:
    """Yields the transfers that can be read; records the problems of the others."""
    for entry in results.records:
        try:
            yield _read_transfer(folder, entry, kind, problems)
        except MetaprimeError as error:
            problems.append(str(error))


def _read_transfer(folder: Path, entry: Entry, kind: TaskKind, problems: list[str]) -> Transfer:
    """Reads one transfer; without its predictions where these cannot be read or are of another run."""
    file, metric = folder / entry.path, kind.metric
    record = read_record(file)
    try:
        score = headline(record, metric)
    except (KeyError, TypeError, ValueError) as error:
        raise MetaprimeError(f"record {file} has no score ({error!r}): remove it and run the command again") from None
    if not math.isfinite(score):
        raise MetaprimeError(f"record {file}: {metric.label} is {score}: remove it and run the command again")
    try:
        counts_Bk, errors = _counted(file.parent, kind)
    except MetaprimeError as error:
        problems.append(str(error))
        return Transfer(entry, file.parent, record, score, None, None)
    if counts_Bk is not None and kind.statistics:
        again = float(kind.statistics.of_sums(counts_Bk.sum(axis=0, dtype=np.float64)))
        if abs(again - score) > 0.01:
            problems.append(
                f"record {file}: {metric.label} is {score:.2f}, of {PREDICTIONS} beside it {again:.2f}: they are not of one "
                "run; remove the folder and run the command again"
            )
            return Transfer(entry, file.parent, record, score, None, None)
    return Transfer(entry, file.parent, record, score, counts_Bk, errors)


def _counted(folder: Path, kind: TaskKind) -> tuple[Counts | None, tuple[int, ...] | None]:
    """Counts the statistics (B, k) and the errors by kind of a cell's predictions, as far as the task has them.

    Raises:
        MetaprimeError: the predictions cannot be read.
    """
    lines = read_predictions(folder)
    try:
        counts, errors = None, None
        if kind.statistics:
            rows = [kind.statistics.of_example(line) for line in lines]
            counts = np.array(rows, dtype=np.int64).reshape(len(rows), -1)
        if kind.errors:
            each = [kind.errors.of_example(line) for line in lines]
            errors = tuple(sum(column) for column in zip(*each, strict=True)) or (0,) * len(kind.errors.kinds)
        return counts, errors
    except (ValueError, KeyError, TypeError) as error:
        raise MetaprimeError(
            f"predictions {folder / PREDICTIONS} cannot be read ({error!r}): remove {folder} and run the command again"
        ) from None


def read_predictions(folder: Path) -> list[dict[str, Any]]:
    """Reads the predictions of every test example: mappings with at least `gold` and `predicted`.

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


def _prediction(text: str, number: int) -> dict[str, Any]:
    try:
        line: dict[str, Any] = json.loads(text)
        if not {"gold", "predicted"} <= line.keys():
            raise KeyError("gold and predicted")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"line {number}: {error!r}") from None
    return line


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
