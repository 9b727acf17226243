"""Saves the record, predictions and weights of each transfer, and finds those that exist already.

The folder of a cell, `<run.output>/transfer/<encoder>/<language>-<method>-kK-sSEED/`, holds
`record.json`, `predictions.jsonl`, and adapter and head as `runs/artifact.py` writes them.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from metaprime.build.data import Split
from metaprime.config.older import addressed, completed, upgraded
from metaprime.data.rows import Row
from metaprime.files import write_json, written_aside
from metaprime.models.encoder import Encoder, save_encoder, weights_hash
from metaprime.runs.artifact import Artifact, save_artifact
from metaprime.runs.provenance import Provenance, changes, fingerprint, made_here, versions
from metaprime.runs.records import PREDICTIONS, RECORD, Cell, Record, read_record
from metaprime.tasks.task import Scores, TaskKind
from metaprime.transfers.evaluate import evaluate
from metaprime.transfers.finetune import FineTuned
from metaprime.transfers.stability import leave_one_out
from metaprime.transfers.start import KShotRun, Source, TransferContext
from metaprime.types import MetaprimeError, Params, strip_prefix, trainable

SECTIONS = ("data", "task", "peft", "transfer")
"""Sections of the config on which a record depends."""

ASKED = (
    ("data", "languages"),
    ("data", "target_languages"),
    *(("transfer", key) for key in ("methods", "shots", "seeds", "encoder")),
)
"""Keys of these sections that select cells or the path of the encoder. They are excluded from
digests: hashes identify encoder, adapter and head, and a record lists the cells of its passes."""

READ_BY = ("attention", "precision", "sites", "spacing")
"""Keys of the section `encoder` on which a record depends: how any encoder is loaded."""

log = logging.getLogger(__name__)


def encoder_label(name: str) -> str:
    """Returns the folder name for `transfer.encoder`: `encoder_label("org/name")` is `"name"`."""
    return name.rstrip("/").split("/")[-1] or "encoder"


@dataclass(frozen=True)
class Finished:
    """A fine-tuned cell before it is scored and saved.

    Attributes:
        cell: its address.
        run: its sentences and start.
        tuned: result of the fine-tuning.
        lr: peak learning rate.
        beside: folders of the cells that shared its passes, which influence its last bits.
    """

    cell: Cell
    run: KShotRun
    tuned: FineTuned
    lr: float
    beside: tuple[str, ...]


@dataclass(frozen=True)
class Recorder:
    """Reads and writes the records of one command.

    Attributes:
        root: folder that holds the folders of the cells.
        encoder: label of the encoder (`encoder_label`).
        source: the encoder with its primed adapter and head.
        configs: method label -> config as JSON; its section `peft` is that method's.
        splits: language -> rows, whose words and gold answers are equal for all methods.
        primed: `the primed adapter` or `the primed head` -> hash, for a primed start.
    """

    root: Path
    encoder: str
    source: Source
    configs: Mapping[str, dict[str, Any]]
    splits: Mapping[str, Split]
    primed: Mapping[str, str]

    def folder(self, cell: Cell) -> Path:
        """Returns the path of a cell's folder, which need not exist."""
        return self.root / cell.folder

    @property
    def weights(self) -> dict[str, str]:
        """Map from the encoder, primed adapter and primed head to hashes of their weights."""
        return {"the encoder": self.source.encoder.weights[:12], **self.primed}

    def provenance(self, cell: Cell) -> Provenance:
        """Returns config, versions, weights and sentences, on which a cell's record depends."""
        split = self.splits[cell.language]
        # Nothing is trained on for K = 0: its record stays valid whatever the training split holds.
        training = {f"{cell.language} (training)": fingerprint(split.train)} if cell.shots else {}
        return Provenance(
            config=relevant(self.configs[cell.method]),
            versions=versions(),
            weights=self.weights,
            sentences={**training, f"{cell.language} (scored)": fingerprint(split.scored)},
        )

    def digest(self, method: str) -> str:
        """Returns a hash of the settings and weights on which all records of a method depend."""
        depends = {"config": addressed(relevant(self.configs[method])), "weights": self.weights}
        text = json.dumps(depends, sort_keys=True)
        return f"{hashlib.sha256(text.encode()).hexdigest()[:12]}-{self.source.encoder.weights[:12]}"

    def is_done(self, cell: Cell, force: bool) -> bool:
        """Returns True if a cell has a record of these settings, sentences, weights and versions.

        Args:
            cell: the cell.
            force: whether to accept a record with differences, which are logged.

        Raises:
            MetaprimeError: the record is damaged; or it differs, and `force` is not set.
        """
        folder = self.folder(cell)
        if not folder.exists():
            return False
        differences = changes(_recorded(folder), self.provenance(cell))
        if differences and not force:
            raise MetaprimeError(
                "\n".join(
                    [
                        f"{folder} holds a transfer with other settings, sentences, versions or another encoder: choose "
                        "another run.output, replace it with --overwrite, or keep it as it is with --force",
                        *differences,
                    ]
                )
            )
        for line in differences:
            log.warning("keeping %s, which was made with different inputs: %s", folder, line)
        return True

    def read(self, cell: Cell) -> Record:
        """Returns the record of a finished cell.

        Raises:
            MetaprimeError: the record is missing or damaged.
        """
        return read_record(self.folder(cell) / RECORD)

    def save(self, context: TransferContext, finished: Finished, frozen: str, scored: Sequence[Row]) -> Record:
        """Scores a fine-tuned cell, saves it, and returns its record.

        Args:
            context: model, loss and settings of the fine-tuning.
            finished: the fine-tuned cell.
            frozen: hash of theta before fine-tuning.
            scored: rows of the test split.

        Raises:
            MetaprimeError: theta changed although the method freezes it.
        """
        # Measure the stability, score, and verify that theta is unchanged.
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

        # Assemble the record and write the folder.
        record = {
            **self._about(finished, scores),
            "parameters": _parameters(context, tuned.values),
            **stability,
            "frozen": {"before": frozen, "after": after, "unchanged": after == frozen},
            **self._depends(context, cell),
            "volatile": {
                "seconds": tuned.seconds + time.perf_counter() - began,
                **made_here(),
                "batches": context.model.batches,
            },
        }
        to_json = context.task.kind.to_json
        lines = [to_json(row.example, answer) for row, answer in zip(scored, predicted, strict=True)]
        self._write(context, finished, record, lines)
        _say_silence(context.task.kind, cell, lines)
        return record

    def _about(self, finished: Finished, scores: Scores) -> Record:
        """Returns the record's blocks `cell`, `scores` and `training`."""
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
                "last_loss": tuned.losses[-1] if tuned.losses else None,
                "flops": tuned.flops,
            },
        }

    def _depends(self, context: TransferContext, cell: Cell) -> Record:
        """Returns the record's blocks that the next command compares with its own inputs."""
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
        """Writes record, predictions, adapter and head to the cell's folder atomically."""
        # Collapse the adapter to the values that prediction needs.
        with torch.no_grad():
            method, phi = context.model.adapter.collapse(strip_prefix("adapter", finished.tuned.values))
        light = {f"adapter.{name}": value for name, value in phi.items()}
        light |= {name: value for name, value in finished.tuned.values.items() if name.startswith("head.")}

        # Prediction must load the encoder with the same attention, precision, spacing, layers and sites.
        used = {key: record["config"]["encoder"][key] for key in ("attention", "precision", "spacing", "layer")}
        used["sites"] = self.source.encoder.layout.model_dump(mode="json")
        provenance: dict[str, Any] = {
            "kind": "tuned",
            "seed": self.source.priming_seed,
            "cell": record["cell"],
            "config": {"encoder": used},
        }

        # Write the folder, with the encoder if it was trained.
        with written_aside(self.folder(finished.cell)) as aside:
            encoder, weights = self.source.encoder.name, self.source.encoder.weights
            if context.moves_backbone:
                encoder = str(aside / "encoder")
                tuned = _tuned_encoder(self.source.encoder, finished.tuned.values)
                save_encoder(tuned, self.source.encoder.tokenizer, Path(encoder), context.task.labels)
                weights = weights_hash(dict(tuned.state_dict()))
            provenance["encoder_weights"] = weights
            task, settings = context.task, context.task.config.for_language(finished.cell.language)
            scale = context.model.scale
            save_artifact(aside, Artifact(method, settings, task.labels, light, encoder, provenance, scale))
            with (aside / PREDICTIONS).open("w", encoding="utf-8") as file:
                for line in lines:
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
            write_json(aside / RECORD, record)


