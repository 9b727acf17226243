"""Measures `metaprime transfer` beside the scripts that a user would write instead.

    python benchmarks/bench_peers.py [--rounds 5] [--adapterhub ENV/bin/python] [--dropout both] [key=value ...]

The scripts are `trainer_peft.py`, transformers' Trainer over LoRA of Hugging Face's peft, and
`trainer_adapterhub.py`, AdapterHub's AdapterTrainer over a Pfeiffer adapter, in the environment that
`make adapterhub` makes. Both fine-tune and score the cells (language x seed) of one `metaprime
transfer`: the same encoder, sentences, steps, batch size, rates, float32 and one thread. Each side is
a new process in each round, and the sides take turns. A script runs twice a round, unless `--dropout`
says otherwise: with the encoder's dropout in training, as it does by itself, and without it, as
metaprime trains.

`key=value` are keys of metaprime's config over those below, such as `transfer.encoder=DIR`. Writes
benchmarks/results/bench_peers.json and .md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from meta_step import RESULTS
from problem import Size
from processes import COMMAND, Measured, Program, run_measured
from timing import machine, quartiles, without_folders

from metaprime.build.pretrain import pretrain
from metaprime.config.loading import load_config
from metaprime.config.sections import Config, PretrainConfig
from metaprime.data.episodes import sample
from metaprime.data.rows import Example
from metaprime.peft import MethodConfig
from metaprime.peft.settings import LoraConfig, PfeifferConfig
from metaprime.reports.wording import markdown
from metaprime.runs.folder import TRANSFERS
from metaprime.tasks.tagging.labels import LabelSet
from metaprime.transfers.record import encoder_label
from metaprime.transfers.start import open_source
from metaprime.transfers.transfer import Inputs, read_inputs

HERE = Path(__file__).parent
EMBEDDED = "an embedded encoder of {layers} layers x {hidden} that has learned nothing, so that F1 means nothing"
DEFAULTS = (
    "data.target_languages=[qai,qao,qat]",
    "data.validation_languages=[]",
    "data.languages=[]",
    # What does not fit is cut by both sides.
    "data.long=truncate",
    "transfer.seeds=[0,1]",
    # A multiple of the batch, so that Trainer has no smaller batch at the end of an epoch.
    "transfer.shots=48",
    "transfer.steps=40",
    "transfer.batch=16",
    "transfer.lr=3e-3",
    "transfer.test_sentences=200",
)
"""Keys of metaprime's config, in which those of the command line come later."""

METHODS = (LoraConfig(rank=8, alpha=16.0), PfeifferConfig(bottleneck=48))
TRANSFER = replace(COMMAND, imports=f"import metaprime.transfers.transfer; {COMMAND.imports}")
PEFT = Program("import trainer_peft", "trainer_peft.main()")
ADAPTERHUB = Program("import trainer_adapterhub", "trainer_adapterhub.main()")
SIDES = (
    "Every side is a new process with empty caches, and all cells are one process. The scripts are given the K sentences "
    "of each cell; metaprime reads whole training splits and draws them. Without dropout a script trains as metaprime "
    "does, with the encoder's dropout off. F1 may differ by what each side does by itself: the order of sentences, the draws "
    "of adapter and head, Trainer's first step at a rate of zero, and the head's input, which metaprime divides by the size "
    "of the encoder's hidden states.\n"
)
VERSIONS = "import importlib.metadata as m; print(*(f'{name} {m.version(name)}' for name in %r), sep=', ')"


@dataclass(frozen=True)
class Side:
    """One program whose cost is measured.

    Attributes:
        name: in tables.
        program: what runs.
        method: of its adapter.
        dropout: whether the encoder's dropout is on; None for metaprime itself, where it never is.
    """

    name: str
    program: Program
    method: MethodConfig
    dropout: bool | None = None

    @property
    def ours(self) -> bool:
        """True for metaprime."""
        return self.dropout is None


@dataclass(frozen=True)
class Work:
    """What all sides do.

    Attributes:
        overrides: keys of metaprime's config as `key=value`.
        config: the config that they give.
        sentences: folder of the sentences for the scripts.
        cells: (language, seed) of each fine-tuning.
    """

    overrides: Sequence[str]
    config: Config
    sentences: Path
    cells: Sequence[tuple[str, int]]


