"""Measures how the time of a real priming run is spent.

    python benchmarks/run_share.py CONFIG.yaml [key=value ...]

Primes as `metaprime prime` does, with timers around the meta-step (inner loop, query pass,
gradients), the outer step, drawing and padding of episodes, and checkpoints. Measures also how many
sentences per second are scored. Writes benchmarks/results/run_share.json and .md.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from meta_step import RESULTS
from timing import machine

import metaprime.priming.prime as priming
from metaprime.config.loading import load_config, override
from metaprime.data.rows import Example
from metaprime.data.sources import read_raw
from metaprime.meta import LEARNERS
from metaprime.priming.best import Best
from metaprime.priming.outer import OuterLoop
from metaprime.tasks import TASKS

took: dict[str, float] = defaultdict(float)
"""Part of the run -> seconds."""


def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a function so that its seconds are added to `took`."""

    def run(*given: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return work(*given, **named)
        finally:
            took[name] += time.perf_counter() - began

    return run


def main() -> None:
    """Primes with timers, writes the results and prints the page."""
    file, *overrides = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        # Put timers around the parts.
        config = override(load_config(file, overrides), f"run.output={folder}/run")
        name = config.learner.name
        LEARNERS[name] = replace(LEARNERS[name], step=timed("meta-step", LEARNERS[name].step))
        for part, owner, attribute in (
            ("episodes drawn, padded, moved", priming, "draw"),
            ("outer step", OuterLoop, "step"),
            ("checkpoints", priming, "save_state"),
            ("held-out", Best, "look"),
            ("start: encoder, data, checks", priming, "set_up"),
        ):
            setattr(owner, attribute, timed(part, getattr(owner, attribute)))
        loop_itself = priming._loop

        def started(*given: Any) -> None:
            # Meta-steps of the checks before the loop belong to the start.
            took["meta-step"] = 0.0
            loop_itself(*given)

        priming._loop = timed("loop", started)

        # Prime, then score sentences against themselves.
        began = time.perf_counter()
        priming.prime(config, quiet=True)
        whole = time.perf_counter() - began
        read = read_raw(config.data.source, config.data.languages[0], config.data.train_split)
        examples: list[Example] = read.sentences[:2000]
        began = time.perf_counter()
        TASKS[config.task.name].score(examples, [list(example.gold) for example in examples])
        scored = len(examples) / (time.perf_counter() - began)
    loop = took.pop("loop") - took["held-out"]
    model = took["meta-step"] + took["outer step"]
    result = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine("cpu"),
        "steps": config.outer.steps,
        "seconds": {**took, "loop": loop, "whole": whole},
        "outside": (loop - model) / loop,
        "outside_with_start": (whole - took["held-out"] - model) / (whole - took["held-out"]),
        "sentences_scored_per_second": scored,
    }
    (RESULTS / "run_share.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = [
        "# Where the time of a priming run goes",
        "",
        f"`{result['command']}`: {config.outer.steps} meta-steps; {result['machine']['device']}, 1 thread.",
        "",
        "| | seconds |",
        "|---|---:|",
        *(f"| {part} | {seconds:.2f} |" for part, seconds in result["seconds"].items()),
        "",
        f"Outside meta-step and outer step: {100 * result['outside']:.1f} % of the loop, "
        f"{100 * result['outside_with_start']:.1f} % of the whole run (validation apart). Scoring: {scored:.0f} sentences per "
        "second, of 2000.",
        "",
    ]
    (RESULTS / "run_share.md").write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
