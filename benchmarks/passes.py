"""Measures the cost of a pass on one CPU thread, and checks the constants that decide on passes.

    python benchmarks/passes.py [--layers 6] [--hidden 384] [--repeats 5]

Passes go forward and backward over packed rows of windows of 8 to 31 sub-words, with the encoder's
weights frozen and not, for T = 1 and 4 episodes. The script fits the fixed cost of a pass in
sub-words (`meta.chunks.PASS`), compares the cost of a sub-word beyond `meta.chunks.CPU_SUBWORDS`
with that at it, and finds where attention window by window begins to pay (`packing.WINDOW_COST`), and up
to which share of real sub-words packing does (`packing.NEARLY_FULL`). Times are CPU seconds, the least of
the repeats. Writes benchmarks/results/passes.json and .md.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from meta_step import RESULTS
from problem import TAGS, VOCABULARY, Problem, Shape, Size, make_problem, measure
from timing import Work, machine, without_folders

from metaprime import packing
from metaprime.meta.chunks import CPU_SUBWORDS, PASS
from metaprime.models.task_model import functional_loss
from metaprime.rng import torch_stream
from metaprime.types import IGNORE, Batch

SUBWORDS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Sub-words of a pass."""

EPISODES = (1, 4)

LONGEST, WINDOWS = 64, 8
"""Sub-words of the longest window, and windows, of the passes that packing is judged by."""

SHORTER = (63, 60, 56, 48, 32, 16)
"""Sub-words of all windows but the longest, for attention window by window."""

SHARES = (0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99)
"""Shares of real sub-words."""


def batch_of(lengths: Sequence[int], episodes: int) -> Batch:
    """Returns random sub-words with tags, `(T, B, L)`.

    Args:
        lengths: sub-words of all windows, episode after episode; a multiple of T.
        episodes: T.
    """
    draw = torch_stream(0, "passes", str(lengths))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(5, VOCABULARY, mask.shape, generator=draw) * mask
    labels = torch.where(mask.bool(), torch.randint(0, TAGS, mask.shape, generator=draw), IGNORE)
    tensors = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: tensor.view(episodes, -1, max(lengths)) for name, tensor in tensors.items()}


def lengths_of(subwords: int, episodes: int) -> list[int]:
    """Returns lengths from 8 to 31 whose sum is `subwords`, in equally many windows for each of T episodes.

    Args:
        subwords: at least 8 for each episode.
        episodes: T.
    """
    windows = max(1, round(subwords / 20 / episodes)) * episodes
    draw = torch_stream(0, "lengths", str(subwords))
    lengths = torch.randint(8, 32, (windows,), generator=draw)
    # Move the sum to what is asked, one sub-word at a time.
    while (apart := subwords - int(lengths.sum())) != 0:
        movable = ((lengths < 31) if apart > 0 else (lengths > 8)).nonzero().squeeze(1)
        if not len(movable):
            raise ValueError(f"{windows} windows of 8 to 31 sub-words cannot have {subwords}")
        lengths[movable[: abs(apart)]] += 1 if apart > 0 else -1
    return [int(length) for length in lengths]


def pass_of(problem: Problem, batch: Batch, frozen: bool, padded: bool = False) -> Work:
    """Returns a pass forward and backward, as a function without arguments.

    Args:
        problem: the model, and values of an episode.
        batch: tensors `(T, B, L)`.
        frozen: whether only phi and head have gradients, not the encoder.
        padded: whether the batch stays padded.
    """
    loss = functional_loss(problem.padded if padded else problem.ours, measure)
    episodes = len(batch["input_ids"])
    fast = {
        name: value[:1].repeat(episodes, *(1 for _ in value.shape[1:])).requires_grad_()
        for name, value in problem.start.items()
    }
    backbone = {name: value.clone().requires_grad_(not frozen) for name, value in problem.backbone.items()}
    leaves = [*fast.values(), *(() if frozen else backbone.values())]

    def work() -> Any:
        return torch.autograd.grad(loss(backbone, fast, batch).sum(), leaves)

    return work


def least(works: Mapping[str, Work], repeats: int) -> dict[str, float]:
    """Returns the least CPU milliseconds of each function, called in turn, after one call to warm up."""
    took: dict[str, list[float]] = {name: [] for name in works}
    for number in range(repeats + 1):
        for name, work in works.items():
            began = time.process_time()
            work()
            if number:
                took[name].append(1000 * (time.process_time() - began))
    return {name: min(values) for name, values in took.items()}


