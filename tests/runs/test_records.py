"""Records: read back whole or refused, compared without what is volatile, and selected by cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from toy_permissions import Forbid

from metaprime.runs.records import comparable, headline, read_record, select
from metaprime.tasks.tagging.scores import METRICS
from metaprime.types import MetaprimeError

METRIC_OF = {metric.column: metric for metric in METRICS}


def record(f1: float, priming_seed: int | None = 0, transfer_seed: int = 0, **cell: Any) -> dict[str, Any]:
    return {
        "cell": {"priming_seed": priming_seed, "transfer_seed": transfer_seed, **cell},
        "scores": {"lenient": {"overall": {"f1": f1}}, "strict": {"overall": {"f1": f1 - 10}}},
        "training": {"lr": 0.01},
        "frozen": "hash",
        "volatile": {"seconds": f1},
    }


def test_a_record_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(record(70)))
    assert read_record(tmp_path / "r.json") == record(70)


@pytest.mark.parametrize("text", ["", '{"cell"', "[]", "{}", '{"cell": {}, "scores": {}, "training": {}}', "\udcff"])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "r.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(MetaprimeError, match=r"record .*r\.json .*: remove it and run the command again"):
        read_record(file)


def test_a_record_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MetaprimeError, match=r"none\.json cannot be read"):
        read_record(tmp_path / "none.json")


def test_only_the_volatile_block_is_left_out_of_a_comparison() -> None:
    one, other = record(70), {**record(70), "volatile": {"seconds": 1}}
    assert one != other
    assert comparable(one) == comparable(other)
    assert comparable(record(71)) != comparable(one)
    assert set(comparable(one)) == {"cell", "scores", "training", "frozen"}


def test_the_headline_is_the_number_of_the_metric_asked_for() -> None:
    found = record(70)
    assert METRICS[0].column == "lenient_f1"
    assert [headline(found, METRIC_OF[name]) for name in ("lenient_f1", "strict_f1")] == [70.0, 60.0]
    with pytest.raises(KeyError, match="recall"):
        headline(found, METRIC_OF["strict_recall"])


def test_selecting_asks_for_all_wanted_values() -> None:
    records = [
        record(1, shots=10, language="qaa"),
        record(2, shots=30, language="qaa"),
        record(3, shots=10, language="qab"),
    ]
    assert select(records, shots=10) == [records[0], records[2]]
    assert select(records, shots=10, language="qab") == [records[2]]
    assert select(records, method="lora") == []
    assert select(records) == records


def test_a_record_without_permission_is_not_to_be_removed(tmp_path: Path, forbid: Forbid) -> None:
    (tmp_path / "r.json").write_text(json.dumps(record(70)))
    forbid(tmp_path / "r.json")
    with pytest.raises(MetaprimeError, match=r"r\.json: permission denied: (?!.*remove)"):
        read_record(tmp_path / "r.json")
