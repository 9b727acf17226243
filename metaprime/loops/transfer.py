"""Transfer: a frozen encoder, K sentences of a new language, one PEFT method; scored on that language's test split."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from metaprime.config import Config
from metaprime.data.episodes import sample
from metaprime.evaluation.records import Record, read_record
from metaprime.files import sweep
from metaprime.loops.build import build_model, build_task, target_rows
from metaprime.loops.changes import Facts
from metaprime.loops.finetune import FineTuned, check_shares, evaluate
from metaprime.loops.held_out import tuning
from metaprime.loops.lock import locked
from metaprime.loops.metrics_log import Display
from metaprime.loops.rates import check_rates, choose_rates
from metaprime.loops.run_directory import TRANSFERS, check_writable
from metaprime.loops.stability import LeavingOut
from metaprime.loops.stopping import Stopping
from metaprime.loops.transfer_record import RECORD, Cell, digest_of, facts_of, is_done, known_rates, label, save_cell
from metaprime.loops.transfer_start import Source, check_start, method_config, open_source
from metaprime.loops.tune_together import Tuning, groups_of, tune
from metaprime.models.encoder import Encoder, weights_hash
from metaprime.models.primable import PrimableModel, partition
from metaprime.peft import METHODS, MethodConfig
from metaprime.peft.method import under
from metaprime.tasks.task import Task
from metaprime.types import MetaprimeError, Params, Row, movable

Rows = dict[str, tuple[list[Row], list[Row]]]
"""By language, what is trained on and what is scored."""


@dataclass(frozen=True)
class Bench:
    """A method's injected model over one encoder, and theta's hash before anything was trained; `name` as cells call it."""

    name: str
    model: PrimableModel
    method: MethodConfig
    backbone: Params
    frozen: str


def transfer(
    config: Config,
    *,
    overwrite: bool = False,
    force: bool = False,
    max_seconds: float | None = None,
    quiet: bool = False,
) -> list[Record]:
    """Runs every cell (language x method x K x seed) of the config that has no record yet; returns all records. `quiet`
    shows no progress.

    Each cell has a folder under `<run.output>/transfer/<encoder>/`: record, predictions, and what `metaprime predict`
    needs. Under `accelerate launch` each process takes its share of the cells. `force` keeps records although something
    is not as it was when they were made.

    Raises:
        MetaprimeError: bad input; a record of another config; theta changed where it should have been frozen.
        Stopped: a signal came, or `max_seconds` are over; the cell at hand is given up, those before it are kept.
    """
    with Stopping(max_seconds, "finished cells are kept, the same command does the others") as stop:
        torch.set_num_threads(config.run.threads)
        accelerator = Accelerator()
        with locked(check_writable(config), accelerator):
            return _transfer(config, accelerator, stop, overwrite, force, quiet)


def _transfer(
    config: Config, accelerator: Accelerator, stop: Stopping, overwrite: bool, force: bool, quiet: bool
) -> list[Record]:
    source = open_source(config, accelerator)
    settings = config.transfer
    tasks, rows = _readings(config, source.encoder)
    check_start(config, source, tasks[settings.methods[0]])
    check_rates(config)
    cells = [
        Cell(language, method, shots, seed)
        for method in settings.methods
        for shots in settings.shots
        for language in config.data.target_languages
        for seed in settings.seeds
    ]
    root = Path(config.run.output) / TRANSFERS / label(config)
    if accelerator.is_main_process:
        sweep(root)
    accelerator.wait_for_everyone()
    texts = rows[settings.methods[0]]  # words and tags, which are the same for each method
    facts = {language: facts_of(config, source, language, *texts[language]) for language in texts}
    todo = [cell for cell in cells if overwrite or not is_done(root / cell.folder, facts[cell.language], force)]
    rates = {} if force or overwrite else known_rates(root, cells, todo)
    accelerator.wait_for_everyone()  # every process has the same list before the first one adds to what is done
    left = set(todo)
    count = -(-len(todo) // accelerator.num_processes)
    with Display("transfer", count, accelerator.is_main_process and not quiet) as display:
        done = 0
        for bench, runs in _share(config, cells, left, source, tasks, rows, accelerator):
            stop.check()
            task, own, shots = tasks[bench.name], rows[bench.name], next(iter(runs)).shots
            if (bench.name, shots) not in rates:  # only now: a run that is stopped loses one choice, not all
                wanted = [many for many in settings.shots if (bench.name, many) not in rates]
                rates |= choose_rates(config, source, task, accelerator.device, (bench.name,), wanted)
            lr, cell_of = rates[bench.name, shots], {id(run): cell for cell, run in runs.items()}
            for run, tuned in tune(bench.model, task, bench.backbone, [*runs.values()], settings, lr, count=True):
                if (cell := cell_of[id(run)]) not in left:
                    continue  # it was there, and ran for its neighbours' sake
                found, folder = facts[cell.language], root / cell.folder
                beside = [other.folder for other in runs if other is not cell]
                record = _finish(
                    config, cell, bench, source, task, tuned, beside, own[cell.language], lr, found, folder
                )
                done += 1
                display.show(done, f"{cell.folder} F1 {record['scores']['lenient']['overall']['f1']:.1f}")
    accelerator.wait_for_everyone()
    return [read_record(root / cell.folder / RECORD) for cell in cells]


def _share(
    config: Config,
    cells: Sequence[Cell],
    left: set[Cell],
    source: Source,
    tasks: dict[str, Task],
    rows: dict[str, Rows],
    accelerator: Accelerator,
) -> Iterator[tuple[Bench, dict[Cell, Tuning]]]:
    """This process's groups among those in which something is `left` to do, dealt one by one, with the bench for each."""
    bench: Bench | None = None
    dealt = 0
    for (method, _), alike in _by_method(cells).items():
        if not left.intersection(alike):
            continue
        task, own = tasks[method], rows[method]
        if bench is None or bench.name != method:
            bench = make_bench(config, source, task, method, own[alike[0].language][0], accelerator.device)
        for runs in _groups(config, alike, bench, source, task, own):
            if left.intersection(runs):
                dealt += 1
                if (dealt - 1) % accelerator.num_processes == accelerator.process_index:
                    yield bench, runs