@contextmanager
def constant(name: str, value: float) -> Iterator[None]:
    """Sets a constant of `metaprime.packing` inside a `with`."""
    own = getattr(packing, name)
    setattr(packing, name, value)
    try:
        yield
    finally:
        setattr(packing, name, own)


def under(name: str, value: float, work: Work) -> Work:
    """Returns a function that runs under another constant of `metaprime.packing`."""

    def run() -> Any:
        with constant(name, value):
            return work()

    return run


def by_size(problem: Problem, repeats: int) -> list[dict[str, Any]]:
    """Measures passes of all sizes, for frozen weights and not and T of `EPISODES`."""
    found = []
    for frozen in (True, False):
        for episodes in EPISODES:
            sizes = [size for size in SUBWORDS if size >= 32 * episodes]
            works = {
                str(size): pass_of(problem, batch_of(lengths_of(size, episodes), episodes), frozen) for size in sizes
            }
            with constant("NEARLY_FULL", math.inf):
                took = least(works, repeats)
            milliseconds = {size: took[str(size)] for size in sizes}
            found.append({"frozen": frozen, "episodes": episodes, "milliseconds": milliseconds, **fitted(milliseconds)})
    return found


def fitted(milliseconds: Mapping[int, float]) -> dict[str, float]:
    """Fits time = cost of a sub-word x (fixed cost + sub-words) to passes that are no larger than a CPU's.

    Each size has the same weight: what is fitted is the relative error.

    Returns:
        `fixed` in sub-words, and `beyond`: cost of a sub-word in the best larger pass over that at CPU_SUBWORDS; NaN
        without a larger pass.
    """
    sizes = [size for size in milliseconds if size <= CPU_SUBWORDS]
    took = np.array([milliseconds[size] for size in sizes])
    columns = np.stack([np.ones(len(sizes)), np.array(sizes, dtype=float)], axis=1)
    intercept, slope = np.linalg.lstsq(columns / took[:, None], np.ones(len(sizes)), rcond=None)[0]
    each = {size: milliseconds[size] / size for size in milliseconds}
    larger = [each[size] for size in each if size > CPU_SUBWORDS]
    return {
        "fixed": float(intercept / slope),
        "beyond": min(larger) / each[max(sizes)] if larger else math.nan,
    }


def by_window(problem: Problem, heads: int, repeats: int) -> list[dict[str, Any]]:
    """Measures packed passes with attention window by window, and as a padded batch."""
    found = []
    for shorter in SHORTER:
        lengths = [LONGEST, *[shorter] * (WINDOWS - 1)]
        work = pass_of(problem, batch_of(lengths, 1), frozen=True)
        with constant("NEARLY_FULL", math.inf):
            took = least(
                {"windows": under("WINDOW_COST", -1, work), "batch": under("WINDOW_COST", math.inf, work)},
                repeats,
            )
        saved = heads * (WINDOWS - 1) * (LONGEST**2 - shorter**2) / WINDOWS
        found.append({"saved": saved, "ratio": took["windows"] / took["batch"]})
    return found


