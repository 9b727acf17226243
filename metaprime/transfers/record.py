"""What a transfer leaves, what that depends on, and whether it is there already."""

from __future__ import annotations

import copy
import hashlib
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
from transformers import PreTrainedModel

from metaprime.config.sections import Config
from metaprime.data.episodes import sample
from metaprime.data.rows import Row
from metaprime.files import write_json, written_aside
from metaprime.models.encoder import Encoder, save_encoder, weights_hash
from metaprime.nn import Adapter
from metaprime.peft import METHODS, MethodConfig
from metaprime.runs.artifact import Artifact, save_artifact
from metaprime.runs.provenance import Facts, changes, fingerprint, versions
from metaprime.runs.records import Record, read_record
from metaprime.tasks.task import Task
from metaprime.transfers.evaluate import evaluate
from metaprime.transfers.finetune import FineTuned
from metaprime.transfers.stability import LeavingOut
from metaprime.transfers.start import Bench, Source
from metaprime.types import MetaprimeError, Params, strip_prefix, trainable

RECORD = "record.json"
ASKED = ("methods", "shots", "seeds", "encoder")
"""Keys of the section `transfer` that say which cells are asked for, or where the encoder is: no record depends on them (but its
last bits on those it was trained beside, which it names), for weights say which encoder, adapter and head it is.
"""

READ_BY = ("attention", "precision", "sites")
"""Keys of the section `encoder` that say how an encoder is read, whichever it is."""

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


def label(config: Config) -> str:
    """A folder name for the encoder: `primed`, `base`, or the last part of a path or hub id."""
    return config.transfer.encoder.rstrip("/").split("/")[-1] or "encoder"


def digest_of(config: Config, source: Source) -> str:
    """What a record depends on: data, method, transfer settings and the encoder's weights; not which cells were asked."""
    depends = {"config": _relevant(config.model_dump(mode="json")), "weights": weights_of(config, source)}
    text = json.dumps(depends, sort_keys=True)
    return f"{hashlib.sha256(text.encode()).hexdigest()[:12]}-{source.encoder.weights[:12]}"


def weights_of(config: Config, source: Source) -> dict[str, str]:
    """Hashes of all weights that fine-tuning begins with: the encoder's, and the primed ones it starts from."""
    found = {"the encoder": source.encoder.weights[:12]}
    for group in ("adapter", "head"):
        if getattr(config.transfer, f"start_{group}") == "primed":
            own = {name: value for name, value in source.primed.items() if name.startswith(f"{group}.")}
            found[f"the primed {group}"] = weights_hash(own)[:12]
    return found


def _relevant(values: dict[str, Any]) -> dict[str, Any]:
    """Of a config as JSON, what a record depends on."""
    kept = {section: dict(values[section]) for section in ("data", "peft", "transfer")}
    for section, key in (("data", "languages"), ("data", "target_languages"), *(("transfer", key) for key in ASKED)):
        kept[section].pop(key, None)
    kept["encoder"] = {key: values["encoder"].get(key) for key in READ_BY}
    return kept


def facts_of(config: Config, source: Source, language: str, train: list[Row], test: list[Row]) -> Facts:
    return {
        "config": _relevant(config.model_dump(mode="json")),
        "versions": versions(),
        "weights": weights_of(config, source),
        "sentences": {f"{language} (training)": fingerprint(train), f"{language} (scored)": fingerprint(test)},
    }


def is_done(folder: Path, facts: Facts, force: bool) -> bool:
    """Whether the cell has a record, made as it would be made now."""
    if not folder.exists():
        return False
    record = read_record(folder / RECORD)
    try:
        before = {**record, "config": _relevant(record["config"])}
        before["weights"] = dict(record["weights"])
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


def known_rates(root: Path, cells: Sequence[Cell], todo: Sequence[Cell]) -> dict[tuple[str, int], float]:
    """Rates that cells which are done were given: they need not be chosen again."""
    left = set(todo)
    done = [cell for cell in cells if cell not in left]
    return {(cell.method, cell.shots): read_record(root / cell.folder / RECORD)["training"]["lr"] for cell in done}


def save_cell(
    folder: Path,
    cell: Cell,
    method: MethodConfig,
    adapter: Adapter,
    source: Source,
    task: Task,
    values: Params,
    record: Record,
    test: Sequence[Row],
    predicted: Sequence[Sequence[str]],
) -> None:
    with torch.no_grad():
        method, phi = adapter.collapse(strip_prefix("adapter", values))
    light = {f"adapter.{name}": value for name, value in phi.items()}
    light |= {name: value for name, value in values.items() if name.startswith("head.")}
    provenance: dict[str, Any] = {"kind": "tuned", "seed": source.priming_seed, "cell": record["cell"]}
    used = {
        "attention": record["config"]["encoder"]["attention"],
        "precision": record["config"]["encoder"]["precision"],
        "sites": source.encoder.layout.model_dump(mode="json"),
    }
    provenance["config"] = {"encoder": used}  # as the encoder was read here, so must it be for predicting
    with written_aside(folder) as aside:
        encoder, weights = source.encoder.name, source.encoder.weights
        if METHODS[method.method].moves_backbone:
            encoder = str(aside / "encoder")
            tuned = _tuned_encoder(source.encoder, values)
            save_encoder(tuned, source.encoder.tokenizer, Path(encoder))
            weights = weights_hash(dict(tuned.state_dict()))
        provenance["encoder_weights"] = weights
        save_artifact(aside, Artifact(method, task.labels, light, encoder, provenance))
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


@torch.no_grad()
def _stored(bench: Bench, values: Params) -> int:
    """Parameters of the change that fine-tuning left, the head apart: of a sparse one fewer than were trained."""
    moved = sum(value.numel() for name, value in values.items() if name.startswith("backbone."))
    _, phi = bench.model.adapter.collapse(strip_prefix("adapter", values))
    return moved + sum(value.numel() for value in trainable(phi).values())


def finish(
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
                value.numel() for name, value in trainable(tuned.values).items() if not name.startswith("head.")
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
