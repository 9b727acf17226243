"""Measures the CPU time of the first twelve commands of a newcomer, each in a new process.

    python benchmarks/newcomer.py

The commands run in an empty folder, on the synthetic languages and on a small corpus in CoNLL's format;
three of them are mistakes, which metaprime refuses. Writes `benchmarks/results/newcomer.md`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from processes import COMMAND, run_measured

from metaprime.reports.wording import markdown
from metaprime.runs.provenance import versions

PAGE = Path(__file__).parent / "results" / "newcomer.md"
CELL = "run/transfer/primed/qai-lora-k8-s0"
CONFIG = """
run: {output: run}
encoder: {pretrain: {layers: 2, hidden: 32, heads: 2, vocabulary: 500, steps: 20, batch: 8}}
data: {languages: [qaa, qab], validation_languages: [qad], target_languages: [qai]}
episodes: {per_step: 2, support: 2, query: 4}
peft: {method: lora}
inner: {steps: 2}
outer: {steps: 5, validate_every: 5}
transfer: {methods: [lora], shots: 8, steps: 5, lr: 0.01, test_sentences: 20}
"""
COMMANDS = (
    (0, "--version"),
    (0, "--help"),
    (0, "peft list"),
    (2, "demo missing.yaml"),
    (2, "prime config.yaml inner.stepz=3"),
    (2, "data check conll:missing"),
    (0, "data check conll:corpus task.labels=[PER]"),
    (0, "estimate config.yaml"),
    (0, "prime config.yaml"),
    (0, "transfer config.yaml"),
    (0, f"predict {CELL} Mali"),
    (0, f"peft export {CELL} exported"),
)
"""Exit code and words of each command. They run in this order: some read what others have written."""


def corpus(folder: Path) -> None:
    """Writes two languages of three splits, without a sentence that occurs twice."""
    for language in ("aa", "bb"):
        (folder / language).mkdir(parents=True)
        for split in ("train", "validation", "test"):
            sentences = (f"Ada\tB-PER\nnaps\tO\n{language}{split}{number}\tO\n" for number in range(40))
            (folder / language / f"{split}.conll").write_text("\n".join(sentences), encoding="utf-8")


def measured(expected: int, words: str, folder: Path) -> list[str]:
    """Runs a command and returns its row: CPU and wall seconds, and exit code."""
    cost = run_measured(COMMAND, words.split(), folder, expected=expected)
    return [f"`metaprime {words}`", f"{cost.cpu:.1f}", f"{cost.clock:.1f}", str(expected)]


def main() -> None:
    """Runs the commands, writes the page and prints it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
        corpus(folder / "corpus")
        rows = [measured(expected, words, folder) for expected, words in COMMANDS]
    facts = ", ".join(f"{key} {value}" for key, value in versions().items())
    table = markdown(("command", "CPU seconds", "wall seconds", "exit code"), rows)
    PAGE.write_text(f"{table}\nWritten by `python benchmarks/newcomer.py`; {facts}.\n", encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
