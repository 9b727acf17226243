"""Measures a meta-step and several transfers at once in bfloat16, on a GPU; `gpu.sh` calls it.

    python benchmarks/gpu.py [--peak FLOPS] [--small] [--rounds 5] [--without-compiled] [--out DIR]

An encoder of 12 layers x 768, T = 8 episodes, five inner steps, batches of 4 x 32 and 16 x 64
sub-words: ours packed, padded and compiled, beside the bare work and learn2learn's idiom. The
utilisation is the FLOPs that the model needs for the real sub-words (`model_flops`), per second, as
a share of the device's peak. Then 8 fine-tunings in one pass beside one after another. `--small` is
a trial of the script on a CPU. Writes gpu.json and gpu.md after each figure.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import many_transfers
import torch
from meta_step import AS_PICKED, IDIOM, RESULTS, Make, ours
from peers import PEERS, floor
from problem import BOTTLENECK, Problem, Shape, Size, make_problem
from timing import Quartiles, in_turn, machine, quartiles, without_folders

from metaprime.meta import Way

NOT_MEASURED = "not measured"

EAGER: dict[str, Make] = {
    "floor": floor,
    "ours, packed": ours(**AS_PICKED),
    "ours, padded": ours(**{**AS_PICKED, "packed": False}),
    IDIOM: PEERS[IDIOM],
}
COMPILED = "ours, padded, compiled"
ROWS = (*EAGER, COMPILED)


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        size: of the encoder.
        shapes: of the meta-steps.
        runs: fine-tunings at once.
    """

    size: Size
    shapes: tuple[Shape, ...]
    runs: int


WHOLE = Plan(Size(12, 768, 12), (Shape(8, 4, 32, 5), Shape(8, 16, 64, 5)), 8)
SMALL = Plan(Size(2, 32, 2), (Shape(2, 2, 8, 1), Shape(2, 4, 16, 1)), 2)


def model_flops(problem: Problem) -> float:
    """Returns the FLOPs that a first-order meta-step needs for its real sub-words, whatever a contender adds.

    A window of l sub-words takes 2 x weights x l in matrix products and 4 x l^2 x D in attention, in every layer. The
    gradient of activations costs as much again, that of weights once more; that of attention, which has no weights, twice
    as much. On support batches only phi moves, and nothing below the first adapter needs a gradient. Embeddings, norms and
    the head are left out.
    """
    config = problem.plain.encoder.config
    width, layers = config.hidden_size, config.num_hidden_layers
    encoder, adapter = 4 * width**2 + 2 * width * config.intermediate_size, 2 * width * BOTTLENECK

    def layer(batch: Mapping[str, torch.Tensor]) -> tuple[float, float, float]:
        """Returns the FLOPs forward of one layer: in the encoder's products, the adapter's, and attention."""
        lengths = batch["attention_mask"].sum(-1).double()
        subwords, squares = float(lengths.sum()), float(lengths.square().sum())
        return 2 * encoder * subwords, 2 * adapter * subwords, 4 * width * squares

    total = 0.0
    for batch in problem.batch.support:
        products, small, attention = layer(batch)
        total += (2 * layers - 1) * products + (3 * layers - 1) * small + (3 * layers - 2) * attention
    products, small, attention = layer(problem.batch.query)
    return total + layers * (3 * products + 2 * small + 3 * attention)


