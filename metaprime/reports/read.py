"""Reads a suite from disk: `results.json` and the records, predictions and metrics that it names.

A folder without `results.json` is read as the cells that lie below it (`runs.found`). Files that are
missing or damaged are listed in `problems`; the rest is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from metaprime.runs.found import find
from metaprime.runs.log import read_metrics
from metaprime.runs.records import PREDICTIONS, Record, headline, read_predictions, read_record
from metaprime.runs.results import RESULTS, Entry, Results, read_results
from metaprime.stats.bootstrap import Counts
from metaprime.types import MetaprimeError

if TYPE_CHECKING:
    from metaprime.tasks import TaskKind


@dataclass(frozen=True, eq=False)
class Transfer:
    """A finished transfer.

    Attributes:
        entry: its cell in the suite.
        folder: folder of its files.
        record: content of its record.json.
        score: the task's headline metric, in the metric's unit.
        counts_Bk: (B, k), the k counts of each of B test examples (`tasks.task.Statistics`); None:
            the task has none, or the predictions cannot be read.
        errors: number of matches of each kind (`tasks.task.Errors`); None likewise.
        silent: whether nothing was predicted in any test example.
    """

    entry: Entry
    folder: Path
    record: Record
    score: float
    counts_Bk: Counts | None
    errors: tuple[int, ...] | None
    silent: bool = False


@dataclass(frozen=True, eq=False)
class Suite:
    """A suite with its transfers and metrics.

    Attributes:
        folder: its output folder.
        results: content of its results.json.
        kind: kind of its task.
        transfers: every transfer that could be read.
        metrics: arm -> seed -> lines of metrics.jsonl.
        problems: one message per file that could not be used.
        control: the first arm without priming, the baseline of gains; None: every arm primes.
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

    @property
    def scale(self) -> float:
        """Width from which an interval says nothing: that of the metric's range, else the largest score's size."""
        width = self.kind.metric.width
        return width if math.isfinite(width) else max((abs(t.score) for t in self.transfers), default=math.inf)

    def silent(self, *arms: str, **wanted: Any) -> bool:
        """Returns True if no transfer of these arms, such as with `method="lora"`, predicted anything.

        Example: `suite.silent("meta", "none", method="lora", shots=50)`
        """
        chosen = [t for arm in arms for t in self.select(arm=arm, **wanted)]
        return bool(chosen) and all(t.silent for t in chosen)

    def title(self, arm: str) -> str:
        """Returns the title of an arm; its name if the results do not describe it.

        Example: `suite.title("meta")`
        """
        return self.results.arms[arm].title if arm in self.results.arms else arm

    def select(self, **wanted: Any) -> list[Transfer]:
        """Returns the transfers whose entry has all the wanted values.

        Example: `suite.select(arm="meta", shots=50)`
        """
        return [t for t in self.transfers if all(getattr(t.entry, key) == value for key, value in wanted.items())]

    def replicates(self, arm: str, method: str, shots: int) -> dict[int, list[Transfer]]:
        """Returns seed -> transfers of the seeds that have every language.

        A mean over fewer languages would be another quantity.

        Example: `suite.replicates("meta", "lora", 50)`
        """
        by_seed: dict[int, list[Transfer]] = {}
        for transfer in self.select(arm=arm, method=method, shots=shots):
            by_seed.setdefault(transfer.entry.seed, []).append(transfer)
        languages = set(self.results.languages)
        return {
            seed: by_seed[seed] for seed in sorted(by_seed) if {t.entry.language for t in by_seed[seed]} == languages
        }

    def by_seed(self, arm: str, method: str, shots: int) -> dict[int, float]:
        """Returns seed -> headline metric, mean over languages, of complete seeds.

        Example: `suite.by_seed("meta", "lora", 50)`
        """
        replicates = self.replicates(arm, method, shots)
        return {seed: float(np.mean([t.score for t in done])) for seed, done in replicates.items()}

    def missing(self) -> list[tuple[str, int, int, int]]:
        """Lists (arm, seed, transfers present, transfers wanted) where some are missing.

        Example: `suite.missing()`
        """
        lacking = []
        wanted = len(self.results.languages) * len(self.results.shots) * len(self.results.methods)
        for arm in self.results.arms:
            for seed in self.results.seeds:
                if (present := len(self.select(arm=arm, seed=seed))) < wanted:
                    lacking.append((arm, seed, present, wanted))
        return lacking


def short_titles(results: Results) -> Mapping[str, str]:
    """Returns column -> short name for narrow tables; a method without a short name is left out.

    Example:
        head = short_titles(results).get("pfeiffer", "pfeiffer")  # "AT"
    """
    if results.titles is not None:
        return results.titles
    # Imported here: it loads torch, which a report needs only for old files.
    from metaprime.peft import METHODS

    return {name: method.short for name, method in METHODS.items() if method.short}


