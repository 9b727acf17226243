"""Transfer: a frozen encoder, K sentences of a new language, one PEFT method; scored on that language's test split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator

from metaprime.build.data import build_task, target_rows
from metaprime.config.sections import Config
from metaprime.data.episodes import sample
from metaprime.data.rows import Row
from metaprime.files import sweep
from metaprime.models.encoder import Encoder
from metaprime.peft import METHODS
from metaprime.runs.folder import TRANSFERS, check_writable
from metaprime.runs.lock import locked
from metaprime.runs.log import Display
from metaprime.runs.records import Record, read_record
from metaprime.runs.stopping import Stopping
from metaprime.tasks.task import Task
from metaprime.transfers.finetune import check_shares
from metaprime.transfers.rates import check_rates, choose_rates
from metaprime.transfers.record import RECORD, Cell, facts_of, finish, is_done, known_rates, label
from metaprime.transfers.stacked import KShotRun, groups_of, tune
from metaprime.transfers.start import Bench, Source, check_start, make_bench, method_config, open_source, tuning
from metaprime.types import MetaprimeError

Rows = dict[str, tuple[list[Row], list[Row]]]
"""By language, what is trained on and what is scored."""


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
                record = finish(config, cell, bench, source, task, tuned, beside, own[cell.language], lr, found, folder)
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
) -> Iterator[tuple[Bench, dict[Cell, KShotRun]]]:
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
) -> list[dict[Cell, KShotRun]]:
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