def sides(adapterhub: str | None, dropout: str = "both") -> list[Side]:
    """Returns the sides, those of AdapterHub only if there is an interpreter that has it.

    Args:
        adapterhub: the interpreter.
        dropout: `on`, `off` or `both`: how the scripts train.
    """
    lora, pfeiffer = METHODS
    # Absolute, but no link followed: an environment's interpreter is a link.
    theirs = replace(ADAPTERHUB, python=str(Path(adapterhub or "").absolute()))
    peers = [("Trainer and peft, LoRA", PEFT, lora), ("AdapterTrainer, Pfeiffer adapter", theirs, pfeiffer)]
    found = []
    for name, program, method in peers if adapterhub else peers[:1]:
        found.append(Side(f"metaprime, {name.rpartition(', ')[2]}", TRANSFER, method))
        found += [Side(name, program, method, True)] if dropout != "off" else []
        found += [Side(f"{name}, no dropout", program, method, False)] if dropout != "on" else []
    return found


def prepare(overrides: Sequence[str], folder: Path) -> Work:
    """Writes the sentences of all cells, those that metaprime draws, for the scripts.

    Args:
        overrides: keys of metaprime's config as `key=value`, over DEFAULTS.
        folder: an empty folder; without `transfer.encoder` the encoder is written there too.
    """
    given = [*DEFAULTS, f"transfer.encoder={folder / 'encoder'}", *overrides]
    config = load_config(None, given)
    if config.transfer.encoder == str(folder / "encoder"):
        shape = PretrainConfig(**asdict(Size()), steps=2, threads=1)
        pretrain(shape, "synthetic:", folder / "encoder", lambda *_: None)
    refuse_what_scripts_cannot(config)
    settings = config.transfer.model_copy(update={"methods": METHODS})
    config = config.model_copy(update={"transfer": settings})
    inputs = read_inputs(config, open_source(config.encoder, settings, folder))
    cells = write_sentences(inputs, folder / "sentences")
    return Work(given, config, folder / "sentences", cells)


def refuse_what_scripts_cannot(config: Config) -> None:
    """Ends the benchmark if a key asks metaprime for something that the scripts do not do."""
    settings, section = config.transfer, config.task.model_dump()
    single = {"transfer.shots": settings.shots, "transfer.lr": settings.lr or ()}
    wrong = [f"{key} must have one value" for key, values in single.items() if len(values) != 1]
    fixed = {
        "transfer.method_lr": (settings.method_lr, None),
        "transfer.head_lr": (settings.head_lr, None),
        "transfer.stop": (settings.stop, "fixed"),
        "transfer.weight_decay": (settings.weight_decay, 0.0),
        "transfer.leave_out": (settings.leave_out, 0),
        "data.long": (config.data.long, "truncate"),
        "task.name": (section["name"], "tagging"),
        "encoder.precision": (config.encoder.precision, "float32"),
        "encoder.layer": (config.encoder.layer, None),
        "run.threads": (config.run.threads, 1),
    }
    wrong += [f"{key} must be {only!r}" for key, (value, only) in fixed.items() if value != only]
    if wrong:
        raise SystemExit(f"the scripts beside metaprime do no other: {'; '.join(wrong)}")


def write_sentences(inputs: Inputs, folder: Path) -> list[tuple[str, int]]:
    """Writes the training sentences of each cell and the test sentences of each language; returns the cells."""
    folder.mkdir()
    (shots,) = inputs.settings.shots
    splits = next(iter(inputs.splits.values()))
    cells = [(language, seed) for language in inputs.data.target_languages for seed in inputs.settings.seeds]
    for language, seed in cells:
        rows = sample(splits[language].train, shots, seed, language)
        write_lines(folder / f"{language}-s{seed}.jsonl", [row.example for row in rows])
    for language in inputs.data.target_languages:
        write_lines(folder / f"{language}-test.jsonl", [row.example for row in splits[language].scored])
    return cells


def write_lines(file: Path, sentences: Sequence[Example]) -> None:
    """Writes tagged sentences as `datasets` reads them, one line of JSON each."""
    lines = [json.dumps({"tokens": list(one.words), "ner_tags": list(one.gold)}) for one in sentences]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def job_of(work: Work, side: Side, output: Path) -> dict[str, Any]:
    """Returns a script's work as `trainer.Job` holds it."""
    settings, (lora, pfeiffer) = work.config.transfer, METHODS
    assert settings.lr
    labels = LabelSet(work.config.task.model_dump()["labels"]).tags
    return {
        "encoder": settings.encoder,
        "cells": list(work.cells),
        "folder": str(work.sentences),
        "output": str(output),
        "labels": list(labels),
        "max_length": work.config.data.max_length,
        "steps": settings.steps,
        "batch": settings.batch,
        "lr": settings.lr[0],
        "warmup": settings.warmup,
        # Trainer does not clip at 0.
        "clip": settings.clip or 0.0,
        "dropout": bool(side.dropout),
        "rank": lora.rank,
        "alpha": lora.alpha,
        "bottleneck": pfeiffer.bottleneck,
    }


