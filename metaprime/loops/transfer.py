"""Transfer: a frozen encoder, K sentences of a new language, one PEFT method; scored on that language's test split."""

from __future__ import annotations

import copy
import json
import logging
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from metaprime.config import Config
from metaprime.data.episodes import sample
from metaprime.evaluation.records import Record, read_record
from metaprime.files import sweep, write_json, written_aside
from metaprime.loops.artifact import CARD, Artifact, learned_groups, load_artifact, save_artifact, sites_of
from metaprime.loops.assemble import open_encoder
from metaprime.loops.build import build_model, build_task, target_rows
from metaprime.loops.changes import Facts, changes, fingerprint
from metaprime.loops.finetune import check_shares, evaluate, fine_tune
from metaprime.loops.held_out import make_held_out, start_values
from metaprime.loops.lock import locked
from metaprime.loops.metrics_log import Display
from metaprime.loops.run_directory import TRANSFERS, check_writable, versions
from metaprime.loops.stopping import Stopping
from metaprime.models.encoder import Encoder, load_encoder, save_encoder, weights_hash
from metaprime.models.primable import PrimableModel, partition
from metaprime.peft import METHODS, MethodConfig
from metaprime.peft.method import no_modules
from metaprime.tasks.task import Task
from metaprime.types import MetaprimeError, Params, Row

