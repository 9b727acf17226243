"""A made-up suite on the disk, as an ablation leaves it: seeded numbers of a plausible size, from no model at all."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metaprime.data.readers import synthetic
from metaprime.data.rows import Example
from metaprime.reports.document import Report, ReportSection
from metaprime.rng import stream
from metaprime.tasks.tagging.errors import entities
from metaprime.tasks.tagging.scores import entity_scores

MakeSuite = Callable[..., Path]
TYPES = ("PER", "ORG", "LOC")
SHORT = {"pfeiffer": "AT", "head": "HT"}
# Title, overrides, priming run, how good it is.
ARMS: dict[str, tuple[str, list[str], str | None, float]] = {
    "none": ("no priming", [], None, 0.30),
    "multitask": ("multi-task full fine-tuning", ["learner.name=multitask"], "a1b2", 0.46),
    "multitask_start": ("multi-task, its head kept", ["learner.name=multitask"], "a1b2", 0.45),
    "shuffled": ("meta-priming on shuffled tags", ["task.shuffle_tags=true"], "c3d4", 0.31),
    "meta": ("meta-priming", [], "e5f6", 0.48),
    "meta_head": ("meta-priming, the head alone", ["peft.method=head"], "0718", 0.40),
    "one_step": ("meta-priming, one inner step", ["inner.steps=1"], "1929", 0.42),
    "maml": ("plain MAML loop", ["learner.name=maml"], "2a3a", 0.44),
    "reptile": ("Reptile", ["learner.name=reptile"], "3b4b", 0.41),
}
SIMULATES = {
    "learner.name=multitask": "full",
    "learner.name=maml": "full",
    "learner.name=reptile": "full",
    "peft.method=head": "head",
}
CONTRASTS = [["meta", "none"], ["meta", "shuffled"], ["meta", "multitask"], ["multitask", "none"], ["shuffled", "none"]]


@dataclass(frozen=True)
class Shape:
    """What the suite has; `words` stand at the end of every sentence, `titles` replace those of ARMS."""

    seeds: int = 3
    shots: Sequence[int] = (50,)
    arms: Sequence[str] = tuple(ARMS)
    methods: Sequence[str] = ("pfeiffer", "head")
    languages: Sequence[str] = ("qai", "qao")
    sentences: int = 40
    words: Sequence[str] = ()
    titles: dict[str, str] = field(default_factory=dict)
    failed: Sequence[dict[str, Any]] = ()


def make_suite(folder: Path, **changes: Any) -> Path:
    """Writes a suite of this Shape, changed so: `make_suite(folder, seeds=2, arms=("none", "meta"))`."""
    shape = Shape(**changes)
    results = {
        "name": "paper_tweaks",
        "setting": "synthetic",
        "command": "metaprime ablate recipes/ablations/paper_tweaks.yaml",
        "seeds": list(range(shape.seeds)),
        "config": {"peft": {"method": "pfeiffer"}, "data": {"target_languages": list(shape.languages)}},
        "versions": {"metaprime": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
        "task": "tagging",
        "methods": list(shape.methods),
        "titles": {method: title for method, title in SHORT.items() if method in shape.methods},
        "languages": list(shape.languages),
        "shots": list(shape.shots),
        "arms": {arm: _described(arm, shape) for arm in shape.arms},
        "contrasts": [pair for pair in CONTRASTS if set(pair) <= set(shape.arms)],
        "matched": {},
        "records": list(_write_cells(folder, shape)),
        "primings": _write_primings(folder, shape),
        "failed": list(shape.failed),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrites a suite's results.json, changed in place."""
    file = folder / "results.json"
    results = json.loads(file.read_text("utf-8"))
    change(results)
    file.write_text(json.dumps(results), "utf-8")


def section(report: Report, key: str) -> ReportSection:
    return next(one for one in report.sections if one.key == key)


def _described(arm: str, shape: Shape) -> dict[str, Any]:
    title, changes, run, _ = ARMS[arm]
    cost = {"sentence_passes": 33600, "sentence_passes_chosen": 26880.0, "steps_chosen": [240], "seconds": 41.5}
    share = 0.5 if arm == "multitask" else 1.0
    cost |= {"flops": share * 3.36e12, "flops_chosen": share * 2.688e12}
    return {
        "title": shape.titles.get(arm, title),
        "set": changes,
        "transfer": [],
        "priming": run,
        "rates": dict.fromkeys(shape.methods, 0.01),
        "methods": list(shape.methods),
        "facts": cost if run else None,
        "simulates": SIMULATES.get(" ".join(changes), "pfeiffer") if run else None,
    }


