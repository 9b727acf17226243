"""Measures the cost of starting a run, with an empty cache of sub-words and with a full one.

    python benchmarks/start.py SOURCE LANGUAGES ENCODER

Reads and encodes the training split of each language (sentences per second; quartiles over rounds,
cold and cached in turn in one process), then starts real priming runs in new processes and measures
the seconds, and CPU seconds, until the first meta-step is in `metrics.jsonl`. Writes `benchmarks/results/start.json`
and `start.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from metaprime.config.loading import load_config
from metaprime.data.rows import Lengths
from metaprime.data.subwords import Subwords
from metaprime.models.encoder import load_tokenizer
from metaprime.runs.provenance import versions
from metaprime.tasks.tagging.labels import LabelSet, Rules
from metaprime.tasks.tagging.reading import read
from metaprime.tasks.tagging.windows import encode

ROUNDS = 5
RESULTS = Path(__file__).parent / "results"


def main(source: str, names: str, encoder: str) -> None:
    """Measures throughput and starts, writes the results and prints the page."""
    with tempfile.TemporaryDirectory() as folder:
        rows = throughput(source, names.split(","), encoder, Path(folder) / "encode")
        starts = first_steps(source, names.split(","), encoder, Path(folder))
    result = {
        "source": source.rpartition("/")[2],
        "languages": names.split(","),
        "encoder": Path(encoder).parent.name,
        "per_second": rows,
        "seconds_to_first_step": {state: [clock for clock, _ in found] for state, found in starts.items()},
        "cpu_seconds_to_first_step": {state: [cpu for _, cpu in found] for state, found in starts.items()},
        "processors": os.cpu_count(),
        "versions": versions(),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "start.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (RESULTS / "start.md").write_text(as_markdown(result), encoding="utf-8")
    print(as_markdown(result))


def throughput(source: str, names: list[str], encoder: str, cache: Path) -> dict[str, dict[str, float]]:
    """Measures sentences per second: read, encoded by the tokenizer, encoded from the cache."""
    labels = LabelSet(("PER", "ORG", "LOC"), {"MISC": "O", "DATE": "O"})
    tokenizer = load_tokenizer(encoder)
    took: dict[str, list[float]] = {"read": [], "encode, cold": [], "encode, cached": []}
    for _ in range(ROUNDS):
        shutil.rmtree(cache, ignore_errors=True)
        began = time.perf_counter()
        texts = [read(source, name, "train", Rules(labels)) for name in names]
        took["read"].append(time.perf_counter() - began)
        for key in ("encode, cold", "encode, cached"):
            subwords = Subwords(tokenizer, cache)
            began = time.perf_counter()
            for sentences in texts:
                encode(sentences, subwords, labels, Lengths(128))
            took[key].append(time.perf_counter() - began)
    count = sum(map(len, texts))
    quartiles = {key: np.quantile(count / np.array(seconds), [0.25, 0.5, 0.75]) for key, seconds in took.items()}
    return {
        key: dict(zip(("low", "median", "high"), map(float, values), strict=True)) for key, values in quartiles.items()
    }


def first_steps(source: str, names: list[str], encoder: str, folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Measures seconds and CPU seconds from the start of `metaprime prime` to its first meta-step, cold and cached."""
    found: dict[str, list[tuple[float, float]]] = {"cold": [], "cached": []}
    for turn in range(3):
        cache = folder / f"cache{turn}"
        for state in found:
            output = folder / f"{state}{turn}"
            began = time.perf_counter()
            changes = [f"run.output={output}", f"data.source={source}", f"data.languages=[{','.join(names)}]"]
            changes += ["outer.steps=1", "outer.validate_every=0", f"encoder.name={encoder}"]
            changes += ["task.label_map={MISC: O, DATE: O}", "data.validation_languages=[]"]
            load_config(None, changes)
            command = [sys.executable, "-m", "metaprime", "prime", str(folder / "empty.yaml"), *changes]
            (folder / "empty.yaml").write_text("{}\n", encoding="utf-8")
            environment = {**os.environ, "METAPRIME_CACHE": str(cache)}
            process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            metrics, spent = output / "metrics.jsonl", 0.0
            while process.poll() is None and not (metrics.is_file() and metrics.stat().st_size):
                time.sleep(0.01)
                with contextlib.suppress(psutil.Error):
                    times = psutil.Process(process.pid).cpu_times()
                    spent = times.user + times.system
            found[state].append((time.perf_counter() - began, spent))
            if process.wait():
                raise SystemExit(f"{' '.join(command)} failed")
    return found


def as_markdown(result: dict[str, object]) -> str:
    """Returns the result as a page with two tables."""
    per_second = result["per_second"]
    assert isinstance(per_second, dict)
    lines = ["| sentences per second | median | quartiles |", "| --- | ---: | ---: |"]
    lines += [f"| {key} | {v['median']:,.0f} | {v['low']:,.0f} - {v['high']:,.0f} |" for key, v in per_second.items()]
    for key, what in (("seconds_to_first_step", "seconds"), ("cpu_seconds_to_first_step", "CPU seconds")):
        starts = result[key]
        assert isinstance(starts, dict)
        lines += ["", f"| {what} to the first meta-step | least | all |", "| --- | ---: | ---: |"]
        for state, seconds in starts.items():
            lines.append(f"| {state} | {min(seconds):.1f} | {', '.join(f'{value:.1f}' for value in seconds)} |")
    facts = ", ".join(f"{key} {value}" for key, value in dict(result["versions"]).items())  # type: ignore[call-overload]
    where = f"{result['source']} {', '.join(result['languages'])}; {result['encoder']}"  # type: ignore[arg-type]
    return "\n".join([*lines, "", f"{where}; {result['processors']} processors; {facts}.", ""])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("languages", help="de,en,es")
    parser.add_argument("encoder")
    main(*vars(parser.parse_args()).values())
