"""Measures how the time of a first-order meta-step grows, and its peak memory.

    python benchmarks/growth.py [--rounds 5]

Each of T, n, B and L is doubled three times from a base shape while the others stay; the exponent
is the slope of log seconds over log size. Memory is the peak of a separate process above that of
model and data, for meta-steps and for full fine-tuning on as many sub-words as one of their passes
has. Writes benchmarks/results/growth.json and .md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from memory import peak_allocated
from meta_step import AS_PICKED, RESULTS, ours
from problem import Shape, Size, make_problem
from timing import in_turn, machine, quartiles

BASE = Shape(2, 4, 32, 2)
AXES = {"T": "episodes", "n": "steps", "B": "sentences", "L": "length"}
DOUBLINGS = (1, 2, 4, 8)
MEMORY_SHAPE = Shape(4, 8, 32, 5)
PASSES = 12
"""Forward and backward passes before resident memory is read."""


def exponents(rounds: int) -> dict[str, Any]:
    """Measures seconds by size along each axis, and fits the slope of their logarithms."""
    found: dict[str, Any] = {}
    for name, field in AXES.items():
        sizes = [getattr(BASE, field) * factor for factor in DOUBLINGS]
        works = {str(size): ours(**AS_PICKED)(make_problem(replace(BASE, **{field: size}), Size())) for size in sizes}
        took = {size: quartiles(seconds).middle for size, seconds in in_turn(works, rounds).items()}
        slope = np.polyfit(np.log(sizes), np.log(list(took.values())), 1)[0]
        found[name] = {"seconds": took, "exponent": float(slope)}
        print(name, found[name], flush=True)
    return found


def peak(what: str) -> dict[str, float]:
    """Measures memory in MiB above the start: torch's peak, and resident after PASSES passes."""
    torch.set_num_threads(1)
    problem = make_problem(MEMORY_SHAPE, Size())
    if what == "meta-step":
        work: Any = ours(**AS_PICKED)(problem)
        passes = MEMORY_SHAPE.steps + 1
    else:
        flat = {name: tensor.flatten(0, 1) for name, tensor in problem.batch.query.items()}
        work = lambda: torch.autograd.grad(problem.plain(flat), list(problem.plain.parameters()))  # noqa: E731
        passes = 1
    before = _status("VmRSS")
    for _ in range(PASSES // passes):
        work()
    resident = _status("VmHWM") - before
    return {"allocated": peak_allocated(work), "resident": resident}


def _status(key: str) -> float:
    """Returns a field of /proc/self/status in MiB, such as VmRSS."""
    with open("/proc/self/status", encoding="utf-8") as lines:
        return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def memory(rounds: int) -> dict[str, dict[str, float]]:
    """Measures the peak memory of both kinds of work, each the median over separate processes."""
    found: dict[str, list[dict[str, float]]] = {"meta-step": [], "fine-tuning": []}
    for _ in range(rounds):
        for what in found:
            done = subprocess.run(
                [sys.executable, __file__, "--peak", what], capture_output=True, text=True, check=True
            )
            found[what].append(json.loads(done.stdout.splitlines()[-1]))
    return {
        what: {key: float(np.median([one[key] for one in values])) for key in values[0]}
        for what, values in found.items()
    }


def as_markdown(result: Mapping[str, Any]) -> str:
    """Returns the result as a page with two tables."""
    base = ", ".join(map(str, result["base"].values()))
    lines = [
        "# How a meta-step grows",
        "",
        f"`{result['command']}`: 6 layers x 384, Pfeiffer adapters of 48, float32, first order, as metaprime picks; "
        f"{result['machine']['device']}, {result['machine']['threads']} thread(s). Base (T, B, L, n) = ({base}).",
        "",
        "| | seconds at 1, 2, 4, 8 times the base | exponent |",
        "|---|---|---:|",
    ]
    for name, axis in result["growth"].items():
        seconds = ", ".join(f"{value:.3f}" for value in axis["seconds"].values())
        lines.append(f"| {name} | {seconds} | {axis['exponent']:.2f} |")
    took = result["memory"]
    shape = ", ".join(map(str, result["memory_shape"].values()))
    lines += [
        "",
        f"Memory at ({shape}), in MiB above model and data, beside ordinary fine-tuning of everything on the sub-words of one "
        f"pass of a meta-step: the most that torch allocates, and what is resident after {PASSES} passes.",
        "",
        "| | a meta-step | fine-tuning | ratio |",
        "|---|---:|---:|---:|",
    ]
    for key in ("allocated", "resident"):
        one, other = took["meta-step"][key], took["fine-tuning"][key]
        lines.append(f"| {key} | {one:.0f} | {other:.0f} | {one / other:.2f} |")
    lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measures, writes the results and prints the page; with --peak only measures memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", choices=("meta-step", "fine-tuning"))
    given = parser.parse_args()
    if given.peak:
        print(json.dumps(peak(given.peak)))
        return
    torch.set_num_threads(1)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine("cpu"),
        "base": asdict(BASE),
        "memory_shape": asdict(MEMORY_SHAPE),
        "growth": exponents(given.rounds),
        "memory": memory(3),
    }
    (RESULTS / "growth.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "growth.md").write_text(as_markdown(result), encoding="utf-8")
    print(as_markdown(result))


if __name__ == "__main__":
    main()