def _by_method(cells: Sequence[Cell]) -> dict[tuple[str, int], list[Cell]]:
    """The cells of each method and K, in their order."""
    found: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.method, cell.shots), []).append(cell)
    return found


def _groups(
    config: Config, cells: Sequence[Cell], bench: Bench, source: Source, task: Task, rows: Rows
) -> list[dict[Cell, Tuning]]:
    """The cells of one method and K with their fine-tunings, those together that are trained in one pass. Which are done, or
    whose they are, plays no part: a cell has the same neighbours, and so the same last bits, in a run that was gone on with or is
    shared by processes.
    """
    given = (bench.model, task, bench.backbone, config.transfer, source.primed)
    moves_backbone = METHODS[bench.method.method].moves_backbone
    runs = []
    for cell in cells:
        shots = sample(rows[cell.language][0], cell.shots, cell.seed, cell.language)
        runs.append(tuning(*given, shots, cell.seed, cell.language, moves_backbone))
    rest = iter(cells)
    return [{next(rest): run for run in group} for group in groups_of(bench.model, config.transfer, runs)]


def _readings(config: Config, encoder: Encoder) -> tuple[dict[str, Task], dict[str, Rows]]:
    """By method, the task and the rows: one that takes positions away has sentences in shorter windows."""
    tasks: dict[str, Task] = {}
    rows: dict[str, Rows] = {}
    by_room: dict[int, Rows] = {}
    for name in config.transfer.methods:
        method = method_config(config, name)
        tasks[name] = build_task(config, encoder, method)
        if method.positions not in by_room:
            by_room[method.positions] = _checked_rows(config, tasks[name])
        rows[name] = by_room[method.positions]
    return tasks, rows


