"""Writes what a transfer leaves, knows what that depends on, and finds what is there already.

A cell has a folder `<run.output>/transfer/<encoder>/<language>-<method>-kK-sSEED/` with `record.json`, `predictions.jsonl`,
and adapter and head as `runs/artifact.py` writes them.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from metaprime.build.data import Split
from metaprime.config.older import addressed, upgraded
from metaprime.data.rows import Row
from metaprime.files import write_json, written_aside
from metaprime.models.encoder import Encoder, save_encoder, weights_hash
from metaprime.runs.artifact import Artifact, save_artifact
from metaprime.runs.provenance import Provenance, changes, fingerprint, versions
from metaprime.runs.records import PREDICTIONS, RECORD, Record, read_record
from metaprime.tasks.task import Scores
from metaprime.transfers.evaluate import evaluate
from metaprime.transfers.finetune import FineTuned
from metaprime.transfers.stability import leave_one_out
from metaprime.transfers.start import KShotRun, Source, TransferContext
from metaprime.types import MetaprimeError, Params, strip_prefix, trainable

SECTIONS = ("data", "task", "peft", "transfer")
"""Sections of the config that a record depends on."""

ASKED = (
    ("data", "languages"),
    ("data", "target_languages"),
    *(("transfer", key) for key in ("methods", "shots", "seeds", "encoder")),
)
"""Keys in them that select cells, or say where the encoder is. No record depends on these: hashes of weights identify
encoder, adapter and head, and a record names the cells that it was trained beside."""

READ_BY = ("attention", "precision", "sites")
"""Keys of the section `encoder` that say how an encoder is read, whichever it is."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """One transfer: what makes it different from its neighbours. `method` is a label, such as `lora-rank4`."""

    language: str
    method: str
    shots: int
    seed: int

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"{self.language}-{self.method}-k{self.shots}-s{self.seed}"


def encoder_label(name: str) -> str:
    """Returns a folder name for `transfer.encoder`: `primed`, `base`, or the last part of a path or hub id."""
    return name.rstrip("/").split("/")[-1] or "encoder"


@dataclass(frozen=True)
class Finished:
    """A fine-tuned cell that is not recorded yet.

    Attributes:
        cell: which one.
        run: the sentences that it was trained on.
        tuned: what training came to.
        lr: its peak learning rate.
        beside: folders of the cells that shared its passes, on which its last bits depend.
    """

    cell: Cell
    run: KShotRun
    tuned: FineTuned
    lr: float
    beside: tuple[str, ...]


@dataclass(frozen=True)
class Recorder:
    """What the records of one command share.

    Attributes:
        root: folder of the cells' folders.
        encoder: label of the encoder.
        source: the encoder, and its primed adapter and head.
        configs: the config of each method's cells as JSON, by method label; its section `peft` is the method's.
        splits: rows by language, whose words and gold answers are the same for all methods.
        primed: hashes of the primed weights that fine-tuning starts from, by group; empty for a fresh start.
    """

    root: Path
    encoder: str
    source: Source
    configs: Mapping[str, dict[str, Any]]
    splits: Mapping[str, Split]
    primed: Mapping[str, str]

    def folder(self, cell: Cell) -> Path:
        """Returns the folder of a cell, there or not."""
        return self.root / cell.folder

    @property
    def weights(self) -> dict[str, str]:
        """Hashes of all weights that fine-tuning starts from."""
        return {"the encoder": self.source.encoder.weights[:12], **self.primed}

    def provenance(self, cell: Cell) -> Provenance:
        """Returns what a cell's record depends on."""
        split = self.splits[cell.language]
        return Provenance(
            config=relevant(self.configs[cell.method]),
            versions=versions(),
            weights=self.weights,
            sentences={
                f"{cell.language} (training)": fingerprint(split.train),
                f"{cell.language} (scored)": fingerprint(split.scored),
            },
        )

    def digest(self, method: str) -> str:
        """Names what a method's records depend on: data, settings and weights, and not which cells were asked for."""
        depends = {"config": relevant(addressed(self.configs[method])), "weights": self.weights}
        text = json.dumps(depends, sort_keys=True)
        return f"{hashlib.sha256(text.encode()).hexdigest()[:12]}-{self.source.encoder.weights[:12]}"

    def is_done(self, cell: Cell, force: bool) -> bool:
        """Tells if a cell has a record that is as it would be now.

        Raises:
            MetaprimeError: the record is damaged; or something differs, and `force` is not set.
        """
        folder = self.folder(cell)
        if not folder.exists():
            return False
        different = changes(_recorded(folder), self.provenance(cell))
        if different and not force:
            raise MetaprimeError(
                "\n".join(
                    [
                        f"{folder} holds a transfer with other settings, sentences, versions or another encoder: choose "
                        "another run.output, replace it with --overwrite, or keep it as it is with --force",
                        *different,
                    ]
                )
            )
        for line in different:
            log.warning("keeping %s although it was made with something else: %s", folder, line)
        return True

    def read(self, cell: Cell) -> Record:
        """Reads a cell's record."""
        return read_record(self.folder(cell) / RECORD)

    def save(self, context: TransferContext, finished: Finished, frozen: str, scored: Sequence[Row]) -> Record:
        """Scores a fine-tuned cell and saves it with its record.

        Args:
            context: what it was fine-tuned with.
            finished: the cell.
            frozen: hash of theta before any fine-tuning.
            scored: rows of the test split.

        Raises:
            MetaprimeError: theta changed although the method freezes it.
        """
        began = time.perf_counter()
        cell, tuned = finished.cell, finished.tuned
        stability: Record = {}
        if context.settings.leave_out:
            stability["stability"] = leave_one_out(context, finished.run, finished.lr, tuned.values)
        values = {**context.backbone, **tuned.values}
        scores, predicted = evaluate(context.model, context.task, values, scored)
        after = weights_hash({name: values[name] for name in context.backbone})
        if after != frozen and not context.moves_backbone:
            raise MetaprimeError(f"{cell.folder}: theta changed although {cell.method} freezes it; please report this")
        record = {
            **self._about(finished, scores),
            "parameters": _parameters(context, tuned.values),
            **stability,
            "frozen": {"before": frozen, "after": after, "unchanged": after == frozen},
            **self._depends(context, cell),
            "volatile": {
                "seconds": tuned.seconds + time.perf_counter() - began,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "written": time.strftime("%Y-%m-%dT%H:%M:%S"),
            },
        }
        to_json = context.task.kind.to_json
        lines = [to_json(row.example, answer) for row, answer in zip(scored, predicted, strict=True)]
        self._write(context, finished, record, lines)
        return record

    def _about(self, finished: Finished, scores: Scores) -> Record:
        """Returns which cell it is, what it scores and how it was trained."""
        cell, tuned = finished.cell, finished.tuned
        return {
            "cell": {
                "encoder": self.encoder,
                "language": cell.language,
                "method": cell.method,
                "shots": cell.shots,
                "priming_seed": self.source.priming_seed,
                "transfer_seed": cell.seed,
            },
            "scores": scores.details,
            "training": {
                "steps": tuned.steps,
                "lr": finished.lr,
                "sentences": cell.shots,
                "beside": list(finished.beside),
                "last_loss": tuned.losses[-1],
                "flops": tuned.flops,
            },
        }

    def _depends(self, context: TransferContext, cell: Cell) -> Record:
        """Returns what the record depends on, as the next command compares it."""
        provenance = self.provenance(cell)
        return {
            "digest": self.digest(cell.method),
            "weights": provenance.weights,
            "sentences": provenance.sentences,
            "peft": context.method.model_dump(mode="json"),
            "config": self.configs[cell.method],
            "versions": provenance.versions,
        }

    def _write(
        self, context: TransferContext, finished: Finished, record: Record, lines: Sequence[dict[str, Any]]
    ) -> None:
        """Writes record, predictions, adapter and head to the cell's folder, all or nothing."""
        with torch.no_grad():
            method, phi = context.model.adapter.collapse(strip_prefix("adapter", finished.tuned.values))
        light = {f"adapter.{name}": value for name, value in phi.items()}
        light |= {name: value for name, value in finished.tuned.values.items() if name.startswith("head.")}
        # As the encoder was read here, so must it be for predicting.
        used = {key: record["config"]["encoder"][key] for key in ("attention", "precision")}
        used["sites"] = self.source.encoder.layout.model_dump(mode="json")
        provenance: dict[str, Any] = {
            "kind": "tuned",
            "seed": self.source.priming_seed,
            "cell": record["cell"],
            "config": {"encoder": used},
        }
        with written_aside(self.folder(finished.cell)) as aside:
            encoder, weights = self.source.encoder.name, self.source.encoder.weights
            if context.moves_backbone:
                encoder = str(aside / "encoder")
                tuned = _tuned_encoder(self.source.encoder, finished.tuned.values)
                save_encoder(tuned, self.source.encoder.tokenizer, Path(encoder))
                weights = weights_hash(dict(tuned.state_dict()))
            provenance["encoder_weights"] = weights
            task = context.task
            save_artifact(aside, Artifact(method, task.config, task.labels, light, encoder, provenance))
            with (aside / PREDICTIONS).open("w", encoding="utf-8") as file:
                for line in lines:
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
            write_json(aside / RECORD, record)