RECORD = "record.json"
ASKED = ("methods", "shots", "seeds")
"""Keys of the section `transfer` that say which cells are asked for: no record depends on them."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """One transfer: what makes it different from its neighbours."""

    language: str
    method: str
    shots: int
    seed: int

    @property
    def folder(self) -> str:
        return f"{self.language}-{self.method}-k{self.shots}-s{self.seed}"


@dataclass(frozen=True)
class Source:
    """The encoder that transfers start from, and its primed adapter and head if it has them."""

    encoder: Encoder
    artifact: Artifact | None

    @property
    def primed(self) -> Params:
        return self.artifact.values if self.artifact else {}

    @property
    def priming_seed(self) -> int | None:
        return self.artifact.provenance["seed"] if self.artifact else None


@dataclass(frozen=True)
class Bench:
    """A method's injected model over one encoder, and theta's hash before anything was trained."""

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
    task = build_task(config, source.encoder)
    rows = _checked_rows(config, task)
    check_start(config, source, task)
    check_rates(config)
    settings = config.transfer
    cells = [
        Cell(language, method, shots, seed)
        for method in settings.methods
        for shots in settings.shots
        for language in config.data.target_languages
        for seed in settings.seeds
    ]
    root = Path(config.run.output) / TRANSFERS / _label(config)
    if accelerator.is_main_process:
        sweep(root)
    accelerator.wait_for_everyone()
    facts = {language: _facts(config, source, language, *rows[language]) for language in rows}
    todo = [cell for cell in cells if overwrite or not _done(root / cell.folder, facts[cell.language], force)]
    rates = {} if force or overwrite else _known_rates(root, cells, todo)
    accelerator.wait_for_everyone()  # every process has the same list before the first one adds to what is done
    mine = todo[accelerator.process_index :: accelerator.num_processes]
    with Display("transfer", len(mine), accelerator.is_main_process and not quiet) as display:
        bench: Bench | None = None
        for done, cell in enumerate(mine, 1):
            stop.check()
            if (cell.method, cell.shots) not in rates:  # only now: a run that is stopped loses one choice, not all
                wanted = [shots for shots in settings.shots if (cell.method, shots) not in rates]
                rates |= choose_rates(config, source, task, accelerator.device, (cell.method,), wanted)
            if bench is None or bench.method.method != cell.method:
                bench = make_bench(config, source, task, cell.method, rows[cell.language][0], accelerator.device)
            record = _run_cell(
                config, cell, bench, source, task, rows[cell.language], rates, facts[cell.language], root / cell.folder
            )
            display.show(done, f"{cell.folder} F1 {record['scores']['lenient']['overall']['f1']:.1f}")
    accelerator.wait_for_everyone()
    return [read_record(root / cell.folder / RECORD) for cell in cells]


def _checked_rows(config: Config, task: Task) -> dict[str, tuple[list[Row], list[Row]]]:
    """Training and test rows of every target language, enough of them."""
    rows = {language: target_rows(config, task, language) for language in config.data.target_languages}
    if not rows:
        raise MetaprimeError("data.target_languages is empty: name at least one language to transfer to")
    for language, (train, _) in rows.items():
        sample(train, max(config.transfer.shots), 0, language)
    check_shares(config.transfer)
    return rows


def open_source(config: Config, accelerator: Accelerator | None = None) -> Source:
    """The encoder named by `transfer.encoder`.

    Raises:
        MetaprimeError: nothing is primed there, or a primed start is asked of an encoder that was not primed.
    """
    settings = config.transfer
    if settings.encoder == "base":
        source = Source(open_encoder(config, accelerator), None)
    else:
        name = str(Path(config.run.output) / "primed") if settings.encoder == "primed" else settings.encoder
        if settings.encoder == "primed" and not Path(name).is_dir():
            raise MetaprimeError(
                f"transfer.encoder: {name} does not exist; run `metaprime prime` first, or set transfer.encoder to base or "
                "to a folder"
            )
        artifact = load_artifact(Path(name)) if (Path(name) / CARD).is_file() else None
        sites = config.encoder.sites or (sites_of(artifact) if artifact else None)
        encoder = load_encoder(name, config.encoder.attention, sites, config.encoder.trust_remote_code)
        source = Source(encoder, artifact)
    if "primed" in (settings.start_adapter, settings.start_head) and source.artifact is None:
        raise MetaprimeError(
            f"transfer.start_adapter and start_head cannot be primed: encoder {source.encoder.name} was not primed by "
            "metaprime"
        )
    return source


def method_config(config: Config, name: str) -> MethodConfig:
    """The `peft` section where it is this method's, the method's defaults otherwise."""
    return config.peft if config.peft.method == name else METHODS[name].config()


def check_start(config: Config, source: Source, task: Task) -> None:
    """Refuses a primed start that the primed adapter and head do not fit.

    Raises:
        MetaprimeError: the encoder was primed with another method, or its head with other labels.
    """
    settings, artifact = config.transfer, source.artifact
    if artifact is None:
        return
    for group, start in (("adapter", settings.start_adapter), ("head", settings.start_head)):
        if start == "primed" and group not in learned_groups(artifact):
            raise MetaprimeError(
                f"transfer.start_{group}: the encoder was primed with outer.{group} reset or keep, so that the one it comes "
                f"with is a random draw: prime with outer.{group}=meta, or use start_{group}: fresh"
            )
    for name in settings.methods if settings.start_adapter == "primed" else ():
        method = method_config(config, name)
        if METHODS[name].inject is not no_modules and artifact.method != method:
            raise MetaprimeError(
                f"transfer.start_adapter: the encoder was primed with {artifact.method!r}, this transfer uses {method!r}: "
                "use the same peft section, or start_adapter: fresh"
            )
    if settings.start_head == "primed" and artifact.labels != task.labels:
        raise MetaprimeError(
            f"transfer.start_head: the encoder was primed with the tags {', '.join(artifact.labels)}, data.labels gives "
            f"{', '.join(task.labels)}: use the same data.labels, or start_head: fresh"
        )


def make_bench(
    config: Config, source: Source, task: Task, name: str, example: Sequence[Row], device: torch.device
) -> Bench:
    """Injects one method into a copy of the encoder."""
    method = method_config(config, name)
    model = build_model(source.encoder, task, method, example).to(device)
    state = partition(model)
    return Bench(model, method, state.backbone, weights_hash(state.backbone))


def check_rates(config: Config) -> None:
    """Refuses several learning rates without languages to choose on.

    Raises:
        MetaprimeError: saying so.
    """
    if len(config.transfer.lr) > 1 and not config.data.validation_languages:
        raise MetaprimeError(
            "transfer.lr lists several rates: data.validation_languages must name languages to choose on"
        )


def choose_rates(
    config: Config,
    source: Source,
    task: Task,
    device: torch.device,
    methods: Sequence[str] = (),
    many_shots: Sequence[int] = (),
) -> dict[tuple[str, int], float]:
    """The learning rate for each (method, K), of all or of some: the only one given, or the best of several on the
    validation languages.

    Raises:
        MetaprimeError: several are given and there is no language to choose on.
    """
    settings = config.transfer
    check_start(config, source, task)
    check_rates(config)
    methods, many_shots = methods or settings.methods, many_shots or settings.shots
    if len(settings.lr) == 1:
        return {(method, shots): settings.lr[0] for method in methods for shots in many_shots}
    chosen = {}
    for name in methods:
        for shots, tried in try_rates(config, source, task, device, name, many_shots).items():
            chosen[name, shots] = max(tried, key=lambda lr: tried[lr])
    return chosen


def try_rates(
    config: Config, source: Source, task: Task, device: torch.device, name: str, many_shots: Sequence[int]
) -> dict[int, dict[float, float]]:
    """The mean F1 of the validation languages by K and learning rate, for one method."""
    held_out = make_held_out(config, source.encoder, task, method_config(config, name))
    backbone = partition(held_out.model.to(device)).backbone
    tried: dict[int, dict[float, float]] = {shots: {} for shots in many_shots}
    for shots in many_shots:
        for lr in config.transfer.lr:
            scores = held_out.scores(backbone, source.primed, lr, shots, sorted(held_out.rows))
            tried[shots][lr] = sum(scores.values()) / len(scores)
    return tried


def _run_cell(
    config: Config,
    cell: Cell,
    bench: Bench,
    source: Source,
    task: Task,
    rows: tuple[list[Row], list[Row]],
    rates: dict[tuple[str, int], float],
    facts: Facts,
    folder: Path,
) -> Record:
    began = time.perf_counter()
    settings, lr = config.transfer, rates[cell.method, cell.shots]
    train, test = rows
    start = start_values(bench.model, settings, source.primed, cell.seed, cell.language)
    moves_backbone = METHODS[cell.method].moves_backbone
    if moves_backbone:
        start |= bench.backbone
    shots = sample(train, cell.shots, cell.seed, cell.language)
    tuned = fine_tune(
        bench.model, task, bench.backbone, start, shots, settings, lr, cell.seed, cell.language, count=True
    )
    scores, predicted = evaluate(bench.model, task, {**bench.backbone, **tuned.values}, test)
    after = weights_hash({name: tuned.values.get(name, value) for name, value in bench.backbone.items()})
    if after != bench.frozen and not moves_backbone:
        raise MetaprimeError(f"{cell.folder}: theta changed although {cell.method} freezes it; please report this")
    record: Record = {
        "cell": {
            "encoder": _label(config),
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
            "sentences": len(shots),
            "last_loss": tuned.losses[-1],
            "flops": tuned.flops,
        },
        "frozen": {"before": bench.frozen, "after": after, "unchanged": after == bench.frozen},
        "digest": _digest(config, source),
        "sentences": facts["sentences"],
        "peft": bench.method.model_dump(mode="json"),
        "config": config.model_dump(mode="json"),
        "versions": facts["versions"],
        "volatile": {
            "seconds": time.perf_counter() - began,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "written": time.strftime("%Y-%m-%dT%H:%M:%S"),
        },
    }
    _save_cell(folder, cell, bench, source, task, tuned.values, record, test, predicted)
    return record


def _save_cell(
    folder: Path,
    cell: Cell,
    bench: Bench,
    source: Source,
    task: Task,
    values: Params,
    record: Record,
    test: Sequence[Row],
    predicted: Sequence[Sequence[str]],
) -> None:
    light = {name: value for name, value in values.items() if not name.startswith("backbone.")}
    provenance: dict[str, Any] = {"kind": "tuned", "seed": source.priming_seed, "cell": record["cell"]}
    used = {
        "attention": record["config"]["encoder"]["attention"],
        "sites": source.encoder.layout.model_dump(mode="json"),
    }
    provenance["config"] = {"encoder": used}  # as the encoder was read here, so must it be for predicting
    with written_aside(folder) as aside:
        encoder, weights = source.encoder.name, source.encoder.weights
        if METHODS[cell.method].moves_backbone:
            encoder = str(aside / "encoder")
            tuned = _tuned_encoder(source.encoder, values)
            save_encoder(tuned, source.encoder.tokenizer, Path(encoder))
            weights = weights_hash(dict(tuned.state_dict()))
        provenance["encoder_weights"] = weights
        save_artifact(aside, Artifact(bench.method, task.labels, light, encoder, provenance))
        with (aside / "predictions.jsonl").open("w", encoding="utf-8") as lines:
            for row, tags in zip(test, predicted, strict=True):
                words, gold = list(row.sentence.words), list(row.sentence.tags)
                lines.write(
                    json.dumps({"words": words, "gold": gold, "predicted": list(tags)}, ensure_ascii=False) + "\n"
                )
        write_json(aside / RECORD, record)


def _tuned_encoder(encoder: Encoder, values: Params) -> PreTrainedModel:
    """A copy with the tuned theta: the bench's own is where the next cell starts."""
    module = copy.deepcopy(encoder.module)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(values[f"backbone.{name}"])
    return module