def _checked_rows(config: Config, task: Task) -> Rows:
    """Training and test rows of every target language, enough of them."""
    rows = {language: target_rows(config, task, language) for language in config.data.target_languages}
    if not rows:
        raise MetaprimeError("data.target_languages is empty: name at least one language to transfer to")
    for language, (train, _) in rows.items():
        sample(train, max(config.transfer.shots), 0, language)
    check_shares(config.transfer)
    return rows


def make_bench(
    config: Config, source: Source, task: Task, name: str, example: Sequence[Row], device: torch.device
) -> Bench:
    """Injects one method into a copy of the encoder."""
    method = method_config(config, name)
    model = build_model(source.encoder, task, method, example).to(device)
    state = partition(model)
    return Bench(name, model, method, state.backbone, weights_hash(state.backbone))


@torch.no_grad()
def _stored(bench: Bench, values: Params) -> int:
    """Parameters of the change that fine-tuning left, the head apart: of a sparse one fewer than were trained."""
    moved = sum(value.numel() for name, value in values.items() if name.startswith("backbone."))
    _, phi = METHODS[bench.method.method].collapse(bench.method, bench.model.adapter, under("adapter", values))
    return moved + sum(value.numel() for value in movable(phi).values())


def _finish(
    config: Config,
    cell: Cell,
    bench: Bench,
    source: Source,
    task: Task,
    tuned: FineTuned,
    beside: list[str],
    rows: tuple[list[Row], list[Row]],
    lr: float,
    facts: Facts,
    folder: Path,
) -> Record:
    """Scores a fine-tuned cell and saves it with its record."""
    began = time.perf_counter()
    train, test = rows
    settings, moves_backbone = config.transfer, METHODS[bench.method.method].moves_backbone
    stability: Record = {}
    if settings.leave_out:
        runs = LeavingOut(bench.model, task, bench.backbone, settings, lr, source.primed, cell.seed, cell.language)
        shots = sample(train, cell.shots, cell.seed, cell.language)
        stability["stability"] = runs.loss_change(shots, tuned.values)
    scores, predicted = evaluate(bench.model, task, {**bench.backbone, **tuned.values}, test)
    after = weights_hash({name: tuned.values.get(name, value) for name, value in bench.backbone.items()})
    if after != bench.frozen and not moves_backbone:
        raise MetaprimeError(f"{cell.folder}: theta changed although {cell.method} freezes it; please report this")
    record: Record = {
        "cell": {
            "encoder": label(config),
            "language": cell.language,
            "method": cell.method,
            "shots": cell.shots,
            "priming_seed": source.priming_seed,
            "transfer_seed": cell.seed,
        },
        "scores": scores,
        "training": {
            "steps": tuned.steps,
            "lr": lr,
            "sentences": cell.shots,
            "beside": beside,
            "last_loss": tuned.losses[-1],
            "flops": tuned.flops,
        },
        "parameters": {
            "adapter": sum(
                value.numel() for name, value in movable(tuned.values).items() if not name.startswith("head.")
            ),
            "stored": _stored(bench, tuned.values),
            "head": sum(value.numel() for name, value in tuned.values.items() if name.startswith("head.")),
            "encoder": sum(value.numel() for value in bench.backbone.values()),
        },
        **stability,
        "frozen": {"before": bench.frozen, "after": after, "unchanged": after == bench.frozen},
        "digest": digest_of(config, source),
        "weights": facts["weights"],
        "sentences": facts["sentences"],
        "peft": bench.method.model_dump(mode="json"),
        "config": config.model_dump(mode="json"),
        "versions": facts["versions"],
        "volatile": {
            "seconds": tuned.seconds + time.perf_counter() - began,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "written": time.strftime("%Y-%m-%dT%H:%M:%S"),
        },
    }
    save_cell(folder, cell, bench.method, bench.model.adapter, source, task, tuned.values, record, test, predicted)
    return record
