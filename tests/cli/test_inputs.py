"""Every input that is missing, empty or does not fit is refused by every command that reads it, before anything is trained."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command import Run, refused

from metaprime.preflight import cost
from metaprime.priming import prime
from metaprime.suite import ablate
from metaprime.transfers import transfer

CONFIG = """
run: {output: %(place)s/run}
encoder: {name: %(encoder)s}
data:
  source: conll:%(place)s/corpus
  languages: [qaa, qaf]
  validation_languages: [qac]
  target_languages: [qai]
task: {labels: [PER]}
episodes: {per_step: 2, support: 2, query: 4}
peft: {method: pfeiffer, bottleneck: 4}
inner: {steps: 2}
outer: {steps: 2, validate_every: 2, checkpoint_every: 1}
transfer: {shots: 8, steps: 4, batch: 4, lr: [0.1, 0.3], methods: [pfeiffer, head]}
"""
SUITE = "{name: tried, base: config.yaml, seeds: 0, arms: [{name: none, priming: null}, {name: meta}]}"

PRIMING, TRANSFER, BOTH, CHAIN = "priming", "transfer", "suite", "priming, then transfer"
COMMANDS: dict[str, tuple[str, list[str]]] = {
    "prime": (PRIMING, ["prime", "config.yaml"]),
    "estimate": (PRIMING, ["estimate", "config.yaml"]),
    "validate": (CHAIN, ["validate", "config.yaml"]),
    "transfer": (TRANSFER, ["transfer", "config.yaml", "transfer.encoder=base"]),
    "ablate": (BOTH, ["ablate", "suite.yaml", "--jobs", "1"]),
    "ablate --dry-run": (BOTH, ["ablate", "suite.yaml", "--dry-run"]),
}
"""Command -> what it does, and its words."""


@dataclass(frozen=True)
class Input:
    """An input that does not do: who reads it, how it is made so, and what the message names."""

    readers: tuple[str, ...]
    words: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    damage: Callable[[Path], Any] | None = None
    except_by: tuple[str, ...] = ()


def empty(name: str) -> Callable[[Path], Any]:
    return lambda place: (place / name).write_text("", encoding="utf-8")


def gone(name: str) -> Callable[[Path], Any]:
    return lambda place: (place / name).rename(place / "elsewhere")


def foreign(name: str) -> Callable[[Path], Any]:
    def put(place: Path) -> None:
        (place / name).mkdir(parents=True)
        (place / name / "thesis.tex").write_text("years of work", encoding="utf-8")

    return put


ALL, PRIMED, TRANSFERRED = (PRIMING, TRANSFER, BOTH, CHAIN), (PRIMING, BOTH, CHAIN), (TRANSFER, BOTH, CHAIN)
INPUTS: dict[str, Input] = {
    "several rates and no held-out language": Input(
        TRANSFERRED, ("transfer.lr", "data.validation_languages"), ("data.validation_languages=[]",)
    ),
    "no language": Input(PRIMED, ("data.languages is empty", "has qaa, qac, qaf, qai"), ("data.languages=[]",)),
    "no target": Input(
        TRANSFERRED, ("data.target_languages is empty", "has qaa, qac, qaf, qai"), ("data.target_languages=[]",)
    ),
    "unknown language": Input(PRIMED, ("data.languages: ", "xx: no such language"), ("data.languages=[qaa, xx]",)),
    "unknown held-out language": Input(
        ALL, ("data.validation_languages: ", "xx: no such language"), ("data.validation_languages=[xx]",)
    ),
    "unknown target": Input(TRANSFERRED, ("data.target_languages: ", "xx"), ("data.target_languages=[xx]",)),
    "a language without a file": Input(
        PRIMED, ("data.train_split: ", "qaf/train.conll: no such split"), damage=gone("corpus/qaf/train.conll")
    ),
    "a held-out language without a file": Input(
        ALL, ("data.validation_split: ", "qac/validation.conll"), damage=gone("corpus/qac/validation.conll")
    ),
    "a target without a file": Input(
        TRANSFERRED, ("data.test_split: ", "qai/test.conll"), damage=gone("corpus/qai/test.conll")
    ),
    "unknown training split": Input(ALL, ("data.train_split: ", "trian"), ("data.train_split=trian",)),
    "an empty file": Input(PRIMED, ("qaf/train.conll", "no sentence in it"), damage=empty("corpus/qaf/train.conll")),
    "an empty file of a held-out language": Input(
        ALL, ("qac/validation.conll", "no sentence in it"), damage=empty("corpus/qac/validation.conll")
    ),
    "an empty file of a target": Input(
        TRANSFERRED, ("qai/test.conll", "no sentence in it"), damage=empty("corpus/qai/test.conll")
    ),
    "no such corpus": Input(ALL, ("data.source: ", "corpus: no such folder"), damage=gone("corpus")),
    "an unknown scheme": Input(ALL, ("data.source: ", "did you mean conll:?"), ("data.source=conl:corpus",)),
    "too few sentences for an episode": Input(PRIMED, ("'qaa'", "episodes.query"), ("episodes.query=2000",)),
    "too few sentences for K": Input(ALL, ("transfer.shots asks for 2000",), ("transfer.shots=2000",)),
    "unmapped labels": Input(ALL, ("task.labels ['LOC']", "task.label_map"), ("task.labels=[LOC]",)),
    "no labels": Input(ALL, ("task.labels is empty",), ("task.labels=[]",)),
    "no such encoder": Input(ALL, ("encoder.name", "no-such-encoder"), ("encoder.name=./no-such-encoder",)),
    "an empty folder for an encoder": Input(ALL, ("encoder.name", "corpus", "config.json"), ("encoder.name=corpus",)),
    "no room for a prompt": Input(
        ALL,
        ("peft.length 509", "positions"),
        ("peft={method: prompt, length: 509}", "transfer.methods=[{method: prompt, length: 509}]"),
    ),
    "a second method that does not fit": Input(
        TRANSFERRED,
        ("peft.config", "nowhere"),
        ("transfer.methods=[head, {method: hf, config: {peft_type: LORA, target_modules: [nowhere]}}]",),
    ),
    "a learner without an inner loop to prime for": Input(PRIMED, ("inner.steps", "at least 1"), ("inner.steps=0",)),
    "an adapter of an encoder that was not primed": Input(
        (TRANSFER, BOTH), ("transfer.start_adapter", "not primed"), ("transfer.start_adapter=primed",)
    ),
    "an adapter that priming will have drawn": Input(
        (BOTH, CHAIN),
        ("transfer.start_adapter", "outer.adapter=meta"),
        ("transfer.start_adapter=primed", "outer.adapter=reset"),
    ),
    "an output that is a file": Input(ALL, ("run.output", "is a file"), ("run.output=config.yaml/run",)),
    "an output without permission": Input(
        ALL, ("run.output", "no permission to write"), damage=lambda place: (place / "closed").mkdir()
    ),
    "no output": Input(ALL, ("run.output is not given",), ("run.output=''",)),
    "an output with other files": Input(
        (PRIMING,), ("thesis.tex", "choose another"), damage=foreign("run"), except_by=("estimate",)
    ),
    "a suite's folder with other files": Input((BOTH,), ("holds files but no suite",), damage=foreign("run/tried")),
    "an empty config": Input(ALL, ("config.yaml is empty",), damage=empty("config.yaml")),
    "no config": Input(ALL, ("config.yaml does not exist",), damage=gone("config.yaml")),
    "an empty suite": Input((BOTH,), ("suite.yaml is empty",), damage=empty("suite.yaml")),
    "no suite": Input((BOTH,), ("suite.yaml does not exist",), damage=gone("suite.yaml")),
}
PAIRS = [
    (name, command)
    for name, wrong in INPUTS.items()
    for command, (work, _) in COMMANDS.items()
    if work in wrong.readers and command not in wrong.except_by
]


@pytest.fixture
def place(tmp_path: Path, toy_bert: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a corpus, a config and a suite in which nothing is wrong; nothing may be trained from there."""
    for language in ("qaa", "qaf", "qac", "qai"):
        (tmp_path / "corpus" / language).mkdir(parents=True)
        for split in ("train", "validation", "test"):
            sentences = (f"Ada\tB-PER\nnaps\tO\n{language}{n}\tO\n" for n in range(12))
            (tmp_path / "corpus" / language / f"{split}.conll").write_text("\n".join(sentences), encoding="utf-8")
    (tmp_path / "config.yaml").write_text(CONFIG % {"place": tmp_path, "encoder": toy_bert}, encoding="utf-8")
    (tmp_path / "suite.yaml").write_text(SUITE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for module, name in (
        *((prime, "_run"), (cost, "_take"), (transfer, "_fine_tuned"), (transfer, "choose_rates")),
        (ablate, "carry_out"),
    ):
        monkeypatch.setattr(module, name, lambda *words, **options: pytest.fail("a meta-step or a fine-tuning began"))
    return tmp_path


@pytest.mark.parametrize(("name", "command"), PAIRS)
def test_an_input_that_does_not_do_is_refused_before_anything_is_trained(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch, name: str, command: str
) -> None:
    wrong = INPUTS[name]
    if wrong.damage:
        wrong.damage(place)
    overrides = wrong.overrides
    if (place / "closed").is_dir():
        # The superuser may write anywhere.
        allowed = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: "closed" not in str(path) and allowed(path, mode))
        overrides = (f"run.output={place / 'closed' / 'run'}",)
    before = set(place.rglob("*"))
    if command == "transfer" and "held-out" in name and "rate" not in name:
        monkeypatch.setattr(transfer, "choose_rates", lambda rates, shots, validation: validation())
    refused(run(*COMMANDS[command][1], *overrides), *wrong.words)
    assert set(place.rglob("*")) == before


def test_the_pairs_are_whole() -> None:
    assert (len(INPUTS), len(COMMANDS), len(PAIRS)) == (35, 6, 169)


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_mistake_the_work_begins(run: Run, place: Path, command: str) -> None:
    words = COMMANDS[command][1]
    if command in ("validate", "ablate --dry-run"):
        assert run(*words).code == 0
        return
    with pytest.raises(pytest.fail.Exception, match="began"):
        run(*words)