def _label(config: Config) -> str:
    """A folder name for the encoder: `primed`, `base`, or the last part of a path or hub id."""
    return config.transfer.encoder.rstrip("/").split("/")[-1] or "encoder"


def _digest(config: Config, source: Source) -> str:
    """What a record depends on: data, method, transfer settings and the encoder's weights; not which cells were asked."""
    settings = config.transfer.model_copy(update=dict.fromkeys(ASKED, ()))
    lists: dict[str, Any] = {"languages": (), "target_languages": ()}
    data = config.data.model_copy(update=lists)
    part = config.model_copy(update={"transfer": settings, "data": data})
    return f"{part.digest('data', 'peft', 'transfer')}-{source.encoder.weights[:12]}"


def _relevant(values: dict[str, Any]) -> dict[str, Any]:
    """Of a config as JSON, what a record depends on."""
    kept = {section: dict(values[section]) for section in ("data", "peft", "transfer")}
    for section, key in (("data", "languages"), ("data", "target_languages"), *(("transfer", key) for key in ASKED)):
        kept[section].pop(key, None)
    return kept


def _facts(config: Config, source: Source, language: str, train: list[Row], test: list[Row]) -> Facts:
    return {
        "config": _relevant(config.model_dump(mode="json")),
        "versions": versions(),
        "weights": {"the encoder": source.encoder.weights[:12]},
        "sentences": {f"{language} (training)": fingerprint(train), f"{language} (scored)": fingerprint(test)},
    }


