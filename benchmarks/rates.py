"""Measures the rates of an encoder: F1 of transfers at each rate, and the spread of features at each outer rate.

    python benchmarks/rates.py SOURCE LANGUAGE ENCODER --methods lora,ia3 --rates 1e-3,3e-3,1e-2
    python benchmarks/rates.py SOURCE LANGUAGE ENCODER --outer 1e-5,1e-4,2e-3

Transfers fine-tune on 100 sentences of the language, with one seed, and score 300 of its test
sentences. Outer rates prime on the language for 40 meta-steps of the default size; a spread near 0
is a collapse (`metaprime/priming/collapse.py`). Adds to `benchmarks/results/rates.json`, from which
`rates.md` is written; finished transfers are kept in the folder `--output`, so that a broken run
resumes. `metaprime/config/presets.py` and the field `rate` of each method hold what was chosen.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metaprime import MetaprimeError, load_config, prime, transfer
from metaprime.config.sections import Config
from metaprime.peft import METHODS
from metaprime.runs.log import read_metrics
from metaprime.runs.provenance import versions

RESULTS = Path(__file__).parent / "results"
SEED, SHOTS, TESTED, STEPS = 0, 100, 300, 40


def config_of(options: argparse.Namespace, name: str, *changes: str) -> Config:
    """Returns the config of one measurement, in a folder of its own."""
    where = [f"run.output={options.output / Path(options.encoder).name / name}", f"encoder.name={options.encoder}"]
    data = [f"data.source={options.source}", "data.validation_languages=[]", f"task.labels=[{options.labels}]"]
    return load_config(None, [*where, *data, "outer.validate_every=0", *changes])


def transferred(options: argparse.Namespace, method: str, rate: float) -> float:
    """Returns the F1 of one method at one rate."""
    languages = ["data.languages=[]", f"data.target_languages=[{options.language}]"]
    keys = [f"transfer.method_lr={{{method}: {rate}}}", f"transfer.methods=[{method}]", f"transfer.shots={SHOTS}"]
    more = [f"transfer.seeds=[{SEED}]", f"transfer.test_sentences={TESTED}", "transfer.encoder=base"]
    (result,) = transfer(config_of(options, f"{method}-{rate:g}", *languages, *keys, *more), quiet=True)
    return result.f1


def primed(options: argparse.Namespace, rate: float) -> dict[str, Any]:
    """Returns spread and query loss at the last check of a run at one outer rate."""
    languages = [f"data.languages=[{options.language}]", "data.target_languages=[]"]
    rates = [f"outer.lr={rate}", "outer.adapter_lr=2e-3", "outer.head_lr=2e-3", f"outer.steps={STEPS}"]
    config = config_of(options, f"outer-{rate:g}", *languages, *rates, "outer.warmup=0.1")
    try:
        prime(config, overwrite=True, quiet=True)
        ended = ""
    except MetaprimeError as error:
        ended = str(error).partition(":")[0]
    last = [line for line in read_metrics(Path(config.run.output)) if "spread" in line][-1]
    return {key: last[key] for key in ("step", "spread", "query_loss")} | {"stopped": ended}


def as_markdown(results: dict[str, Any]) -> str:
    """Returns the tables of all encoders."""
    lines = [
        "# Rates by kind of encoder",
        "",
        "`python benchmarks/rates.py`, one seed a cell: entity F1 at each rate.",
        "",
    ]
    for encoder, found in results["encoders"].items():
        lines += [f"## {encoder}", "", f"K = {SHOTS}, {found['language']}, {TESTED} test sentences.", ""]
        for method, scores in found["transfer"].items():
            row = ", ".join(
                f"{float(rate):g}: {f1:.1f}" for rate, f1 in sorted(scores.items(), key=lambda one: float(one[0]))
            )
            lines.append(f"- `{method}`: {row} (preset {METHODS[method].rate:g})")
        for rate, line in found["outer"].items():
            text = f"spread {line['spread']:.2f}, query loss {line['query_loss']:.2f} after {line['step']} meta-steps"
            lines.append(f"- `outer.lr` {float(rate):g}: {text}{'; stopped' if line['stopped'] else ''}")
        lines.append("")
    return "\n".join(lines)


def numbers(text: str) -> Sequence[float]:
    """Returns the numbers in a list such as `1e-3,3e-3`."""
    return [float(part) for part in text.split(",")]


def main() -> None:
    """Measures, adds to the results and prints the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("source", "language", "encoder"):
        parser.add_argument(name)
    parser.add_argument("--methods", default="")
    parser.add_argument("--rates", type=numbers, default=())
    parser.add_argument("--outer", type=numbers, default=())
    parser.add_argument("--labels", default="PER, ORG, LOC, DATE")
    parser.add_argument("--output", type=Path, default=Path("runs/rates"))
    options = parser.parse_args()
    file = RESULTS / "rates.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"encoders": {}}
    found = results["encoders"].setdefault(Path(options.encoder).name, {"transfer": {}, "outer": {}})
    found["language"], results["versions"] = options.language, versions()
    for rate in options.rates:
        for method in options.methods.split(","):
            found["transfer"].setdefault(method, {})[str(rate)] = transferred(options, method, rate)
    for rate in options.outer:
        found["outer"][str(rate)] = primed(options, rate)
    file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (RESULTS / "rates.md").write_text(as_markdown(results), encoding="utf-8")
    print(as_markdown(results))


if __name__ == "__main__":
    main()