def measure(work: Work, side: Side, folder: Path) -> dict[str, Any]:
    """Runs a side once in a new process; returns its cost, and the F1 of each cell.

    Args:
        work: what is done.
        side: who does it.
        folder: an empty folder for caches and output: nothing is tokenised or read before.
    """
    output = folder / "run"
    output.mkdir(parents=True)
    environment = {
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
        "CUDA_VISIBLE_DEVICES": "",
        # Tokenizers have threads of their own.
        "RAYON_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "cache"),
        "METAPRIME_CACHE": str(folder / "cache"),
    }
    if side.ours:
        file = folder / "config.yaml"
        file.write_text("{}\n", encoding="utf-8")
        methods = f"transfer.methods=[{side.method.model_dump_json()}]"
        words = ["transfer", str(file), *work.overrides, methods, f"run.output={output}"]
    else:
        file = folder / "job.json"
        file.write_text(json.dumps(job_of(work, side, output)), encoding="utf-8")
        words = [str(file)]
    # Not in that folder: a source or an encoder may be named from here.
    cost = run_measured(side.program, words, environment=environment)
    return {**costs(cost), "f1": ours_of(work, output) if side.ours else theirs_of(output)}


def costs(cost: Measured) -> dict[str, float]:
    """Returns a cost by its columns."""
    return {"cpu": cost.cpu, "clock": cost.clock, "peak": cost.peak, "imports": cost.imports}


def ours_of(work: Work, output: Path) -> dict[str, float]:
    """Reads the F1 of each cell from metaprime's records."""
    scores = {}
    for language, seed in work.cells:
        root = output / TRANSFERS / encoder_label(work.config.transfer.encoder)
        (record,) = root.glob(f"{language}-*-s{seed}/record.json")
        found = json.loads(record.read_text(encoding="utf-8"))["scores"]
        scores[f"{language}-s{seed}"] = float(found["lenient"]["overall"]["f1"])
    return scores


def theirs_of(output: Path) -> dict[str, float]:
    """Reads the F1 of each cell from what a script wrote."""
    found: dict[str, float] = json.loads((output / "scores.json").read_text(encoding="utf-8"))
    return found


def environment_of(python: str) -> tuple[str, str]:
    """Returns the versions of an AdapterHub environment, and why it cannot be used; one of both is empty."""
    code = "import trainer_adapterhub\n" + VERSIONS % (("adapters", "transformers", "torch"),)
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, env=environment, check=False)
    except OSError as error:
        return "", f"{Path(python).name}: {error.strerror}"
    if done.returncode:
        return "", done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
    return done.stdout.strip().rpartition("\n")[2], ""


