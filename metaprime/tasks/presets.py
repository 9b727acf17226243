"""Lists presets of tasks: columns, classes and metric of known corpora, by the value of `task.preset`.

`glue/...`, `super_glue/...` and `xnli` are the columns that the hub has (nyu-mll/glue, aps/super_glue, facebook/xnli), whose
numbered labels the reader turns into names; `glue_files/...` and `super_glue_files/wsc` are those of the files that
the benchmarks themselves give out. Metrics are the benchmarks' own. A key in the config goes before one of a preset.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from metaprime.types import MetaprimeError

_YES_NO = {"labels": ["not_entailment", "entailment"], "label_map": {"1": "not_entailment", "0": "entailment"}}
_NLI = {
    "labels": ["entailment", "neutral", "contradiction"],
    "label_map": {"0": "entailment", "1": "neutral", "2": "contradiction"},
}
_PREMISE = {"text": "premise", "pair": "hypothesis"}
_SENTENCES = {"text": "sentence1", "pair": "sentence2"}
_QUESTIONS = {"text": "question1", "pair": "question2"}
_MRPC = {
    "labels": ["not_equivalent", "equivalent"],
    "label_map": {"0": "not_equivalent", "1": "equivalent"},
    "metric": "accuracy_f1",
}
_QQP = {
    "labels": ["not_duplicate", "duplicate"],
    "label_map": {"0": "not_duplicate", "1": "duplicate"},
    "metric": "accuracy_f1",
}
_SST2 = {"text": "sentence", "labels": ["negative", "positive"], "label_map": {"0": "negative", "1": "positive"}}
_STSB = {**_SENTENCES, "range": [0.0, 5.0], "metric": "correlation"}
_WNLI = {**_YES_NO, "label_map": {"0": "not_entailment", "1": "entailment"}}
_COPA = {
    "text": "premise",
    "question": "question",
    "questions": {"cause": "What was the cause of this?", "effect": "What happened as a result?"},
    "choices": ["choice1", "choice2"],
}
_TRUTH = {"labels": ["false", "true"], "label_map": {"0": "false", "1": "true", "False": "false", "True": "true"}}
_INSIDE = {key: f"target.{name}" for key, name in (("first", "span1_index"), ("first_text", "span1_text"))}
_INSIDE |= {key: f"target.{name}" for key, name in (("second", "span2_index"), ("second_text", "span2_text"))}

_CLASSES: dict[str, dict[str, Any]] = {
    "glue/cola": {
        "text": "sentence",
        "labels": ["unacceptable", "acceptable"],
        "label_map": {"0": "unacceptable", "1": "acceptable"},
        "metric": "matthews",
    },
    "glue/sst2": _SST2,
    "glue/mrpc": {**_SENTENCES, **_MRPC},
    "glue/qqp": {**_QUESTIONS, **_QQP},
    "glue/mnli": {**_PREMISE, **_NLI},
    "glue/qnli": {**_YES_NO, "text": "question", "pair": "sentence"},
    "glue/rte": {**_SENTENCES, **_YES_NO},
    "glue/wnli": {**_SENTENCES, **_WNLI},
    "glue_files/sst2": _SST2,
    "glue_files/mrpc": {**_MRPC, "text": "#1 String", "pair": "#2 String", "label": "Quality"},
    "glue_files/qqp": {**_QUESTIONS, **_QQP, "label": "is_duplicate"},
    "glue_files/mnli": {**_SENTENCES, "labels": _NLI["labels"], "label": "gold_label"},
    "glue_files/qnli": {"text": "question", "pair": "sentence", "labels": _YES_NO["labels"]},
    "glue_files/rte": {**_SENTENCES, "labels": _YES_NO["labels"]},
    "glue_files/wnli": {**_SENTENCES, **_WNLI},
    "super_glue/cb": {
        **_PREMISE,
        "labels": ["entailment", "contradiction", "neutral"],
        "label_map": {"0": "entailment", "1": "contradiction", "2": "neutral"},
        "metric": "accuracy_macro_f1",
    },
    "xnli": {**_PREMISE, **_NLI},
    "afrisenti": {"text": "tweet", "labels": ["negative", "neutral", "positive"], "metric": "macro_f1"},
    "masakhanews": {
        "labels": ["business", "entertainment", "health", "politics", "religion", "sports", "technology"],
        "metric": "macro_f1",
    },
}

PRESETS: dict[str, dict[str, Any]] = {
    **{name: {"name": "classification", **values} for name, values in _CLASSES.items()},
    "glue/stsb": {"name": "regression", **_STSB},
    "glue_files/stsb": {"name": "regression", **_STSB, "label": "score"},
    "super_glue/copa": {"name": "multiple_choice", **_COPA},
    "super_glue/wsc": {"name": "span_pairs", **_TRUTH},
    "super_glue_files/wsc": {"name": "span_pairs", **_TRUTH, **_INSIDE},
}
"""Settings of `task` by the value of `task.preset`."""


def with_preset(values: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Returns the values of a task's section over those of its preset.

    Args:
        values: as they are written.
        task: name of the task that reads them.

    Raises:
        MetaprimeError: there is no such preset, or it is one of another task.

    Example: `with_preset({"preset": "glue/mrpc"}, "classification")["text"]` is `"sentence1"`.
    """
    name = values.get("preset")
    # A null of a file is a Scalar that equals None.
    if name in (None,):
        return {key: value for key, value in values.items() if key != "preset"}
    if name not in PRESETS:
        near = difflib.get_close_matches(str(name), PRESETS, n=1)
        told = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(PRESETS)}"
        raise MetaprimeError(f"task.preset {name!r} is unknown: {told}")
    preset = PRESETS[name]
    if preset["name"] != task:
        raise MetaprimeError(f"task.preset {name!r} is one of task.name {preset['name']}, not {task}; set that name")
    return {**preset, **values}