def by_share(problem: Problem, repeats: int) -> list[dict[str, Any]]:
    """Measures packed passes beside padded ones, by the share of real sub-words."""
    found = []
    for share in SHARES:
        rest = round(WINDOWS * LONGEST * share) - LONGEST
        lengths = [LONGEST, *(rest // (WINDOWS - 1) + (at < rest % (WINDOWS - 1)) for at in range(WINDOWS - 1))]
        batch = batch_of(lengths, 1)
        packed, padded = (pass_of(problem, batch, frozen=True, padded=whether) for whether in (False, True))
        took = least({"packed": under("NEARLY_FULL", math.inf, packed), "padded": padded}, repeats)
        found.append({"share": share, "ratio": took["packed"] / took["padded"]})
    return found


def break_even(points: Sequence[tuple[float, float]]) -> float | None:
    """Returns where a line through points (x, ratio), in the order of x, last crosses a ratio of 1; None if it never does."""
    crossings = [
        left + (1 - at_left) * (right - left) / (at_right - at_left)
        for (left, at_left), (right, at_right) in pairwise(points)
        if (at_left - 1) * (at_right - 1) <= 0 and at_left != at_right
    ]
    return crossings[-1] if crossings else None


def as_markdown(result: Mapping[str, Any]) -> str:
    """Returns the result as a page with three tables."""
    size = result["size"]
    sizes = sorted({int(subwords) for one in result["by_size"] for subwords in one["milliseconds"]})
    lines = [
        "# What a pass costs",
        "",
        f"`{result['command']}`: {size['layers']} layers x {size['hidden']}, {size['heads']} heads, Pfeiffer adapters of 48, "
        f"float32; {result['machine']['device']}, {result['machine']['threads']} thread(s). CPU time, forward and backward, the "
        "least of the repeats.",
        "",
        "## By sub-words",
        "",
        f"Microseconds per sub-word of a packed pass. The fixed cost is fitted to passes of at most {CPU_SUBWORDS} sub-words "
        "(`meta.chunks.CPU_SUBWORDS`); the last column is the cost of a sub-word in the best larger pass over that at this size.",
        "",
        f"| encoder | T | {' | '.join(map(str, sizes))} | fixed cost, in sub-words | beyond |",
        f"|---|---:|{'---:|' * (len(sizes) + 2)}",
    ]
    for one in result["by_size"]:
        took = {int(size): value for size, value in one["milliseconds"].items()}
        cells = [f"{1000 * took[size] / size:.0f}" if size in took else "" for size in sizes]
        name = "frozen" if one["frozen"] else "with gradients"
        lines.append(f"| {name} | {one['episodes']} | {' | '.join(cells)} | {one['fixed']:.0f} | {one['beyond']:.2f} |")
    fixed = [one["fixed"] for one in result["by_size"]]
    lines += [
        "",
        f"metaprime assumes {PASS} (`meta.chunks.PASS`); measured {min(fixed):.0f} to {max(fixed):.0f}.",
        "",
        "## Attention window by window",
        "",
        f"{WINDOWS} windows, the longest of {LONGEST} sub-words. Products of a query and a key that are saved per window, and "
        "time of a frozen pass over that with attention of the padded batch.",
        "",
        *_points(result["by_window"], "saved", "products saved per window", "{:.0f}"),
        f"metaprime assumes that it pays from {packing.WINDOW_COST} (`packing.WINDOW_COST`); "
        f"measured {_crossing(result['by_window'], 'saved', '{:.0f}')}.",
        "",
        "## Packed beside padded",
        "",
        f"{WINDOWS} windows, the longest of {LONGEST} sub-words. Time of a frozen pass over that of the padded batch.",
        "",
        *_points(result["by_share"], "share", "share of real sub-words", "{:.2f}"),
        f"metaprime packs below {packing.NEARLY_FULL} (`packing.NEARLY_FULL`); "
        f"measured {_crossing(result['by_share'], 'share', '{:.2f}')}.",
        "",
    ]
    return "\n".join(lines)


def _points(found: Sequence[Mapping[str, float]], key: str, name: str, form: str) -> list[str]:
    """Returns the lines of a table with one column for each point."""
    return [
        f"| {name} | {' | '.join(form.format(one[key]) for one in found)} |",
        f"|---|{'---:|' * len(found)}",
        f"| ratio | {' | '.join('{:.2f}'.format(one['ratio']) for one in found)} |",
        "",
    ]


def _crossing(found: Sequence[Mapping[str, float]], key: str, form: str) -> str:
    """Returns where the ratio is 1, in words."""
    points = [(one[key], one["ratio"]) for one in found]
    place = break_even(sorted(points))
    below = "below" if points[0][1] < 1 else "above"
    return f"{below} 1 at every point" if place is None else f"a ratio of 1 at {form.format(place)}"


def main() -> None:
    """Measures, writes the results and prints the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=Size.layers)
    parser.add_argument("--hidden", type=int, default=Size.hidden)
    parser.add_argument("--heads", type=int, default=Size.heads)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    size = Size(given.layers, given.hidden, given.heads)
    problem = make_problem(Shape(1, 2, 8, 1), size)
    measured: dict[str, Callable[[], Any]] = {
        "by_size": lambda: by_size(problem, given.repeats),
        "by_window": lambda: by_window(problem, size.heads, given.repeats),
        "by_share": lambda: by_share(problem, given.repeats),
    }
    result = {
        "command": " ".join(["python", *map(without_folders, sys.argv)]),
        "size": vars(size),
        "machine": machine("cpu"),
        **{name: work() for name, work in measured.items()},
    }
    given.out.mkdir(exist_ok=True)
    (given.out / "passes.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (given.out / "passes.md").write_text(as_markdown(result), encoding="utf-8")
    print(as_markdown(result))


if __name__ == "__main__":
    main()