def _write_cells(folder: Path, shape: Shape) -> Iterator[dict[str, Any]]:
    tests = {language: _sentences(language, shape.sentences, shape.words) for language in shape.languages}
    places = itertools.product(shape.arms, range(shape.seeds), shape.methods, shape.shots, shape.languages)
    for arm, seed, method, k, language in places:
        cell = {"arm": arm, "seed": seed, "language": language, "method": method, "shots": k}
        path = f"cells/{arm}/seed{seed}/{language}-{method}-k{k}/record.json"
        _write_cell(folder / path, cell, tests[language])
        yield {**cell, "path": path}


def _write_primings(folder: Path, shape: Shape) -> dict[str, dict[str, str]]:
    primings: dict[str, dict[str, str]] = {}
    for arm in shape.arms:
        run = ARMS[arm][2]
        for seed in range(shape.seeds) if run else ():
            path = f"priming/{run}/seed{seed}"
            primings.setdefault(arm, {})[str(seed)] = path
            _write_metrics(folder / path, arm, seed)
    return primings


def _sentences(language: str, count: int, words: Sequence[str]) -> list[Example]:
    read = list(synthetic.read("", language, "test"))[:count]
    return [Example((*one.words, *words), (*one.gold, *("O" for _ in words))) for one in read]


def _write_cell(file: Path, cell: dict[str, Any], test: list[Example]) -> None:
    """Arms, methods and numbers of shots meet the same hard entities; the seed moves the level."""
    level = ARMS[cell["arm"]][3] + (0.0 if cell["method"] == "pfeiffer" else -0.05)
    level += 0.08 * math.log10(max(1, cell["shots"]) / 50) + stream(0, "level", cell["arm"], cell["seed"]).normal(
        0, 0.02
    )
    hard = stream(0, "hard", cell["language"])
    own = stream(0, "own", *map(str, cell.values()))
    lines = []
    for sentence in test:
        tags = list(sentence.gold)
        for entity in entities(sentence.gold):
            if 0.7 * hard.random() + 0.3 * own.random() > level:
                _spoil(tags, entity, own.random(), int(own.integers(len(TYPES))))
        if own.random() < 0.2 * (1 - level) and tags[-1] == "O":
            tags[-1] = "B-ORG"
        lines.append({"words": list(sentence.words), "gold": list(sentence.gold), "predicted": tags})
    file.parent.mkdir(parents=True)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (file.parent / "predictions.jsonl").write_text(text, encoding="utf-8")
    record = {
        "cell": {
            **{key: cell[key] for key in ("language", "method", "shots")},
            "priming_seed": cell["seed"] if ARMS[cell["arm"]][2] else None,
            "transfer_seed": cell["seed"],
        },
        "scores": entity_scores([line["gold"] for line in lines], [line["predicted"] for line in lines]),
        "training": {"steps": 100, "lr": 0.01, "sentences": cell["shots"], "last_loss": 0.1, "flops": 1.6e10},
        "frozen": {"unchanged": True},
        "config": {"transfer": {"steps": 100, "batch": 16}},
        "volatile": {"seconds": 2.0 + own.random()},
    }
    file.write_text(json.dumps(record), encoding="utf-8")


def _spoil(tags: list[str], entity: Any, luck: float, other: int) -> None:
    inside = range(entity.first, entity.last + 1)
    if luck < 0.5:
        for place in inside:
            tags[place] = "O"
    elif luck < 0.75:
        for place in inside:
            tags[place] = tags[place][:2] + TYPES[other]
    elif len(inside) > 1:
        tags[entity.last] = "O"


def _write_metrics(folder: Path, arm: str, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    draw = stream(seed, "metrics", arm)
    good = ARMS[arm][3]
    lines: list[dict[str, Any]] = [{"step": 0, "validation_f1": 25.0, "best_step": 0}]
    for step in range(1, 151):
        fallen = math.exp(-step / 50)
        line: dict[str, Any] = {"step": step, "query_loss": 1.4 - good + fallen + draw.normal(0, 0.08), "lr": 1e-3}
        if "learner.name=multitask" not in ARMS[arm][1]:
            line["support_loss_before"] = 2.0 - 0.2 * (1 - fallen) + draw.normal(0, 0.05)
            line["support_loss_after"] = 1.2 - good * (1 - fallen) + draw.normal(0, 0.08)
        if step % 15 == 0:
            line["validation_f1"] = 25 + 45 * good * (1 - fallen) + draw.normal(0, 1)
        lines.append(line | {"volatile": {"seconds": 0.1}})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