def _done(folder: Path, facts: Facts, force: bool) -> bool:
    """Whether the cell has a record, made as it would be made now."""
    if not folder.exists():
        return False
    record = read_record(folder / RECORD)
    try:
        before = {**record, "config": _relevant(record["config"])}
        before["weights"] = {"the encoder": record["digest"].rpartition("-")[2]}
    except (KeyError, TypeError, AttributeError) as error:
        raise MetaprimeError(
            f"record {folder / RECORD} is damaged ({error}): remove {folder}, or use --overwrite"
        ) from None
    different = changes(before, facts)
    if different and not force:
        raise MetaprimeError(
            "\n".join(
                [
                    f"{folder} holds a transfer with other settings, sentences, versions or another encoder: choose another "
                    "run.output, replace it with --overwrite, or keep it as it is with --force",
                    *different,
                ]
            )
        )
    for line in different:
        log.warning("keeping %s although it was made with something else: %s", folder, line)
    return True


def _known_rates(root: Path, cells: Sequence[Cell], todo: Sequence[Cell]) -> dict[tuple[str, int], float]:
    """Rates that cells which are done were given: they need not be chosen again."""
    left = set(todo)
    done = [cell for cell in cells if cell not in left]
    return {(cell.method, cell.shots): read_record(root / cell.folder / RECORD)["training"]["lr"] for cell in done}
