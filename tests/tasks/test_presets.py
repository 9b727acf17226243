"""Presets: each is a config that its task takes, and what is written beside one goes before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from metaprime.config.loading import load_config, override
from metaprime.data.reading import UNSTATED
from metaprime.tasks import audit_of, settings_of, task_kind
from metaprime.tasks.classification.settings import ClassificationConfig
from metaprime.tasks.presets import PRESETS
from metaprime.types import MetaprimeError

PAIR = {"sentence1": "It rained.", "sentence2": "It was wet."}
NLI = {"premise": "It rained.", "hypothesis": "It was wet."}
FILES: dict[str, tuple[str, str, list[Any]]] = {
    # File, its content, and the answers: the columns are those of the benchmarks' own files.
    "glue_files/sst2": ("tsv", 'sentence\tlabel\na "fine film\t1\nbad\t0\n', ["positive", "negative"]),
    "glue_files/mrpc": (
        "tsv",
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tIt rained\tIt was wet\n",
        ["equivalent"],
    ),
    "glue_files/qqp": (
        "tsv",
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\tWhy?\tWhy so?\t0\n",
        ["not_duplicate"],
    ),
    "glue_files/stsb": ("tsv", "index\tsentence1\tsentence2\tscore\n0\tIt rained\tIt was wet\t3.800\n", [3.8]),
    "glue_files/mnli": (
        "tsv",
        "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\tIt rained\tIt did\tneutral\tentailment\n",
        ["entailment"],
    ),
    "glue_files/qnli": (
        "tsv",
        "index\tquestion\tsentence\tlabel\n0\tWhy?\tFor that.\tnot_entailment\n",
        ["not_entailment"],
    ),
    "glue_files/rte": ("tsv", "index\tsentence1\tsentence2\tlabel\n0\tIt rained\tIt did\tentailment\n", ["entailment"]),
    "glue_files/wnli": ("tsv", "index\tsentence1\tsentence2\tlabel\n0\tIt rained\tIt did\t1\n", ["entailment"]),
    "super_glue/cb": ("jsonl", json.dumps({**NLI, "label": "contradiction", "idx": 0}), ["contradiction"]),
    "super_glue/copa": (
        "jsonl",
        json.dumps({"premise": "It rained.", "choice1": "We left.", "choice2": "x", "question": "effect", "label": 1}),
        ["choice2"],
    ),
    "super_glue_files/wsc": (
        "jsonl",
        json.dumps(
            {
                "text": "Ada fed her cat",
                "target": {"span1_index": 0, "span1_text": "Ada", "span2_index": 2, "span2_text": "her"},
                "label": True,
            }
        ),
        ["true"],
    ),
    # As the hub's rows read once numbers have their names.
    "glue/cola": ("jsonl", json.dumps({"sentence": "It rained.", "label": "acceptable", "idx": 0}), ["acceptable"]),
    "glue/sst2": ("jsonl", json.dumps({"sentence": "fine", "label": 1}), ["positive"]),
    "glue/mrpc": ("jsonl", json.dumps({**PAIR, "label": 0}), ["not_equivalent"]),
    "glue/qqp": ("jsonl", json.dumps({"question1": "Why?", "question2": "Why so?", "label": 1}), ["duplicate"]),
    "glue/stsb": ("jsonl", json.dumps({**PAIR, "label": 2.5}), [2.5]),
    "glue/mnli": ("jsonl", json.dumps({**NLI, "label": 2}), ["contradiction"]),
    "glue/qnli": ("jsonl", json.dumps({"question": "Why?", "sentence": "For that.", "label": 0}), ["entailment"]),
    "glue/rte": ("jsonl", json.dumps({**PAIR, "label": 1}), ["not_entailment"]),
    "glue/wnli": ("jsonl", json.dumps({**PAIR, "label": 1}), ["entailment"]),
    "super_glue/wsc": (
        "jsonl",
        json.dumps(
            {
                "text": "Ada fed her cat",
                **{"span1_index": 0, "span1_text": "Ada", "span2_index": 2, "span2_text": "her"},
                "label": 0,
            }
        ),
        ["false"],
    ),
    "xnli": ("jsonl", json.dumps({**NLI, "label": "neutral"}), ["neutral"]),
    "afrisenti": ("tsv", "ID\ttweet\tlabel\n1\tkwarai\tpositive\n", ["positive"]),
    "masakhanews": ("jsonl", json.dumps({"headline": "x", "text": "It rained.", "label": "sports"}), ["sports"]),
}


def test_every_preset_is_tried() -> None:
    assert set(FILES) == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_corpus_is_read_by_its_preset(name: str, tmp_path: Path) -> None:
    form, content, answers = FILES[name]
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / f"train.{form}").write_text(content, "utf-8")
    config = settings_of(PRESETS[name]["name"])(preset=name)  # type: ignore[call-arg]
    config.check()
    audit = audit_of(config)
    assert audit
    found = audit.examine(f"{form}:{tmp_path}", "part", "train", config, True, UNSTATED)
    assert not found.problems
    assert [one.gold for one in found.sentences] == answers
    assert task_kind(config).metric.key == (PRESETS[name].get("metric", "accuracy"),)


def test_keys_beside_a_preset_go_before_its_own_and_survive_the_record() -> None:
    config = load_config(None, ["task={name: classification, preset: glue/mrpc, metric: f1}"])
    task = config.task
    assert isinstance(task, ClassificationConfig)
    assert (task.text, task.pair, task.metric) == ("sentence1", "sentence2", "f1")
    assert ClassificationConfig.model_validate(task.model_dump(mode="json")) == task
    other = override(config, "task.text=first").task
    assert isinstance(other, ClassificationConfig)
    assert (other.text, other.pair) == ("first", "sentence2")


def test_what_is_no_preset_is_told() -> None:
    with pytest.raises(MetaprimeError, match=r"task\.preset 'glue/mrcp' is unknown: did you mean glue/mrpc\?"):
        load_config(None, ["task={name: classification, preset: glue/mrcp}"])
    with pytest.raises(
        MetaprimeError, match=r"task\.preset 'glue/stsb' is one of task\.name regression, not classification"
    ):
        load_config(None, ["task={name: classification, preset: glue/stsb}"])