def ratios(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[str]:
    """Returns the ratios of a script to metaprime, round by round, as columns of a table."""

    def after(one: Mapping[str, Any]) -> float:
        return float(one["cpu"] - one["imports"])

    columns = [[one[key] / own[key] for one, own in pairs] for key in ("cpu", "clock", "peak")]
    return [
        str(quartiles(each)) for each in (columns[0], [after(one) / after(own) for one, own in pairs], *columns[1:])
    ]


def as_markdown(result: Mapping[str, Any], chosen: Sequence[Side]) -> str:
    """Returns the result as a page with a table of ratios and one of costs.

    Args:
        result: what `main` writes as JSON.
        chosen: the sides that were measured.
    """
    found, rows, table = result["found"], [], []
    ours = {side.method.method: side.name for side in chosen if side.ours}
    for side in chosen:
        own = found[ours[side.method.method]]
        if not side.ours:
            pairs = list(zip(found[side.name], own, strict=True))
            rows.append([side.name, *ratios(pairs), f1_of(found[side.name]), f1_of(own)])
        spread = {key: quartiles([one[key] for one in found[side.name]]) for key in ("imports", "cpu", "clock")}
        peak = quartiles([one["peak"] for one in found[side.name]])
        table.append([side.name, *map(str, spread.values()), f"{peak.middle:.0f} [{peak.low:.0f}, {peak.high:.0f}]"])
    header = ("script over metaprime", "CPU", "CPU after imports", "clock", "peak memory", "F1", "F1 of metaprime")
    costs_header = ("", "imports, CPU s", "CPU s", "clock s", "peak, MiB")
    versions = ", ".join(f"{key} {value}" for key, value in result["machine"]["versions"].items())
    there = f"; AdapterHub's environment: {result['adapterhub']}" if result["adapterhub"] else ""
    return "\n".join(
        [
            "# Beside the scripts that one would write instead\n",
            f"`{result['command']}`: {result['work']}; {result['machine']['device']}, 1 thread.\n",
            f"Median and quartiles over {len(found[chosen[0].name])} rounds; above 1 the script costs more. F1: mean "
            "and standard deviation over the cells.\n",
            markdown(header, rows),
            markdown(costs_header, table),
            *([f"AdapterHub was not measured: {result['skipped']}\n"] if result["skipped"] else []),
            SIDES,
            f"Versions: {versions}{there}.\n",
        ]
    )


def f1_of(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Returns mean and standard deviation of F1 over the cells; of each cell the mean of all rounds."""
    scores = [statistics.fmean(one["f1"][cell] for one in rounds) for cell in rounds[0]["f1"]]
    return f"{statistics.fmean(scores):.1f} ± {statistics.stdev(scores) if len(scores) > 1 else 0.0:.1f}"


def described(work: Work, given: Sequence[str]) -> str:
    """Returns what is done in words."""
    settings, data = work.config.transfer, work.config.data
    named = any(key.startswith("transfer.encoder=") for key in given)
    encoder = encoder_label(settings.encoder) if named else EMBEDDED.format(**asdict(Size()))
    assert settings.lr
    shots, batch = settings.shots[0], settings.batch
    rest = shots % batch if shots > batch else 0
    return (
        f"{', '.join(data.target_languages)} x {len(settings.seeds)} seed(s), {shots} sentences each, "
        f"{settings.steps} steps of {batch}, rate {settings.lr[0]:g}, at most {data.max_length} sub-words, "
        f"{settings.test_sentences or 'all'} test sentences; {encoder}"
        + (f"; of each epoch of Trainer the last batch has only {rest} sentences" if rest else "")
    )


def compare(work: Work, chosen: Sequence[Side], rounds: int, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Measures the sides in turn; every second round in the reverse order.

    Args:
        work: what is done.
        chosen: the sides.
        rounds: number of rounds.
        folder: an existing folder for what they write; it is left empty.
    """
    found: dict[str, list[dict[str, Any]]] = {side.name: [] for side in chosen}
    for turn in range(rounds):
        for side in chosen[:: -1 if turn % 2 else 1]:
            with tempfile.TemporaryDirectory(dir=folder) as own:
                found[side.name].append(measure(work, side, Path(own)))
            print(turn + 1, side.name, {key: found[side.name][-1][key] for key in found[side.name][-1]}, flush=True)
    return found


def main() -> None:
    """Measures all sides, writes the results and prints the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--adapterhub", default="", help="interpreter of AdapterHub's environment")
    parser.add_argument(
        "--dropout", choices=("on", "off", "both"), default="both", help="of the encoder, in the scripts"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    given = parser.parse_args()
    torch.set_num_threads(1)
    versions, skipped = environment_of(given.adapterhub) if given.adapterhub else ("", "no --adapterhub")
    if skipped:
        print(f"AdapterHub is not measured: {skipped}", flush=True)
    chosen = sides(given.adapterhub if versions else None, given.dropout)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = prepare(given.overrides, folder)
        found = compare(work, chosen, given.rounds, folder)
    facts = machine("cpu")
    facts["versions"] |= {name: importlib.metadata.version(name) for name in ("peft", "datasets")}
    result = {
        "command": " ".join(["python", *map(without_folders, sys.argv)]),
        "work": described(work, given.overrides),
        "machine": facts,
        "adapterhub": versions,
        "skipped": skipped,
        "found": found,
    }
    given.out.mkdir(exist_ok=True)
    (given.out / "bench_peers.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (given.out / "bench_peers.md").write_text(as_markdown(result, chosen), encoding="utf-8")
    print(as_markdown(result, chosen))


if __name__ == "__main__":
    main()
