"""Times a first-order meta-step of this package and of every peer.

    python benchmarks/meta_step.py [--rounds 9] [--shapes 0,1,2,3] [--eager]

Times are ratios to the bare work, the "floor", which every way of adapting T episodes includes: n
passes with gradients of one shared phi and head, and one pass with those of the encoder, over the
same padded sub-words in one batch. No side takes an optimizer step. Before timing, each contender's
outer gradient is compared with ours. Compiling ours takes minutes per shape; `--eager` skips it.
Writes benchmarks/results/meta_step.json, .md and .png.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import PEERS, Step, floor
from problem import INNER_LR, Problem, Shape, Size, make_problem, measure
from timing import Quartiles, in_turn, machine, quartiles

from metaprime.meta import LEARNERS, Execution, InnerLoop, MetaStep, Way
from metaprime.meta.chunks import CPU_SUBWORDS
from metaprime.meta.compiled import compiled
from metaprime.models.task_model import TaskModel, functional_loss
from metaprime.types import Params

SHAPES = (Shape(4, 4, 16, 5), Shape(4, 8, 32, 5), Shape(8, 4, 32, 5), Shape(8, 16, 64, 1))
RESULTS = Path(__file__).parent / "results"

FLOOR, AUTO, BFLOAT16, COMPILED = (
    "floor",
    "ours, auto",
    "ours, auto, bfloat16",
    "ours, auto, compiled",
)
AS_PICKED: dict[str, Any] = {"way": Way.ONE_PASS, "subwords": None if torch.cuda.is_available() else CPU_SUBWORDS}
"""Execution that `inner.task_chunk: auto` chooses if memory suffices."""

CLASS = "learn2learn, MAML class"
"""Contender whose inner loop moves the encoder too: another gradient, and more work."""


def ours(compile: bool = False, **execution: Any) -> Callable[[Problem], Step]:
    """Returns a maker of our meta-step with some `Execution`, compiled if asked for."""
    meta_step = compiled(LEARNERS["peft_maml"].step) if compile else LEARNERS["peft_maml"].step

    def make(problem: Problem) -> Step:
        return step_of(problem, problem.ours, meta_step, InnerLoop(lr=INNER_LR, execution=Execution(**execution)))

    return make


def step_of(problem: Problem, model: TaskModel, meta_step: MetaStep, inner: InnerLoop) -> Step:
    """Returns our meta-step over a model as a function without arguments."""
    loss = functional_loss(model, measure)

    def step() -> tuple[torch.Tensor, Params]:
        found = meta_step(loss, problem.backbone, problem.start, problem.batch, inner)
        return found.query_loss.mean(), problem.plain_names(found.gradients)

    return step


def in_bfloat16(problem: Problem) -> Step:
    """Returns our meta-step as `AS_PICKED`, with matrix products in bfloat16."""
    inner = InnerLoop(lr=INNER_LR, execution=Execution(**AS_PICKED))
    return step_of(problem, problem.ours.variant(autocast=True), LEARNERS["peft_maml"].step, inner)


CONTENDERS: dict[str, Callable[[Problem], Step]] = {
    FLOOR: floor,
    "ours, looped": ours(way=Way.LOOP),
    "ours, vmapped": ours(**{**AS_PICKED, "way": Way.VMAP}),
    AUTO: ours(**AS_PICKED),
    BFLOAT16: in_bfloat16,
    COMPILED: ours(compile=True, way=Way.ONE_PASS),
    **PEERS,
}


def distance(found: Params, expected: Params) -> float:
    """Returns |found - expected| / |expected| over all weights, which have equal shapes by name."""
    assert found.keys() == expected.keys()
    apart = sum((found[name] - expected[name]).double().square().sum() for name in expected)
    return float((apart / sum(value.double().square().sum() for value in expected.values())).sqrt())


def compare(shape: Shape, size: Size, rounds: int, device: str) -> dict[str, Any]:
    """Measures one shape: seconds and ratios of each contender, or the error with which it fails."""
    problem = make_problem(shape, size, device)
    reference = ours(way=Way.LOOP)(problem)()[1]
    works, errors, apart, first = {}, {}, {}, {}
    for name, make in CONTENDERS.items():
        try:
            step = make(problem)
            began = time.perf_counter()
            gradient = step()[1]
            first[name] = time.perf_counter() - began
        # Any error of a peer is its result.
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        works[name] = step
        if name not in (FLOOR, CLASS):
            apart[name] = distance(gradient, reference)
            limit = 0.1 if name == BFLOAT16 else 1e-4
            assert apart[name] < limit, f"{name} gives another gradient: {apart[name]}"
    took = in_turn(works, rounds)
    bare = np.array(took[FLOOR])
    ratios = {name: quartiles(np.array(seconds) / bare) for name, seconds in took.items()}
    return {
        "shape": [shape.episodes, shape.sentences, shape.length, shape.steps],
        "seconds": {name: vars(quartiles(seconds)) for name, seconds in took.items()},
        "to_floor": {name: vars(found) for name, found in ratios.items()},
        "of_auto": {name: vars(quartiles(np.array(took[name]) / np.array(took[AUTO]))) for name in took},
        "first_call": first,
        "gradient_error": apart,
        "errors": errors,
        "rounds": rounds,
    }


def as_markdown(result: Mapping[str, Any]) -> str:
    """Returns the result as a page with three tables."""
    shapes = result["shapes"]
    header = ["", *(f"({', '.join(map(str, one['shape']))})" for one in shapes)]
    size = result["size"]
    text = [
        "# A meta-step beside every peer",
        "",
        f"`{result['command']}`: {size['layers']} layers x {size['hidden']}, Pfeiffer adapters of 48, float32, first order; "
        f"{result['machine']['device']}, {result['machine']['threads']} thread(s), {result['machine']['processors']} processors. "
        "Columns are (T, B, L, n). Medians over rounds and quartiles, each contender once in every round.",
        "",
        "## Time, as a ratio to the bare work",
        "",
        *_table(header, shapes, "to_floor", {FLOOR}),
        "## Time, as a ratio to what metaprime picks",
        "",
        *_table(header, shapes, "of_auto", {AUTO}),
        f"Faster than that beyond a tie (the quartiles lie below 1): {_faster(shapes)}.",
        "",
        "## Seconds",
        "",
        *_table(header, shapes, "seconds", set()),
    ]
    compiling = [
        f"{seconds:.0f} at ({', '.join(map(str, one['shape']))})"
        for one in shapes
        for name, seconds in one["first_call"].items()
        if name == COMPILED
    ]
    if compiling:
        text += [f"Seconds to compile, one shape after another: {', '.join(compiling)}.", ""]
    errors = {name: error for one in shapes for name, error in one["errors"].items()}
    text += [f"{name} does not run: {error}" for name, error in errors.items()]
    known = {**result["machine"]["versions"], **result["peers"]}
    apart = [(name, error) for one in shapes for name, error in one["gradient_error"].items()]
    worst, rough = (max((e for name, e in apart if (name == BFLOAT16) == low), default=0.0) for low in (False, True))
    text += [
        f"All of them give the same outer gradient, to {worst:.0e} of its norm ({rough:.0e} in bfloat16), but learn2learn's MAML "
        "class, whose inner loop cannot leave the encoder out.",
        "",
        f"Versions: {', '.join(f'{name} {version}' for name, version in known.items())}.",
        "",
    ]
    if size["hidden"] < 768:
        text += ["The same with 12 layers x 768 on a GPU: not measured.", ""]
    return "\n".join(text)


def _faster(shapes: list[Mapping[str, Any]]) -> str:
    """Lists the contenders, with shapes, that are faster than what metaprime picks."""
    found = [
        f"{name} at ({', '.join(map(str, one['shape']))})"
        for one in shapes
        for name, ratio in one["of_auto"].items()
        if name != FLOOR and ratio["high"] < 1
    ]
    return ", ".join(found) or "none"


def _table(header: list[str], shapes: list[Mapping[str, Any]], key: str, without: set[str]) -> list[str]:
    """Returns the lines of a table: a row per contender, a column per shape."""
    lines = [f"| {' | '.join(header)} |", f"|---|{'---:|' * len(shapes)}"]
    for name in CONTENDERS:
        if name not in without:
            cells = [str(Quartiles(**one[key][name])) if name in one[key] else "does not run" for one in shapes]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def plot(result: Mapping[str, Any], file: Path) -> None:
    """Draws the ratios to the bare work, with a group of bars per shape."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4))
    names = [name for name in CONTENDERS if name != FLOOR]
    for place, name in enumerate(names):
        found = [(at, one["to_floor"][name]) for at, one in enumerate(result["shapes"]) if name in one["to_floor"]]
        width = 0.8 / len(names)
        x = [at + (place - len(names) / 2) * width for at, _ in found]
        axes.bar(x, [one["middle"] for _, one in found], width=0.9 * width, label=name)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(
        range(len(result["shapes"])), [f"({', '.join(map(str, one['shape']))})" for one in result["shapes"]]
    )
    axes.set_ylabel("time, bare work = 1")
    axes.legend(fontsize=7, ncol=2)
    figure.tight_layout()
    figure.savefig(file, dpi=130)


def main() -> None:
    """Compares all contenders on all shapes and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shapes", default="0,1,2,3")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--eager", action="store_true")
    given = parser.parse_args()
    if given.eager:
        del CONTENDERS[COMPILED]
    torch.set_num_threads(given.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = Size(12, 768, 12) if device == "cuda" else Size()
    shapes = []
    for index in given.shapes.split(","):
        shapes.append(compare(SHAPES[int(index)], size, given.rounds, device))
        print({name: round(found["middle"], 3) for name, found in shapes[-1]["to_floor"].items()}, flush=True)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "size": vars(size),
        "machine": machine(device),
        "peers": {name: importlib.metadata.version(name) for name in ("learn2learn", "torchopt", "higher")},
        "shapes": shapes,
    }
    given.out.mkdir(exist_ok=True)
    (given.out / "meta_step.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (given.out / "meta_step.md").write_text(as_markdown(result), encoding="utf-8")
    plot(result, given.out / "meta_step.png")


if __name__ == "__main__":
    main()
