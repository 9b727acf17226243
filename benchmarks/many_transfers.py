"""Times several adapter runs over one frozen encoder, stacked and one after another.

    python benchmarks/many_transfers.py [--rounds 9]

The work is training steps (forward, backward, clipping, AdamW) of E runs with B sentences of L
sub-words each, as in `transfer`. The ratios give the fixed cost of a pass, beside that which
`transfer` assumes, `meta.chunks.PASS`. Writes benchmarks/results/many_transfers.json and .md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from meta_step import RESULTS
from problem import TAGS, VOCABULARY, Problem, Shape, Size, make_problem, measure
from timing import Quartiles, in_turn, machine, quartiles
from torch import nn

from metaprime.config.sections import TransferConfig
from metaprime.data.rows import Example, Row, Window, collate
from metaprime.meta.chunks import CPU_SUBWORDS, PASS
from metaprime.peft import METHODS
from metaprime.rng import stream
from metaprime.tasks.tagging.task import TAGGING, TaggingConfig
from metaprime.tasks.task import Task
from metaprime.transfers.finetune import fine_tune
from metaprime.transfers.stacked import train_stacked
from metaprime.transfers.start import KShotRun, context_over

SHAPES = ((4, 16), (4, 32), (8, 32), (16, 32), (16, 64))
"""(B, L): sentences per batch and sub-words per sentence."""

RUNS = (2, 8)
"""Numbers E of runs."""

STEPS = 4
"""Training steps of each run."""


def sentences(count: int, length: int, seed: int) -> list[Row]:
    """Returns rows of random sub-words, all of the same length, so that there is no padding."""
    draw = stream(seed, "sentences")

    def row() -> Row:
        ids = tuple(int(number) for number in draw.integers(5, VOCABULARY, length))
        labels = tuple(int(number) for number in draw.integers(0, TAGS, length))
        window = Window(ids, tuple(range(length)), tuple(range(length)), labels)
        return Row((window,), Example(("",) * length, ("O",) * length))

    return [row() for _ in range(count)]


def make_task() -> Task:
    """Returns a task that can only collate rows and compute a loss."""

    def unused(*_: Any) -> Any:
        raise NotImplementedError

    return Task(
        kind=TAGGING,
        config=TaggingConfig(),
        labels=("O",) * TAGS,
        read=unused,
        example=unused,
        encode=unused,
        collate=lambda rows: collate(rows, 0),
        new_head=lambda _: nn.Identity(),
        loss=measure,
        predict=unused,
        audit=unused,
    )


def compare(problem: Problem, runs: int, sentences_each: int, length: int, rounds: int) -> dict[str, Any]:
    """Measures seconds per run and step, alone and stacked, and their ratio.

    Args:
        problem: the encoder and the values to start from.
        runs: E.
        sentences_each: B.
        length: L, sub-words.
        rounds: rounds of timing.
    """
    settings, task = TransferConfig(steps=STEPS, batch=sentences_each), make_task()
    start = {name: value[0] for name, value in problem.start.items()}
    tunings = [
        KShotRun(sentences(2 * sentences_each, length, seed), seed, "", lambda: dict(start)) for seed in range(runs)
    ]
    context = context_over(problem.ours, task, METHODS["pfeiffer"].config(), settings, {})

    def alone() -> None:
        for run in tunings:
            fine_tune(context, run, 1e-3)

    works: dict[str, Callable[[], Any]] = {
        "alone": alone,
        "together": lambda: train_stacked(context, tunings, 1e-3),
    }
    took = {name: np.array(seconds) for name, seconds in in_turn(works, rounds).items()}
    return {
        "runs": runs,
        "batch": [sentences_each, length],
        "seconds": {name: vars(quartiles(seconds / runs / STEPS)) for name, seconds in took.items()},
        "faster": vars(quartiles(took["alone"] / took["together"])),
    }


def pass_cost(one: Mapping[str, Any]) -> float:
    """Returns s0, in sub-words, if a pass over s sub-words takes c (s0 + s).

    It follows from the ratio of E passes over s sub-words to one pass over E s.
    """
    runs, size, faster = one["runs"], one["batch"][0] * one["batch"][1], one["faster"]["middle"]
    return float(runs * size * (faster - 1) / (runs - faster))


def as_markdown(result: Mapping[str, Any]) -> str:
    """Returns the result as a page with one table."""
    size = result["size"]
    lines = [
        "# Many transfers in one pass",
        "",
        f"`{result['command']}`: {size['layers']} layers x {size['hidden']}, Pfeiffer adapters of 48, float32; "
        f"{result['machine']['device']}, {result['machine']['threads']} thread(s). Training steps of E runs with B sentences "
        "of L sub-words each: how much faster together than one after another, median and quartiles over rounds.",
        "",
        "| B x L | "
        + " | ".join(f"E = {runs}" for runs in RUNS)
        + " | ms per step of a run, alone | a pass, in sub-words |",
        f"|---|{'---:|' * (len(RUNS) + 2)}",
    ]
    for batch in SHAPES:
        own = [one for one in result["found"] if tuple(one["batch"]) == batch]
        faster = " | ".join(f"{Quartiles(**one['faster'])} x" for one in own)
        alone = 1000 * own[-1]["seconds"]["alone"]["middle"]
        lines.append(f"| {batch[0]} x {batch[1]} | {faster} | {alone:.1f} | {pass_cost(own[-1]):.0f} |")
    lines += [
        "",
        f"The last column is what a pass costs beside its sub-words. `transfer` assumes {PASS} (`meta.chunks.PASS`). It trains "
        f"together where passes have at most {CPU_SUBWORDS} sub-words on average (`meta.chunks.CPU_SUBWORDS`) and cost less: "
        "where batches are padded, padding to the longest of all counts too.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measures all batches and numbers of runs, writes the results and prints the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = Size(12, 768, 12) if device == "cuda" else Size()
    problem, found = make_problem(Shape(1, 4, 16, 1), size, device), []
    for batch in SHAPES:
        for runs in RUNS:
            found.append(compare(problem, runs, *batch, given.rounds))
            print(found[-1], flush=True)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "size": vars(size),
        "machine": machine(device),
        "found": found,
    }
    given.out.mkdir(exist_ok=True)
    (given.out / "many_transfers.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (given.out / "many_transfers.md").write_text(as_markdown(result), encoding="utf-8")
    print(as_markdown(result))


if __name__ == "__main__":
    main()
