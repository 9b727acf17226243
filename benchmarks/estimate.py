"""Compares the estimates of `metaprime estimate` with the runs that they forecast.

    python benchmarks/estimate.py [--steps 8] [--shapes 0,1,2,3]

For each shape of meta_step.py, with an encoder of 6 layers x 384 and sentences of about L
sub-words, the script runs the estimate and then `metaprime prime`, each in its own process. Writes
benchmarks/results/estimate.json and .md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from meta_step import RESULTS, SHAPES
from problem import Shape
from processes import COMMAND, run_measured
from timing import machine

from metaprime.build.pretrain import pretrain
from metaprime.config.sections import PretrainConfig
from metaprime.data.readers import synthetic

LANGUAGES, SENTENCES = ("qaa", "qab", "qaf", "qag"), 400


def write_corpus(folder: Path, length: int) -> None:
    """Writes CoNLL files of texts of `length // 2` words, joined from synthetic sentences."""
    for language in LANGUAGES:
        words: list[str] = []
        lines: list[str] = []
        count = 0
        for sentence in synthetic.read("", language, "train"):
            words += [f"{word}\t{tag}" for word, tag in zip(sentence.words, sentence.gold, strict=True)]
            if len(words) >= length // 2 and count < SENTENCES:
                lines += [*words[: length // 2], ""]
                words, count = [], count + 1
        (folder / language).mkdir(parents=True)
        (folder / language / "train.conll").write_text("\n".join(lines) + "\n", encoding="utf-8")


def overrides(shape: Shape, corpus: Path, encoder: Path, output: Path, steps: int) -> list[str]:
    """Returns the overrides of the config for a shape."""
    return [
        f"run.output={output}",
        f"encoder.name={encoder}",
        f"data.source=conll:{corpus}",
        f"data.languages={json.dumps(LANGUAGES)}",
        "data.validation_languages=[]",
        "data.target_languages=[]",
        f"data.max_length={shape.length}",
        "data.long=truncate",
        f"episodes.per_step={shape.episodes}",
        f"episodes.support={shape.sentences}",
        f"episodes.query={shape.sentences}",
        f"inner.steps={shape.steps}",
        f"outer.steps={steps}",
        "outer.validate_every=0",
        "outer.lr=1e-4",
    ]


def compare(shape: Shape, encoder: Path, folder: Path, steps: int) -> dict[str, Any]:
    """Returns estimated and measured seconds per meta-step and peak memory (MiB) of a shape."""
    corpus = folder / "corpus"
    write_corpus(corpus, shape.length)
    config = folder / "config.yaml"
    config.write_text("{}\n", encoding="utf-8")
    given = [str(config), *overrides(shape, corpus, encoder, folder / "run", steps)]
    said = json.loads(run_measured(COMMAND, ["estimate", *given, "--json"]).output)
    resident = run_measured(COMMAND, ["prime", *given]).peak
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    # FLOPs are counted in the first step, which takes longer.
    seconds = [line["volatile"]["seconds"] for line in lines[1:]]
    return {
        "shape": [shape.episodes, shape.sentences, shape.length, shape.steps],
        "seconds": {"said": said["seconds_per_step"], "took": statistics.fmean(seconds)},
        "memory": {"said": said["peak_mib"], "took": resident},
        "subwords": said["subwords_per_step"],
    }


def main() -> None:
    """Compares all shapes, writes the results and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--shapes", default="0,1,2,3")
    given = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        encoder = Path(folder) / "encoder"
        pretrain(
            PretrainConfig(layers=6, hidden=384, heads=12, steps=2, threads=1), "synthetic:", encoder, lambda *_: None
        )
        for index in given.shapes.split(","):
            found.append(compare(SHAPES[int(index)], encoder, Path(folder) / index, given.steps))
            print(found[-1], flush=True)
    result = {"command": " ".join(["python", *sys.argv]), "machine": machine("cpu"), "found": found}
    (RESULTS / "estimate.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = [
        "# What `metaprime estimate` says, and what runs take",
        "",
        f"`{result['command']}`: 6 layers x 384, {given.steps} meta-steps each; {result['machine']['device']}, 1 thread.",
        "",
        "| (T, B, L, n) | seconds per meta-step: said | took | ratio | peak memory, MiB: said | took | ratio |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for one in found:
        cells = [f"{one[key]['said']:.{n}f} | {one[key]['took']:.{n}f}" for key, n in (("seconds", 2), ("memory", 0))]
        ratios = [one[key]["said"] / one[key]["took"] for key in ("seconds", "memory")]
        shape = ", ".join(map(str, one["shape"]))
        text.append(f"| ({shape}) | {cells[0]} | {ratios[0]:.2f} | {cells[1]} | {ratios[1]:.2f} |")
    (RESULTS / "estimate.md").write_text("\n".join([*text, ""]), encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