class Page:
    """The results so far, which are written after each of them.

    Attributes:
        result: what the page shows.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self._folder, self.result = folder, {**about, "meta_steps": {}, "transfers": {}}

    def add(self, part: str, shape: str, found: Mapping[str, Any]) -> None:
        """Adds figures of a shape to a part, and writes both files."""
        self.result[part].setdefault(shape, {}).update(found)
        self._folder.mkdir(exist_ok=True)
        (self._folder / "gpu.json").write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")
        (self._folder / "gpu.md").write_text(as_markdown(self.result), encoding="utf-8")
        print(part, shape, json.dumps(found), flush=True)


def figures(problem: Problem, seconds: list[float], peak: float | None, bytes_used: int | None) -> dict[str, Any]:
    """Returns seconds, utilisation (None without the device's peak) and memory of a contender."""
    took = quartiles(seconds)
    utilisation = model_flops(problem) / took.middle / peak if peak else None
    return {"seconds": vars(took), "utilisation": utilisation, "mebibytes": bytes_used and bytes_used / 2**20}


def meta_steps(problem: Problem, makers: Mapping[str, Make], rounds: int, peak: float | None) -> dict[str, Any]:
    """Measures contenders in turn; a contender that fails has its error.

    Args:
        problem: the problem, in the precision that is measured.
        makers: name -> maker of its step.
        rounds: rounds of timing.
        peak: the device's dense FLOPs per second.
    """
    on_gpu = problem.batch.query["input_ids"].is_cuda
    works, found, used = {}, {}, {}
    for name, make in makers.items():
        try:
            work = make(problem)
            work()
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
                work()
                used[name] = torch.cuda.max_memory_allocated()
        # Any error of a contender is its result.
        except Exception as error:
            found[name] = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
            continue
        works[name] = work
    took = in_turn(works, rounds)
    return found | {name: figures(problem, took[name], peak, used.get(name)) for name in works}


def compiled_step(problem: Problem, rounds: int, peak: float | None) -> dict[str, Any]:
    """Measures our meta-step compiled, and the seconds of its first call."""
    began = time.perf_counter()
    found = meta_steps(problem, {COMPILED: ours(compile=True, way=Way.ONE_PASS)}, rounds, peak)
    return {COMPILED: {**found[COMPILED], "whole": time.perf_counter() - began}}


def as_markdown(result: Mapping[str, Any]) -> str:
    """Returns the result as a page, on which what is missing is not measured."""
    plan = SMALL if result["small"] else WHOLE
    size = plan.size
    lines = [
        "# On a GPU",
        "",
        f"`{result['command']}`: {size.layers} layers x {size.hidden}, Pfeiffer adapters of {BOTTLENECK}, bfloat16, first order; "
        f"{result['device']}, dense peak {result['peak'] or NOT_MEASURED} FLOPs per second. Utilisation: FLOPs that the model "
        "needs for real sub-words, per second, over the peak.",
        "",
        "| (T, B, L, n) | | seconds | over the floor | utilisation | MiB |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for shape in plan.shapes:
        found = result["meta_steps"].get(str(shape), {})
        bare = found.get("floor", {}).get("seconds")
        lines += [f"| {shape} | {name} | {' | '.join(_cells(found.get(name), bare))} |" for name in ROWS]
    lines += [
        "",
        f"| B x L | one of {plan.runs} fine-tunings at once, faster than by itself |",
        "|---|---:|",
    ]
    for shape in plan.shapes:
        faster = result["transfers"].get(str(shape), {}).get("faster")
        lines.append(
            f"| {shape.sentences} x {shape.length} | {f'{Quartiles(**faster)} x' if faster else NOT_MEASURED} |"
        )
    return "\n".join([*lines, "", *result.get("notes", []), ""])


def _cells(one: Mapping[str, Any] | None, bare: Mapping[str, float] | None) -> list[str]:
    """Returns a contender's seconds, ratio to the floor, utilisation and MiB."""
    if one is None:
        return [NOT_MEASURED] * 4
    if "error" in one:
        return [f"does not run: {one['error']}", "", "", ""]
    seconds = Quartiles(**one["seconds"])
    return [
        f"{seconds.middle:.4f} [{seconds.low:.4f}, {seconds.high:.4f}]",
        f"{seconds.middle / bare['middle']:.2f}" if bare else NOT_MEASURED,
        f"{100 * one['utilisation']:.1f} %" if one["utilisation"] else NOT_MEASURED,
        f"{one['mebibytes']:.0f}" if one["mebibytes"] else NOT_MEASURED,
    ]


def measure_all(page: Page, plan: Plan, given: argparse.Namespace, device: str) -> None:
    """Measures what takes seconds first, and what compiles last."""
    problems = {shape: make_problem(shape, plan.size, device).in_bfloat16() for shape in plan.shapes}
    for shape, problem in problems.items():
        page.add("meta_steps", str(shape), meta_steps(problem, EAGER, given.rounds, given.peak))
    for shape, problem in problems.items():
        found = many_transfers.compare(problem, plan.runs, shape.sentences, shape.length, given.rounds)
        page.add("transfers", str(shape), found)
    for shape, problem in problems.items() if not given.without_compiled else ():
        page.add("meta_steps", str(shape), compiled_step(problem, given.rounds, given.peak))


def main() -> None:
    """Measures and writes the results after each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peak", type=float, help="dense bfloat16 FLOPs per second of the device")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without-compiled", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not given.small:
        parser.error("there is no GPU; --small is a trial on a CPU")
    if given.small and given.out == RESULTS:
        parser.error("a trial is no result: name another folder by --out")
    about = {
        "command": " ".join(["python", *map(without_folders, sys.argv)]),
        "small": given.small,
        "peak": given.peak,
        "device": machine(device)["device"],
        "versions": machine(device)["versions"],
    }
    measure_all(Page(given.out, about), SMALL if given.small else WHOLE, given, device)


if __name__ == "__main__":
    main()