def _say_silence(kind: TaskKind, cell: Cell, lines: Sequence[Mapping[str, Any]]) -> None:
    """Logs that a fine-tuned model predicts nothing in any test example, where the task can tell."""
    if kind.errors is None:
        return
    totals = [sum(column) for column in zip(*map(kind.errors.of_example, lines), strict=True)]
    if kind.errors.nothing_predicted(totals):
        log.warning(
            "%s predicts none of the %d %s of its %d test examples: raise transfer.lr (and transfer.head_lr) or "
            "transfer.steps, or look at the training sentences with `metaprime data check`",
            cell.folder,
            sum(totals),
            kind.errors.unit,
            len(lines),
        )


def relevant(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a config as JSON on which a record depends.

    Example: `relevant(config.model_dump(mode="json"))["transfer"]` has no key `seeds`.
    """
    kept = {name: dict(config[name]) for name in SECTIONS if name in config}
    for section, key in ASKED:
        kept[section].pop(key, None)
    kept["encoder"] = {key: config["encoder"].get(key) for key in READ_BY}
    return kept


def primed_hashes(source: Source, groups: Sequence[str]) -> dict[str, str]:
    """Returns hashes of primed groups: `primed_hashes(source, ["head"])["the primed head"]`."""
    hashes = {}
    for group in groups:
        values = {name: value for name, value in source.primed.items() if name.startswith(f"{group}.")}
        hashes[f"the primed {group}"] = weights_hash(values)[:12]
    return hashes


def known_rates(recorder: Recorder, done: Sequence[Cell]) -> dict[tuple[str, int], float]:
    """Returns (method label, K) -> learning rate, as the finished cells have it."""
    return {(cell.method, cell.shots): recorder.read(cell)["training"]["lr"] for cell in done}


def _recorded(folder: Path) -> dict[str, Any]:
    """Returns the record in a folder with the relevant part of its config, for comparison.

    Raises:
        MetaprimeError: the record is damaged.
    """
    record = read_record(folder / RECORD)
    try:
        config = relevant(completed(upgraded(record["config"])))
        return {**record, "config": config, "weights": dict(record["weights"])}
    except (KeyError, TypeError, AttributeError) as error:
        raise MetaprimeError(
            f"record {folder / RECORD} is damaged ({error}): remove {folder}, or use --overwrite"
        ) from None


def _parameters(context: TransferContext, tuned: Params) -> dict[str, int]:
    """Returns the numbers of trained, stored, head and encoder parameters."""
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
    """Returns a copy of the encoder with trained theta; the original is the next cell's start."""
    module = copy.deepcopy(encoder.module)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(values[f"backbone.{name}"])
    return module