def read_suite(folder: Path, results: Results | None = None) -> Suite:
    """Reads a suite with everything that tables and reports need.

    Args:
        folder: the suite's output folder, or one of plain runs.
        results: content of `results.json`, if the caller has it; None: it is read.

    Raises:
        MetaprimeError: `results.json` is damaged, its task is unknown, or nothing lies in the folder.

    Example:
        suite = read_suite(Path("runs/order"))
    """
    results = results or (read_results(folder) if (folder / RESULTS).exists() else find(folder))
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
    """Returns the kind of a suite's task: `kind_of(results, folder).metric`.

    Args:
        results: content of `results.json`.
        folder: the suite's output folder, for the message.

    Raises:
        MetaprimeError: this version does not know the task, or its settings.
    """
    # Imported here: it loads torch, which nothing else in a report needs.
    from pydantic import ValidationError

    from metaprime.tasks import TASKS

    if results.task not in TASKS:
        raise MetaprimeError(
            f"{folder / RESULTS}: task {results.task!r} is unknown here (known: {', '.join(TASKS)}): use the version of "
            "metaprime that wrote it, or add --code FILE for a task of your own"
        )
    kind, settings = TASKS[results.task], results.config.get("task")
    # Older files lack the settings.
    if not kind.of or not settings:
        return kind
    try:
        return kind.of(kind.config.model_validate(settings))
    except ValidationError as error:
        raise MetaprimeError(
            f"{folder / RESULTS}: the settings of task {results.task!r} are not those of this version "
            f"({error.errors()[0]['msg']}): use the version of metaprime that wrote it"
        ) from None


def _read_transfers(folder: Path, results: Results, kind: TaskKind, problems: list[str]) -> Iterator[Transfer]:
    """Yields the transfers that can be read; adds messages about the others to `problems`."""
    for entry in results.records:
        try:
            yield _read_transfer(folder, entry, kind, problems)
        except MetaprimeError as error:
            problems.append(str(error))


def _read_transfer(folder: Path, entry: Entry, kind: TaskKind, problems: list[str]) -> Transfer:
    """Reads one transfer, without its predictions if they are damaged or come from another run.

    Raises:
        MetaprimeError: the record is missing or damaged, or has no finite score.
    """
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

    # The predictions must give the score of the record.
    if counts_Bk is not None and kind.statistics:
        recomputed = float(kind.statistics.of_sums(counts_Bk.sum(axis=0, dtype=np.float64)))
        if abs(recomputed - score) > 0.01:
            problems.append(
                f"record {file}: {metric.label} is {score:.2f}, but {PREDICTIONS} beside it gives {recomputed:.2f}: they come "
                f"from different runs; remove {file.parent} and run the command again"
            )
            return Transfer(entry, file.parent, record, score, None, None)
    return Transfer(
        entry,
        file.parent,
        record,
        score,
        counts_Bk,
        errors,
        bool(errors and kind.errors and kind.errors.nothing_predicted(errors)),
    )


def _counted(folder: Path, kind: TaskKind) -> tuple[Counts | None, tuple[int, ...] | None]:
    """Computes the counts (B, k) of B test examples and the errors by kind, if the task has them.

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


class TransferCost(NamedTuple):
    """Cost of one transfer, mean over several; nan: unknown.

    Attributes:
        passes: sentences through the encoder in training.
        flops: FLOPs of training.
        seconds: wall time.
    """

    passes: float
    flops: float
    seconds: float


def cost(transfers: Sequence[Transfer]) -> TransferCost:
    """Computes the mean cost of a transfer, each number over the records that have it.

    Example: `cost(suite.transfers).flops`
    """
    passes: list[float] = []
    flops: list[float] = []
    seconds: list[float] = []
    for transfer in transfers:
        record, training = transfer.record, transfer.record["training"]
        settings, sentences = record.get("config", {}).get("transfer", {}), training.get("sentences")
        if "steps" in settings and "batch" in settings and sentences is not None:
            passes.append(settings["steps"] * min(settings["batch"], sentences))
        if training.get("flops") is not None:
            flops.append(training["flops"])
        if "seconds" in record.get("volatile", {}):
            seconds.append(record["volatile"]["seconds"])
    return TransferCost(mean_of_known(passes), mean_of_known(flops), mean_of_known(seconds))


def mean_of_known(values: Sequence[float]) -> float:
    """Returns the mean of the finite values, else nan: `mean_of_known([1.0, math.nan])` is 1.0."""
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan
