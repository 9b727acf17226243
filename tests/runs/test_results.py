"""`results.json`: what is written is read again, and what an older version wrote too, key by key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from metaprime.runs.results import RESULTS, Arm, Entry, Facts, Failure, Results, as_json, read_results, write_results
from metaprime.types import MetaprimeError

OLD = Path(__file__).parents[1] / "fixtures/from_2db22c3/suite/arms"
MADE = Results(
    name="tried",
    seeds=(3, 1),
    config={"peft": {"method": "lora"}},
    versions={"python": "3.11"},
    methods=("lora",),
    languages=("qai",),
    shots=(8,),
    arms={
        "primed": Arm(
            title="P",
            set=("inner.steps=1",),
            priming="ab",
            rates={"lora": None},
            facts=Facts(sentence_passes=64, steps_chosen=(4, 2)),
        ),
        "none": Arm(title="N", set=(), transfer=()),
    },
    contrasts=(("primed", "none"),),
    records=(Entry(arm="none", seed=3, language="qai", method="lora", shots=8, path="../r.json"),),
    primings={"primed": {3: "../p3"}},
    failed=(Failure(arm="primed", seed=1, error="lost"),),
)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_results(tmp_path, MADE)
    values: dict[str, Any] = json.loads((tmp_path / RESULTS).read_text("utf-8"))
    assert values == as_json(MADE)
    # The file's keys are sorted.
    assert list(values["arms"]) == ["none", "primed"]
    assert list(read_results(tmp_path).arms) == values["order"] == ["primed", "none"]
    assert as_json(read_results(tmp_path)) == values
    assert values["primings"] == {"primed": {"3": "../p3"}}
    assert values["contrasts"] == [["primed", "none"]]
    assert type(values["arms"]["primed"]["facts"]["sentence_passes"]) is int


def test_what_an_older_version_wrote_is_read_whole() -> None:
    old = json.loads((OLD / RESULTS).read_text("utf-8"))
    now = as_json(read_results(OLD))
    assert old.keys() <= now.keys()
    assert {key: now[key] for key in old if key != "arms"} == {key: old[key] for key in old if key != "arms"}
    for name, arm in old["arms"].items():
        assert {key: now["arms"][name][key] for key in arm} == arm


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, r"results\.json cannot be read .*: give the output folder of `metaprime ablate`"),
        ("{", r"results\.json: the file: Invalid JSON"),
        ('{"name": "a", "seeds": ["x"]}', r"results\.json: seeds\.0: .* run `metaprime ablate` again"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, content: str | None, named: str) -> None:
    if content is not None:
        (tmp_path / RESULTS).write_text(content, "utf-8")
    with pytest.raises(MetaprimeError, match=named):
        read_results(tmp_path)
