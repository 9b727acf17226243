"""Measures the share of padding in the encoder's input, on real episodes.

    python benchmarks/padding.py SOURCE ENCODER LANGUAGE...

SOURCE is written as in a config, for example parquet:data/wikiann; ENCODER is a folder, whose
tokenizer is used. For episodes of the default shape the script measures the share of positions that
are padding, in support batches and in all: with support sentences as drawn, sorted within the
episode before they are split into inner steps (the default of metaprime), and drawn from length
bands as well; with all T episodes stacked, and in the passes of a CPU (`meta/chunks.py`). Writes
benchmarks/results/padding.json and .md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from meta_step import RESULTS
from timing import machine

from metaprime.build.data import build_task, priming_rows
from metaprime.config.loading import load_config
from metaprime.data.episodes import EpisodeSampler, EpisodeShape
from metaprime.data.rows import Row
from metaprime.meta import Execution, InnerLoop
from metaprime.meta.chunks import CPU_SUBWORDS, chunks
from metaprime.models.encoder import load_encoder
from metaprime.types import Batch

STEPS, BANDS = 300, (1, 4, 8)
ON_A_CPU = InnerLoop(lr=0.1, execution=Execution(subwords=CPU_SUBWORDS))
COLUMNS = {"alone": "alone", "support": "support", "all": "all", "passes_support": "support", "passes_all": "all"}
"""Share -> share of the order as drawn that it is divided by; that order had no chunks."""


class Unsorted(EpisodeSampler):
    """A sampler that leaves support sentences in the order in which they were drawn."""

    def _by_length(self, support: list[Row], step: int) -> list[Row]:
        return support


def padding(batches: list[Batch]) -> float:
    """Returns the share of positions that are padding.

    Args:
        batches: `attention_mask` of each is (B, L), or (T, B, L) with stacked episodes.
    """
    positions = sum(batch["attention_mask"].numel() for batch in batches)
    return 1 - sum(int(batch["attention_mask"].sum()) for batch in batches) / positions


def measure(
    kind: type[EpisodeSampler], pools: dict[str, list[Row]], shape: EpisodeShape, collate: Any
) -> dict[str, float]:
    """Draws episodes and measures their padding, and how many are drawn and padded per second.

    Args:
        kind: class of the sampler.
        pools: language -> rows.
        shape: shape of the episodes.
        collate: the task's.
    """
    episodes = kind(pools, shape, 0)
    began = time.perf_counter()
    drawn = [episodes.meta_batch(step, range(shape.episodes), collate) for step in range(STEPS)]
    seconds = time.perf_counter() - began
    support = [tensors for batch in drawn for tensors in batch.support]
    carried_out = [part for batch in drawn for _, part in chunks(batch, ON_A_CPU)]
    size, alone = shape.support, []
    for step in range(STEPS):
        for index in range(shape.episodes):
            rows = episodes.draw(step, index)[1]
            alone += [collate(rows[first : first + size]) for first in range(0, size * shape.steps, size)]
    return {
        "alone": padding(alone),
        "support": padding(support),
        "all": padding([*support, *(batch.query for batch in drawn)]),
        "passes_support": padding([tensors for part in carried_out for tensors in part.support]),
        "passes_all": padding([tensors for part in carried_out for tensors in (*part.support, part.query)]),
        "episodes_per_second": STEPS * shape.episodes / seconds,
    }


def _line(name: str, one: dict[str, float], plain: dict[str, float]) -> str:
    """Returns a row of the table; `plain` holds the shares of the order as drawn."""
    shares = [f"{100 * one[key]:.1f} % ({one[key] / plain[of]:.2f})" for key, of in COLUMNS.items()]
    return f"| {name} | {' | '.join(shares)} | {one['episodes_per_second']:.0f} |"


def main() -> None:
    """Measures all orders, writes the results and prints the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("encoder")
    parser.add_argument("languages", nargs="+")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    config = load_config(
        None,
        [
            f"data.source={given.source}",
            f"data.languages={json.dumps(given.languages)}",
            "data.validation_languages=[]",
            "data.target_languages=[]",
            "task.label_map={DATE: O, MISC: O}",
            f"encoder.name={given.encoder}",
        ],
    )
    task = build_task(config.task, config.data, load_encoder(given.encoder), config.peft)
    pools = priming_rows(task, config.data, config.run.seed)
    own = config.episodes
    shape = EpisodeShape(own.per_step, own.support, config.inner.steps, own.query, own.tau)
    kinds: dict[str, tuple[type[EpisodeSampler], int]] = {"as drawn": (Unsorted, 1)}
    kinds |= {
        "sorted within the episode" + (f", {n} length bands" if n > 1 else ""): (EpisodeSampler, n) for n in BANDS
    }
    found = {}
    for name, (kind, bands) in kinds.items():
        banded = EpisodeShape(**{**vars(shape), "bands": bands})
        found[name] = measure(kind, pools, banded, task.collate)
    shown = (shape.episodes, shape.support, shape.steps, shape.query)
    result = {"command": " ".join(["python", *sys.argv]), "machine": machine("cpu"), "shape": shown, "found": found}
    given.out.mkdir(exist_ok=True)
    (given.out / "padding.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    plain = found["as drawn"]
    text = [
        "# Padding",
        "",
        f"`{result['command']}`: {STEPS} meta-steps of {shape.episodes} episodes, {shape.steps} support batches of "
        f"{shape.support} sentences and {shape.query} query sentences each. Shares of positions that are padding, in brackets "
        "relative to the order as drawn, stacked.",
        "",
        "| support sentences | an episode's support batches, by themselves | stacked over a meta-step's episodes | all batches, "
        "stacked | support, as carried out on a CPU | all, as carried out | episodes drawn and padded per second |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(_line(name, one, plain) for name, one in found.items()),
        "",
    ]
    (given.out / "padding.md").write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
