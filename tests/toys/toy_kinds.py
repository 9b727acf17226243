"""A small corpus for each kind of task: primed on `fr`, tuned on `en`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = ("mali", "bono", "dabi", "kelu", "tiro")
TASKS: dict[str, str] = {
    "tagging": "task={name: tagging, scheme: none, labels: [NOUN, VERB]}",
    "classification": "task={name: classification, labels: [no, yes], text: text}",
    "pairs": "task={name: classification, labels: [no, yes], text: text, pair: pair, metric: matthews, pooling: first}",
    "classifications": "task={name: classifications, tasks: {fr: {labels: [no, yes]}, en: {labels: [bad, fair, good], "
    "label_map: {no: bad, yes: good}, pair: pair}}}",
    "regression": "task={name: regression, text: text, pair: pair, range: [0, 5]}",
    "multiple_choice": "task={name: multiple_choice, text: text, choices: [a, b, c]}",
    "span_pairs": "task={name: span_pairs, first: spans.one, first_text: spans.first, second: spans.two, "
    "second_text: spans.second}",
}
"""The task's section of a config by the name of a corpus."""


def row(number: int) -> dict[str, Any]:
    """One example, with the columns of every task: its answers follow from its number, and its words from it, too."""
    words = [WORDS[(number * step + step) % len(WORDS)] for step in range(1, 3 + number % 6)] + [f"n{number}"]
    text = " ".join(words)
    return {
        "tokens": words,
        "upos": ["NOUN" if place % 2 else "VERB" for place in range(len(words))],
        "text": text,
        "pair": " ".join(reversed(words)),
        "a": f"{words[0]} bono",
        "b": text,
        "c": "tiro " * (1 + number % 3),
        "spans": {"one": 0, "first": words[0], "two": len(words) - 1, "second": words[-1]},
    }


def answer(task: str, number: int) -> Any:
    """The answer of an example."""
    answers: dict[str, list[Any]] = {
        "regression": [0, 1.25, 5],
        "multiple_choice": [0, "b", 2],
        "span_pairs": [True, False],
    }
    own = answers.get(task, ["yes", "no"])
    return own[number % len(own)]


def write(task: str, root: Path, count: int = 60) -> list[str]:
    """Writes the corpus of a task, and returns the changes of a config that make it the run's."""
    for language, split, first in (("fr", "train", 0), ("en", "train", 1000), ("en", "test", 2000)):
        (root / language).mkdir(parents=True, exist_ok=True)
        rows = [{**row(first + number), "label": answer(task, number)} for number in range(count)]
        (root / language / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    return [
        TASKS[task],
        f"data={{source: 'jsonl:{root}', languages: [fr], validation_languages: [], target_languages: [en]}}",
        *(
            "outer.steps=2",
            "outer.validate_every=0",
            "transfer.methods=[pfeiffer]",
            "transfer.lr=0.01",
            "transfer.test_sentences=null",
        ),
    ]
