"""How long cells took, in `<run.output>/timings.jsonl`, and from that how long those to come will take.

A suite that was killed has not noted the cells it was at; a unit is a meta-step or a fine-tuning.
"""

from __future__ import annotations

import json
from pathlib import Path

from metaprime.config import Config
from metaprime.files import writing

TIMINGS = "timings.jsonl"
UNITS = {"priming": "meta-step", "rates": "fine-tuning", "transfer": "fine-tuning"}


def note(base: Config, kind: str, seconds: float, units: int) -> None:
    """Adds what one cell took for so many units."""
    file = Path(base.run.output) / TIMINGS
    line = {"kind": kind, "seconds": round(seconds, 3), "units": units}
    with writing(file), file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(line) + "\n")


def seconds_per_unit(base: Config) -> dict[str, float]:
    """The mean of each kind that has been timed, over all suites with this `run.output`."""
    file = Path(base.run.output) / TIMINGS
    seconds, units = dict.fromkeys(UNITS, 0.0), dict.fromkeys(UNITS, 0)
    for text in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # cut off by a kill
        seconds[line["kind"]] += line["seconds"]
        units[line["kind"]] += line["units"]
    return {kind: seconds[kind] / units[kind] for kind in UNITS if units[kind]}
