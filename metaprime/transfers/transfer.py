"""Transfers to new languages: fine-tunes on K sentences of each and scores its test split."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from metaprime.build.data import BuildTask, Split, build_task, target_rows
from metaprime.build.kind import kinds_of
from metaprime.build.roles import TARGETS
from metaprime.config.sections import Config, DataConfig, TransferConfig
from metaprime.data.episodes import sample
from metaprime.files import sweep
from metaprime.models.encoder import weights_hash
from metaprime.peft import MethodConfig
from metaprime.runs.folder import TRANSFERS, check_writable
from metaprime.runs.launch import check_launch
from metaprime.runs.lock import locked
from metaprime.runs.log import Display
from metaprime.runs.records import Cell, Record
from metaprime.runs.stopping import Stopping
from metaprime.tasks import Task
from metaprime.transfers.held_out import Validation, held_out_splits
from metaprime.transfers.rates import check_rates, choose_rates
from metaprime.transfers.record import Finished, Recorder, encoder_label, known_rates, primed_hashes
from metaprime.transfers.shots import check_shares
from metaprime.transfers.stacked import groups_of, tune
from metaprime.transfers.start import (
    KShotRun,
    Source,
    TransferContext,
    check_start,
    k_shot_run,
    make_context,
    open_source,
)


@dataclass(frozen=True)
class TransferResult:
    """The result of one transfer.

    Attributes:
        language: target language.
        method: label of the PEFT method, such as `lora-rank4`.
        shots: K, the number of labelled sentences.
        seed: seed that drew sentences, their order, and fresh adapter and head.
        score: headline metric of the task; for tagging entity F1 in per cent.
        path: folder of the cell, for `metaprime.load`.
        record: content of `record.json`.

    Example:
        >>> result = results[0]
        >>> result.language, result.method, result.shots, result.seed
        ('qai', 'pfeiffer', 8, 0)
        >>> result.f1 == result.scores["lenient"]["overall"]["f1"]
        True
    """

    language: str
    method: str
    shots: int
    seed: int
    score: float
    path: Path
    record: Record

    @property
    def scores(self) -> dict[str, Any]:
        """All scores of the task."""
        scores: dict[str, Any] = self.record["scores"]
        return scores

    @property
    def f1(self) -> float:
        """Entity F1 of a tagging task in per cent.

        Raises:
            AttributeError: the task has no F1; use `score` or `scores`.
        """
        try:
            return float(self.scores["lenient"]["overall"]["f1"])
        except KeyError:
            raise AttributeError("this task has no entity F1: use .score or .scores") from None


def transfer(
    config: Config,
    *,
    overwrite: bool = False,
    force: bool = False,
    max_seconds: float | None = None,
    quiet: bool = False,
) -> list[TransferResult]:
    """Runs every cell (language x method x K x seed) of a config that has no record yet.

    The folder of a cell, under `<run.output>/transfer/<encoder>/`, holds record, predictions and
    the files that `metaprime.load` reads. With `accelerate launch` each process runs a share.

    Args:
        config: sections `transfer`, `peft`, `data`, `task`, `encoder` and `run` are read.
        overwrite: whether to run finished cells again.
        force: whether to keep finished cells whose settings, sentences, weights or versions differ.
        max_seconds: seconds after which the command stops; None: no limit.
        quiet: whether to hide the progress display.

    Returns:
        The results of all cells, including those that were finished before.

    Raises:
        MetaprimeError: the input is invalid, a record has other inputs, or a frozen theta changed.
        Stopped: a signal arrived or `max_seconds` are over; finished cells are kept.

    Example:
        >>> results = metaprime.transfer(config, quiet=True)
        >>> [(result.language, result.method) for result in results]
        [('qai', 'pfeiffer')]
        >>> 0 <= results[0].f1 <= 100
        True
    """
    with Stopping(max_seconds, "finished cells are kept; run the same command for the others") as stop:
        torch.set_num_threads(config.run.threads)
        accelerator = Accelerator()
        check_launch(accelerator.num_processes)
        config = config.at_transfer_rates(*kinds_of(config.encoder, config.transfer))
        output = check_writable(config.output)
        with locked(output, accelerator):
            source = open_source(config.encoder, config.transfer, output, config.run.threads, accelerator)
            inputs = read_inputs(config, source)
            run = _Run(accelerator, inputs, _recorder(inputs, output, accelerator))
            _carry_out(run, stop, _Policy(overwrite, force, quiet))
            return [_result(run, cell) for cell in inputs.cells]


@dataclass(frozen=True)
class _Policy:
    """The options of `transfer` for finished cells and progress."""

    overwrite: bool
    force: bool
    quiet: bool


@dataclass(frozen=True)
class Inputs:
    """Everything that transfers read, validated.

    Attributes:
        settings: the section `transfer`.
        data: the section `data`.
        seed: seed that draws the sentences of held-out languages.
        source: the encoder to start from.
        methods: method label -> settings.
        tasks: method label -> task, whose windows are shorter if the method occupies positions.
        splits: method label -> language -> rows.
        configs: method label -> config as JSON, for records.
    """

    settings: TransferConfig
    data: DataConfig
    seed: int
    source: Source
    methods: dict[str, MethodConfig]
    tasks: dict[str, Task]
    splits: dict[str, dict[str, Split]]
    configs: dict[str, dict[str, Any]]

    @property
    def cells(self) -> list[Cell]:
        """All cells, in the order of the results."""
        return [
            Cell(language, label, shots, seed)
            for label in self.methods
            for shots in self.settings.shots
            for language in self.data.target_languages
            for seed in self.settings.seeds
        ]

    def context(self, label: str, device: torch.device) -> TransferContext:
        """Builds the model of a method: `inputs.context("lora", accelerator.device)`.

        Args:
            label: label of the method.
            device: device of the model.

        Raises:
            MetaprimeError: the method cannot be injected into the encoder.
        """
        example = next(iter(self.splits[label].values())).rows
        return make_context(self.source, self.tasks[label], self.methods[label], self.settings, example, device)


def read_inputs(config: Config, source: Source, build: BuildTask = build_task) -> Inputs:
    """Reads and validates all that transfers need but their models.

    Args:
        config: sections `transfer`, `peft`, `data`, `task` and `run` are read.
        source: the encoder to start from.
        build: builds the task of a config, as `build_task` does.

    Raises:
        MetaprimeError: data or settings are invalid, or do not fit the encoder.

    Example: `read_inputs(config, open_source(config.encoder, config.transfer, output)).cells`.
    """
    settings, data, methods = config.transfer, config.data, config.methods()
    check_rates(settings, data)
    tasks = {
        label: build(config.task, data, source.encoder, method, config.run.cache) for label, method in methods.items()
    }
    first = next(iter(methods))
    check_start(source, settings, list(methods.values()), tasks[first])
    splits = _splits(methods, tasks, settings, data)
    return Inputs(settings, data, config.run.seed, source, methods, tasks, splits, config.by_method())


def check_cells(inputs: Inputs, cells: Sequence[Cell], device: torch.device) -> None:
    """Validates what some cells need and would otherwise be read in their turn: held-out languages and models.

    Args:
        inputs: the inputs of the transfers.
        cells: cells that are to run.
        device: device of the models.

    Raises:
        MetaprimeError: a held-out language cannot be read, or a method cannot be injected into the encoder.

    Example: `check_cells(inputs, inputs.cells, torch.device("cpu"))`.
    """
    labels = dict.fromkeys(cell.method for cell in cells)
    for label in labels:
        if len(inputs.settings.rates(inputs.methods[label])) > 1:
            held_out_splits(inputs.tasks[label], inputs.data, inputs.settings)
        inputs.context(label, device)


@dataclass(frozen=True)
class _Run:
    """The parts of one command.

    Attributes:
        accelerator: this process and its place among those launched together.
        inputs: everything that is read.
        recorder: reads and writes records.
    """

    accelerator: Accelerator
    inputs: Inputs
    recorder: Recorder


def _recorder(inputs: Inputs, output: Path, accelerator: Accelerator) -> Recorder:
    """Returns what reads and writes the records in an output, after what killed commands left is removed."""
    settings, source = inputs.settings, inputs.source
    label = encoder_label(settings.encoder)
    root = output / TRANSFERS / label
    starts = {"adapter": settings.start_adapter, "head": settings.start_head}
    primed = primed_hashes(source, [group for group, start in starts.items() if start == "primed"])
    if accelerator.is_main_process:
        sweep(root)
    accelerator.wait_for_everyone()
    return Recorder(root, label, source, inputs.configs, next(iter(inputs.splits.values())), primed)


def _carry_out(run: _Run, stop: Stopping, policy: _Policy) -> None:
    """Fine-tunes, scores and saves this process's share of the unfinished cells."""
    inputs, recorder, accelerator = run.inputs, run.recorder, run.accelerator
    cells, settings = inputs.cells, inputs.settings
    todo = {cell for cell in cells if policy.overwrite or not recorder.is_done(cell, policy.force)}
    done = [] if policy.force or policy.overwrite else [cell for cell in cells if cell not in todo]
    rates = known_rates(recorder, done)
    # A later method's mistake is found before the first method's cells have run.
    if len({cell.method for cell in todo}) > 1:
        check_cells(inputs, [cell for cell in cells if cell in todo], accelerator.device)
    # All processes list the unfinished cells before one of them finishes another.
    accelerator.wait_for_everyone()
    count = -(-len(todo) // accelerator.num_processes)
    with Display("transfer", count, accelerator.is_main_process and not policy.quiet, unit="cell") as display:
        shown = 0
        for share in _shares(run, todo):
            stop.check()
            if share.address not in rates:
                # Chosen method by method, so that a command that is stopped loses one choice.
                label = share.address[0]
                missing = [shots for shots in settings.shots if (label, shots) not in rates]
                rates_of = settings.rates(share.context.method)
                chosen = choose_rates(rates_of, missing, partial(_validation, inputs, share.context))
                rates |= {(label, shots): rate for shots, rate in chosen.items()}
            for finished in _fine_tuned(share, rates[share.address]):
                if finished.cell not in todo:
                    # A finished cell is trained again only because its neighbours share the pass.
                    continue
                scored = inputs.splits[finished.cell.method][finished.cell.language].scored
                record = recorder.save(share.context, finished, share.frozen, scored)
                shown += 1
                metric = share.context.task.kind.metric
                display.show(shown, f"{finished.cell.folder} {metric.label} {metric.of(record['scores']):.1f}")
    accelerator.wait_for_everyone()


@dataclass(frozen=True)
class _Share:
    """Cells of one method and K that share passes.

    Attributes:
        context: model, loss and settings.
        frozen: hash of theta before fine-tuning.
        runs: cell -> fine-tuning.
    """

    context: TransferContext
    frozen: str
    runs: dict[Cell, KShotRun]

    @property
    def address(self) -> tuple[str, int]:
        """Method label and K of the cells."""
        first = next(iter(self.runs))
        return first.method, first.shots


def _shares(run: _Run, todo: set[Cell]) -> Iterator[_Share]:
    """Yields the groups with unfinished cells that fall to this process, in turn."""
    dealt = itertools.count()
    for label in run.inputs.methods:
        cells = [cell for cell in run.inputs.cells if cell.method == label]
        if not todo.intersection(cells):
            continue
        context = run.inputs.context(label, run.accelerator.device)
        frozen = weights_hash(context.backbone)
        for shots in run.inputs.settings.shots:
            for runs in _groups(run.inputs, context, [cell for cell in cells if cell.shots == shots]):
                if todo.intersection(runs) and _is_mine(next(dealt), run.accelerator):
                    yield _Share(context, frozen, runs)


def _is_mine(number: int, accelerator: Accelerator) -> bool:
    """Returns True if a group, by its number, falls to this process."""
    return bool(number % accelerator.num_processes == accelerator.process_index)


def _groups(inputs: Inputs, context: TransferContext, cells: Sequence[Cell]) -> list[dict[Cell, KShotRun]]:
    """Groups cells of one method and K by the passes that they share.

    Finished cells and cells of other processes are included: a cell must have the same neighbours,
    and so the same last bits, in a command that is resumed or runs in several processes.
    """
    splits = inputs.splits[cells[0].method]
    runs = []
    for cell in cells:
        rows = sample(splits[cell.language].train, cell.shots, cell.seed, cell.language, context.task.stratum)
        runs.append(k_shot_run(context, rows, cell.seed, cell.language))
    rest = iter(cells)
    return [{next(rest): member for member in group} for group in groups_of(context, runs)]


def _fine_tuned(share: _Share, rate: float) -> Iterator[Finished]:
    """Fine-tunes a group of cells and yields each when it is finished."""
    cells = {id(run): cell for cell, run in share.runs.items()}
    for run, tuned in tune(share.context, [*share.runs.values()], rate, count=True):
        cell = cells[id(run)]
        beside = tuple(neighbour.folder for neighbour in share.runs if neighbour is not cell)
        yield Finished(cell, run, tuned, rate, beside)


def _validation(inputs: Inputs, context: TransferContext) -> Validation:
    """Reads the held-out languages, to be fine-tuned with the model of a method."""
    return Validation(context, held_out_splits(context.task, inputs.data, inputs.settings), inputs.seed)


def _splits(
    methods: dict[str, MethodConfig], tasks: dict[str, Task], settings: TransferConfig, data: DataConfig
) -> dict[str, dict[str, Split]]:
    """Reads the target languages for each method; methods with equal windows share the rows."""
    by_room: dict[int, dict[str, Split]] = {}
    for label, method in methods.items():
        if method.positions not in by_room:
            by_room[method.positions] = _target_splits(tasks[label], settings, data)
    return {label: by_room[method.positions] for label, method in methods.items()}


def _target_splits(task: Task, settings: TransferConfig, data: DataConfig) -> dict[str, Split]:
    """Reads training and test rows of every target language, and validates their number."""
    names, most, trains = TARGETS.names(data), settings.test_sentences, any(settings.shots)
    splits = {language: target_rows(task, data, language, most, trains) for language in names}
    for language, split in splits.items():
        sample(split.train, max(settings.shots), 0, language)
    check_shares(settings, task.config.least_shots)
    return splits


def _result(run: _Run, cell: Cell) -> TransferResult:
    """Returns the result of a finished cell from its record."""
    record = run.recorder.read(cell)
    score = run.inputs.tasks[cell.method].kind.metric.of(record["scores"])
    return TransferResult(cell.language, cell.method, cell.shots, cell.seed, score, run.recorder.folder(cell), record)
