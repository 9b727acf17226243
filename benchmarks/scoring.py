"""Measures the seconds that scoring 1,000 sentences takes, packed and padded.

    python benchmarks/scoring.py [--source SOURCE --languages L,L,... --encoder DIR] [--sentences 1000] [--rounds 5]

Sentences are the first ones of the languages' training splits, in turn, and are scored as `transfer`
scores a test split: grouped by length, predicted and compared with their tags. Without a source they
are synthetic, and the encoder is one of MiniLM's size with random weights. Writes
benchmarks/results/scoring.json and .md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

import torch
from meta_step import RESULTS
from problem import BOTTLENECK, Size
from real import Sentences, read
from timing import Quartiles, in_turn, machine, quartiles, without_folders

from metaprime.build.model import build_model
from metaprime.build.pretrain import untrained
from metaprime.config.sections import PretrainConfig
from metaprime.data.rows import Row
from metaprime.models.encoder import load_encoder
from metaprime.models.task_model import TaskModel
from metaprime.peft import METHODS
from metaprime.transfers.evaluate import evaluate

LANGUAGES = "qaa,qab,qai,qao"


def first_of(pools: Mapping[str, Sequence[Row]], count: int) -> list[Row]:
    """Returns the first rows of all languages, in turn: `first_of(sentences.pools, 1000)`."""
    turns = chain.from_iterable(zip_longest(*pools.values()))
    return list(islice((row for row in turns if row is not None), count))


def models_of(sentences: Sentences, rows: Sequence[Row]) -> dict[str, TaskModel]:
    """Returns a model, packed and padded.

    Raises:
        SystemExit: metaprime keeps the batches of this encoder padded.
    """
    encoder = load_encoder(sentences.config.encoder.name)
    model = build_model(encoder, sentences.task, METHODS["pfeiffer"].config(bottleneck=BOTTLENECK), rows)
    if not model.packed:
        raise SystemExit(f"batches of this encoder stay padded: {model.traits.padded}")
    return {"packed": model, "padded": model.variant(padded="compared with packed rows")}


def compare(sentences: Sentences, count: int, rounds: int) -> dict[str, Any]:
    """Measures seconds of scoring, and the share of sentences with equal predictions.

    Args:
        sentences: encoded sentences and their encoder.
        count: number of sentences.
        rounds: rounds of timing.
    """
    rows = first_of(sentences.pools, count)
    models = models_of(sentences, rows)
    values = {name: value.detach() for name, value in models["packed"].named_parameters()}
    works = {name: lambda model=model: evaluate(model, sentences.task, values, rows) for name, model in models.items()}
    packed, padded = (work()[1] for work in works.values())
    took = in_turn(works, rounds)
    lengths = [len(window.input_ids) for row in rows for window in row.windows]
    return {
        "sentences": len(rows),
        "subwords": sum(lengths),
        "longest": max(lengths),
        "seconds": {name: vars(quartiles(seconds)) for name, seconds in took.items()},
        "ratio": vars(quartiles([one / other for one, other in zip(took["packed"], took["padded"], strict=True)])),
        "equal": sum(one == other for one, other in zip(packed, padded, strict=True)) / len(rows),
    }


def as_markdown(result: Mapping[str, Any]) -> str:
    """Returns the result as a page with one table."""
    found = result["found"]
    lines = [
        "# Scoring",
        "",
        f"`{result['command']}`: {found['sentences']} sentences of {result['languages']}, {found['subwords']} sub-words, the "
        f"longest window {found['longest']}; {result['machine']['device']}, {result['machine']['threads']} thread(s).",
        "",
        "| | seconds |",
        "|---|---:|",
        *(f"| {name} | {Quartiles(**seconds)} |" for name, seconds in found["seconds"].items()),
        f"| packed / padded | {Quartiles(**found['ratio'])} |",
        "",
        f"Predictions are the same for {100 * found['equal']:.1f} % of the sentences.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measures, writes the results and prints the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="synthetic:")
    parser.add_argument("--languages", default=LANGUAGES)
    parser.add_argument("--encoder")
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        encoder = given.encoder or f"{folder}/encoder"
        if not given.encoder:
            untrained(PretrainConfig(**asdict(Size()), threads=1), "synthetic:", Path(encoder))
        found = compare(read(given.source, given.languages.split(","), encoder), given.sentences, given.rounds)
    result = {
        "command": " ".join(["python", *map(without_folders, sys.argv)]),
        "languages": given.languages.replace(",", ", "),
        "machine": machine("cpu"),
        "found": found,
    }
    given.out.mkdir(exist_ok=True)
    (given.out / "scoring.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (given.out / "scoring.md").write_text(as_markdown(result), encoding="utf-8")
    print(as_markdown(result))


if __name__ == "__main__":
    main()