def relevant(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a record depends on, out of a config as JSON."""
    kept = {name: dict(config[name]) for name in SECTIONS if name in config}
    for section, key in ASKED:
        kept[section].pop(key, None)
    kept["encoder"] = {key: config["encoder"].get(key) for key in READ_BY}
    return kept


def primed_hashes(source: Source, groups: Sequence[str]) -> dict[str, str]:
    """Returns hashes of the primed adapter, head or both, by what a message calls them."""
    hashes = {}
    for group in groups:
        values = {name: value for name, value in source.primed.items() if name.startswith(f"{group}.")}
        hashes[f"the primed {group}"] = weights_hash(values)[:12]
    return hashes


def known_rates(recorder: Recorder, done: Sequence[Cell]) -> dict[tuple[str, int], float]:
    """Returns the rates of cells that are done, by method label and K: these need not be chosen again."""
    return {(cell.method, cell.shots): recorder.read(cell)["training"]["lr"] for cell in done}


def _recorded(folder: Path) -> dict[str, Any]:
    """Reads what the record in a folder depends on."""
    record = read_record(folder / RECORD)
    try:
        config = relevant(upgraded(record["config"]))
        return {**record, "config": config, "weights": dict(record["weights"])}
    except (KeyError, TypeError, AttributeError) as error:
        raise MetaprimeError(
            f"record {folder / RECORD} is damaged ({error}): remove {folder}, or use --overwrite"
        ) from None


def _parameters(context: TransferContext, tuned: Params) -> dict[str, int]:
    """Counts what was trained, what needs to be stored, and what they are small beside."""
    heads = sum(value.numel() for name, value in tuned.items() if name.startswith("head."))
    moved = sum(value.numel() for name, value in tuned.items() if name.startswith("backbone."))
    with torch.no_grad():
        _, phi = context.model.adapter.collapse(strip_prefix("adapter", tuned))
    return {
        "adapter": sum(value.numel() for name, value in trainable(tuned).items() if not name.startswith("head.")),
        "stored": moved + sum(value.numel() for value in trainable(phi).values()),
        "head": heads,
        "encoder": sum(value.numel() for value in context.backbone.values()),
    }


def _tuned_encoder(encoder: Encoder, values: Params) -> PreTrainedModel:
    """Returns a copy of the encoder with the tuned theta; the context's own is where the next cell starts."""
    module = copy.deepcopy(encoder.module)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(values[f"backbone.{name}"])
    return module
