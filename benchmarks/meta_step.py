"""Times a first-order meta-step of this package and of every peer.

    python benchmarks/meta_step.py [--rounds 9] [--shapes 0,1,2,3] [--eager]
    python benchmarks/meta_step.py --source SOURCE --languages L,L,... --encoder DIR [--rounds 3]

Times are ratios to the bare work, the "floor", which every way of adapting T episodes includes: n
passes with gradients of one shared phi and head, and one pass with those of the encoder, over the
same padded sub-words in one batch. Peers get the same padded tensors; ours packs them unless its
name says otherwise. No side takes an optimizer step. Before timing, each contender's outer gradient
is compared with ours, padded and one episode at a time. Compiling ours takes minutes per shape;
`--eager` skips it. Writes benchmarks/results/meta_step.json, .md and .png.

With a source (such as parquet:data/wikiann) and the folder of a BERT, episodes are drawn as priming
draws them, each round has another meta-batch, and peak memory is measured too; `--peers TEXT` leaves
out the peers without that text in their names. Writes benchmarks/results/meta_step_real.json and .md.
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
from memory import peak_allocated, peak_saved
from peers import PEERS, Step, floor
from problem import INNER_LR, Problem, Shape, Size, make_problem, measure
from real import Sentences, draws, read
from timing import Quartiles, in_turn, machine, quartiles, seconds_of, without_folders

from metaprime.meta import LEARNERS, Execution, InnerLoop, MetaStep, Way
from metaprime.meta.chunks import CPU_SUBWORDS
from metaprime.meta.compiled import compiled
from metaprime.models.task_model import TaskModel, functional_loss
from metaprime.types import Params

SHAPES = (Shape(4, 4, 16, 5), Shape(4, 8, 32, 5), Shape(8, 4, 32, 5), Shape(8, 16, 64, 1))
REAL_SHAPES = (Shape(4, 4, 0, 5), Shape(4, 16, 0, 5), Shape(8, 4, 0, 5), Shape(8, 16, 0, 5))
RESULTS = Path(__file__).parent / "results"

FLOOR, AUTO, PADDED, BFLOAT16, COMPILED = (
    "floor",
    "ours, auto",
    "ours, padded",
    "ours, auto, bfloat16",
    "ours, auto, compiled",
)
AS_PICKED: dict[str, Any] = {
    "way": Way.ONE_PASS,
    "subwords": None if torch.cuda.is_available() else CPU_SUBWORDS,
    "packed": True,
}
"""Execution that `inner.task_chunk: auto` chooses if memory suffices."""

IDIOM, CLASS = "learn2learn, clone and update", "learn2learn, MAML class"
"""learn2learn by functions, and by its class, whose inner loop moves the encoder too: another gradient, and more work."""

Make = Callable[[Problem], Step]


def ours(compile: bool = False, **execution: Any) -> Make:
    """Returns a maker of our meta-step with some `Execution`, padded unless it packs; compiled if asked for."""
    meta_step = compiled(LEARNERS["peft_maml"].step) if compile else LEARNERS["peft_maml"].step
    inner = InnerLoop(lr=INNER_LR, execution=Execution(**execution))

    def make(problem: Problem) -> Step:
        return step_of(problem, problem.ours if inner.execution.packs else problem.padded, meta_step, inner)

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
    return ours(**AS_PICKED)(problem.in_bfloat16())


CONTENDERS: dict[str, Make] = {
    FLOOR: floor,
    "ours, looped": ours(way=Way.LOOP, packed=True),
    "ours, vmapped": ours(**{**AS_PICKED, "way": Way.VMAP}),
    AUTO: ours(**AS_PICKED),
    PADDED: ours(**{**AS_PICKED, "packed": False}),
    BFLOAT16: in_bfloat16,
    COMPILED: ours(compile=True, way=Way.ONE_PASS),
    **PEERS,
}

ON_REAL_LENGTHS = (FLOOR, AUTO, PADDED, *PEERS)
"""Contenders for sentences of a source; the other ways and precisions of ours are timed on random lengths."""

Timed = Callable[[Mapping[str, Step]], dict[str, list[float]]]
"""Returns the seconds of each step in each round."""


def distance(found: Params, expected: Params) -> float:
    """Returns |found - expected| / |expected| over all weights, which have equal shapes by name."""
    assert found.keys() == expected.keys()
    apart = sum((found[name] - expected[name]).double().square().sum() for name in expected)
    return float((apart / sum(value.double().square().sum() for value in expected.values())).sqrt())


def compare(problem: Problem, contenders: Mapping[str, Make], timed: Timed) -> dict[str, Any]:
    """Measures one shape: seconds and ratios of each contender, or the error with which it fails.

    Args:
        problem: the problem on which gradients are compared.
        contenders: name -> maker of its step.
        timed: measures the steps.
    """
    reference = ours(way=Way.LOOP)(problem)()[1]
    works, errors, apart, first = {}, {}, {}, {}
    for name, make in contenders.items():
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
    took = timed(works)
    rounds = len(took[FLOOR])
    beside = {"to_floor": FLOOR, "of_auto": AUTO, "of_idiom": IDIOM}
    ratios = {
        key: {name: vars(quartiles(np.array(took[name]) / np.array(took[other]))) for name in took}
        for key, other in beside.items()
        if other in took
    }
    return {
        "shape": problem.shape.sizes,
        "seconds": {name: vars(quartiles(seconds)) for name, seconds in took.items()},
        **ratios,
        "first_call": first,
        "gradient_error": apart,
        "errors": errors,
        "rounds": rounds,
    }


def compare_real(sentences: Sentences, shape: Shape, contenders: Mapping[str, Make], rounds: int) -> dict[str, Any]:
    """Measures one shape on meta-batches of a source, another one in each round, and peak memory."""
    draw = draws(sentences, shape)

    def timed(works: Mapping[str, Step]) -> dict[str, list[float]]:
        took: dict[str, list[float]] = {name: [] for name in works}
        for number in range(1, rounds + 1):
            problem = draw(number)
            for name in works:
                took[name].append(seconds_of(contenders[name](problem)))
        return took

    first = draw(0)
    found = compare(first, contenders, timed)
    masks = [batch["attention_mask"] for batch in (*first.batch.support, first.batch.query)]
    padding = 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)
    return {**found, "padding": padding, "memory": memory(first)}


def memory(problem: Problem) -> dict[str, dict[str, float]]:
    """Returns the peak memory of our meta-step in MiB, packed and padded, in passes as picked and all in one pass."""
    weights = [*problem.backbone.values(), *problem.start.values()]
    found = {}
    for name, subwords in (("passes as picked", AS_PICKED["subwords"]), ("all episodes in one pass", None)):
        steps = {
            kind: ours(way=Way.ONE_PASS, subwords=subwords, packed=kind == "packed")(problem)
            for kind in ("packed", "padded")
        }
        for account, peak in (
            ("kept for backward passes", lambda step: peak_saved(step, weights)),
            ("allocated", peak_allocated),
        ):
            found[f"{account}, {name}"] = {kind: peak(step) for kind, step in steps.items()}
    return found


def as_markdown(result: Mapping[str, Any]) -> str:
    """Returns the result as a page with tables."""
    shapes = result["shapes"]
    header = ["", *(_named(one) for one in shapes)]
    text = [
        "# A meta-step beside every peer",
        "",
        f"`{result['command']}`: {result['work']}, Pfeiffer adapters of 48, float32, first order; "
        f"{result['machine']['device']}, {result['machine']['threads']} thread(s), {result['machine']['processors']} processors. "
        "Medians over rounds and quartiles, each contender once in every round.",
        "",
        "## Time, as a ratio to the bare work",
        "",
        *_table(header, shapes, "to_floor", {FLOOR}),
        "## Time, as a ratio to what metaprime picks",
        "",
        *_table(header, shapes, "of_auto", {AUTO}),
        f"Faster than that beyond a tie (the quartiles lie below 1): {_faster(shapes)}.",
        "",
    ]
    if any("of_idiom" in one for one in shapes):
        text += ["## Time, as a ratio to learn2learn's idiom", "", *_table(header, shapes, "of_idiom", {IDIOM})]
    text += ["## Seconds", "", *_table(header, shapes, "seconds", set()), *_memory_lines(shapes)]
    compiling = [
        f"{seconds:.0f} at {_named(one)}"
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
    in_low = f" ({rough:.0e} in bfloat16)" if rough else ""
    text += [
        f"All of them give the same outer gradient, to {worst:.0e} of its norm{in_low}, but learn2learn's MAML "
        "class, whose inner loop cannot leave the encoder out.",
        "",
        f"Versions: {', '.join(f'{name} {version}' for name, version in known.items())}.",
        "",
    ]
    return "\n".join(text)


def _named(one: Mapping[str, Any]) -> str:
    """Returns the shape of a result as the head of a column: `(4, 4, 16, 5)`."""
    return f"({', '.join(map(str, one['shape']))})"


def _memory_lines(shapes: list[Mapping[str, Any]]) -> list[str]:
    """Returns the table of peak memory; no lines where it was not measured."""
    measured = [one for one in shapes if "memory" in one]
    if not measured:
        return []
    lines = [
        "## Peak memory of our meta-step",
        "",
        "MiB, weights apart, of one meta-batch, packed / padded and their ratio. Gradients of the encoder are in what is "
        "allocated, and are as large packed as padded.",
        "",
        f"| | {' | '.join(map(_named, measured))} |",
        f"|---|{'---:|' * len(measured)}",
    ]
    for account in measured[0]["memory"]:
        both = [one["memory"][account] for one in measured]
        cells = [f"{one['packed']:.0f} / {one['padded']:.0f} = {one['packed'] / one['padded']:.2f}" for one in both]
        lines.append(f"| {account} | {' | '.join(cells)} |")
    padding = ", ".join(f"{100 * one['padding']:.0f} % at {_named(one)}" for one in measured)
    return [*lines, "", f"Padding of that meta-batch, stacked: {padding}.", ""]


def _faster(shapes: list[Mapping[str, Any]]) -> str:
    """Lists the contenders, with shapes, that are faster than what metaprime picks."""
    found = [
        f"{name} at {_named(one)}"
        for one in shapes
        for name, ratio in one["of_auto"].items()
        if name != FLOOR and ratio["high"] < 1
    ]
    return ", ".join(found) or "none"


def _table(header: list[str], shapes: list[Mapping[str, Any]], key: str, without: set[str]) -> list[str]:
    """Returns the lines of a table: a row per contender, a column per shape."""
    lines = [f"| {' | '.join(header)} |", f"|---|{'---:|' * len(shapes)}"]
    for name in CONTENDERS:
        tried = any(name in one["seconds"] or name in one["errors"] for one in shapes)
        if tried and name not in without:
            cells = [str(Quartiles(**one[key][name])) if name in one.get(key, {}) else "does not run" for one in shapes]
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
    axes.set_xticks(range(len(result["shapes"])), [_named(one) for one in result["shapes"]])
    axes.set_ylabel("time, bare work = 1")
    axes.legend(fontsize=7, ncol=2)
    figure.tight_layout()
    figure.savefig(file, dpi=130)


def of_random_lengths(given: argparse.Namespace, device: str) -> dict[str, Any]:
    """Compares all contenders on sentences of random lengths; what the page needs."""
    size = Size(12, 768, 12) if device == "cuda" else Size()
    contenders = {name: make for name, make in CONTENDERS.items() if not (given.eager and name == COMPILED)}
    shapes = []
    for index in given.shapes.split(","):
        problem = make_problem(SHAPES[int(index)], size, device)
        shapes.append(compare(problem, contenders, lambda works: in_turn(works, given.rounds or 9)))
        _say(shapes[-1])
    work = f"{size.layers} layers x {size.hidden}, sentences of L/2 to L sub-words, columns are (T, B, L, n)"
    return {"work": work, "shapes": shapes}


def of_real_lengths(given: argparse.Namespace) -> dict[str, Any]:
    """Compares contenders on the sentences of a source; what the page needs."""
    languages = given.languages.split(",")
    sentences = read(given.source, languages, given.encoder)
    left_out = {name for name in PEERS if given.peers not in name}
    contenders = {name: CONTENDERS[name] for name in ON_REAL_LENGTHS if name not in left_out}
    shapes = []
    for index in given.shapes.split(","):
        shapes.append(compare_real(sentences, REAL_SHAPES[int(index)], contenders, given.rounds or 3))
        _say(shapes[-1])
    work = (
        f"sentences of {', '.join(languages)}, drawn as priming draws them, another meta-batch in each round, columns are "
        "(T, B, n) with queries of B sentences"
    )
    return {"work": work, "shapes": shapes}


def _say(one: Mapping[str, Any]) -> None:
    """Prints the ratios of a shape to the bare work."""
    print(_named(one), {name: round(found["middle"], 3) for name, found in one["to_floor"].items()}, flush=True)


def version_of(package: str) -> str:
    """Returns the version of an installed package: `version_of("higher")`."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def main() -> None:
    """Compares contenders on all shapes and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shapes", default="0,1,2,3")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--source")
    parser.add_argument("--languages")
    parser.add_argument("--encoder")
    parser.add_argument("--peers", default="")
    given = parser.parse_args()
    if len({bool(given.source), bool(given.languages), bool(given.encoder)}) > 1:
        parser.error("--source, --languages and --encoder go together")
    torch.set_num_threads(given.threads)
    device = "cuda" if torch.cuda.is_available() and not given.source else "cpu"
    result = {
        "command": " ".join(["python", *map(without_folders, sys.argv)]),
        "machine": machine(device),
        "peers": {name: version_of(name) for name in ("learn2learn", "torchopt", "higher")},
        **(of_real_lengths(given) if given.source else of_random_lengths(given, device)),
    }
    name = "meta_step_real" if given.source else "meta_step"
    given.out.mkdir(exist_ok=True)
    (given.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (given.out / f"{name}.md").write_text(as_markdown(result), encoding="utf-8")
    if not given.source:
        plot(result, given.out / f"{name}.png")


if __name__ == "__main__":
    main()
