"""Writes the model card of an export, README.md, with the facts that metaprime.json and record.json hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from metaprime.interop.classifier import address, revision
from metaprime.peft.method import label
from metaprime.runs.artifact import CARD, Artifact, load_artifact
from metaprime.runs.records import Record
from metaprime.tasks.task import Plain, TaskKind

OF_TOKENS, OF_TEXTS, OF_CHOICE = (
    f"AutoModelFor{name}" for name in ("TokenClassification", "SequenceClassification", "MultipleChoice")
)
"""Classes of transformers."""

PIPELINES = {
    OF_TOKENS: "token-classification",
    OF_TEXTS: "text-classification",
    OF_CHOICE: "multiple-choice",
}
"""Class of transformers -> the hub's name of what its models do."""

LIBRARIES = {"peft": "peft", "adapterhub": "adapters", "transformers": "transformers"}
"""Format -> the library that loads it, by its name on the hub."""


@dataclass(frozen=True)
class Export:
    """An exported model and its origin.

    Attributes:
        artifact: adapter, head and provenance.
        kind: the task's metrics.
        record: the record of the transfer; None after priming alone.
        form: format of the files.
        settings: what peft's loader must be told of the config, such as the labels' names.
        plain: the model of transformers with such a head.
    """

    artifact: Artifact
    kind: TaskKind
    record: Record | None
    form: str
    settings: Mapping[str, Any]
    plain: Plain


def write_card(folder: Path, export: Export) -> None:
    """Writes README.md into the folder of an export: `write_card(Path("export"), export)`."""
    ModelCard(card(export)).save(folder / "README.md")


def card(export: Export) -> str:
    """Returns the text of a model card: `card(export).startswith("---")`."""
    artifact, form = export.artifact, export.form
    base, method = address(artifact.encoder), label(artifact.method)
    languages = _languages(export)
    data = ModelCardData(
        # A task is no language.
        language=None if artifact.task.own_heads else languages,
        library_name=LIBRARIES[form],
        # The hub takes only its own ids here.
        base_model=None if Path(base).exists() else base,
        pipeline_tag=PIPELINES[export.plain.auto_class],
        tags=["metaprime", artifact.method.method],
    )
    labels = [("labels", ", ".join(artifact.labels))] if len(artifact.labels) > 1 else []
    facts = [("encoder", _encoder(artifact)), *_training(export), *labels]
    parts = [
        f"# {artifact.task.name} of {', '.join(languages)} by {method}",
        f"{_what(export)} {_outputs(export)}",
        _table(facts),
        "## Scores" if export.record else "",
        _scores(export),
        "## Load",
        f"With FOLDER for the place of this folder:\n\n```python\n{_code(export, base)}\n```",
        "## Versions",
        _table((name, str(version)) for name, version in sorted(_versions(export).items())),
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _what(export: Export) -> str:
    """Returns a sentence that says what was exported."""
    method = export.artifact.method.method
    of_texts = "text classifier" if len(export.artifact.labels) > 1 else "model of a number for each text"
    name = {OF_TOKENS: "token classifier", OF_TEXTS: of_texts, OF_CHOICE: "model of multiple choice"}[
        export.plain.auto_class
    ]
    whole = f"A {name}: encoder and head" if export.form == "transformers" else f"An adapter and a head of a {name}"
    done = f"fine-tuned with `{method}`" if export.record else f"primed with `{method}`"
    return f"{whole}, {done} by metaprime."


def _outputs(export: Export) -> str:
    """Returns sentences that say what the model reads, and what its outputs are."""
    count, task = len(export.artifact.labels), export.artifact.task
    if export.plain.auto_class == OF_TOKENS:
        return (
            f"Its outputs are {count} scores for each sub-word; the score of a word is that of its first sub-word, on which "
            "alone it was trained."
        )
    state = "first position" if export.plain.pooling == "first" else "mean of all positions"
    if export.plain.auto_class == OF_CHOICE:
        question = ", behind which stands the question" if getattr(task, "question", None) else ""
        read = (
            f"It reads each choice as a pair with the text before it{question}. Its outputs are a score for each choice"
        )
    else:
        columns = " and ".join(f"`{name}`" for name in task.texts)
        reads = f"It reads pairs, {columns} in this order." if len(task.texts) > 1 else "It reads texts."
        read = f"{reads} Its outputs are {f'{count} scores' if count > 1 else 'the number itself'} for each text"
    # let_pass of metaprime.interop.text_head says why.
    return (
        f"{read}, from the encoder's {state}. The layer before the head is set so that it changes nothing: the model is for use "
        "as it is, in float32 or bfloat16, not for float16 and not for further tuning."
    )


def _encoder(artifact: Artifact) -> str:
    """Returns name, commit and hash of the encoder."""
    commit = revision(artifact.encoder)
    weights = artifact.provenance["encoder_weights"]
    return f"{address(artifact.encoder)}{f' at {commit}' if commit else ''}, weights {weights[:12]}"


def _primed(artifact: Artifact) -> Mapping[str, Any] | None:
    """Returns the provenance of the priming run that made the encoder; None if there was none."""
    if artifact.provenance["kind"] == "primed":
        return artifact.provenance
    own = Path(artifact.encoder)
    return load_artifact(own).provenance if (own / CARD).is_file() else None


def _languages(export: Export) -> list[str]:
    """Returns the language of a transfer, or the languages of priming."""
    if export.record:
        return [export.record["cell"]["language"]]
    return list(export.artifact.provenance["config"]["data"]["languages"])


def _training(export: Export) -> list[tuple[str, str]]:
    """Returns the facts of priming and fine-tuning."""
    facts = []
    if primed := _primed(export.artifact):
        config = primed["config"]
        facts += [
            ("primed from", f"{primed['base']}, weights {primed['base_weights'][:12]}"),
            ("primed by", f"{config['learner']['name']}, {primed['steps']} meta-steps, seed {primed['seed']}"),
            ("primed on", f"{', '.join(config['data']['languages'])} of {config['data']['source']}"),
        ]
    if record := export.record:
        cell, data, training = record["cell"], record["config"]["data"], record["training"]
        source, start = data.get("target_source") or data["source"], record["config"]["transfer"]["encoder"]
        unit = "texts" if export.artifact.task.texts else "sentences"
        facts += [
            ("fine-tuned from", f"{start}, weights {record['weights']['the encoder']}"),
            ("fine-tuned on", f"{training['sentences']} {unit} of {cell['language']} of {source}"),
            (
                "fine-tuned by",
                f"{training['steps']} steps, learning rate {training['lr']:g}, seed {cell['transfer_seed']}",
            ),
        ]
    return facts


def _scores(export: Export) -> str:
    """Returns a table of the transfer's scores; empty after priming."""
    if export.record is None:
        return ""
    data, scores = export.record["config"]["data"], export.record["scores"]
    split = f"{export.record['cell']['language']}, split {data['test_split']}"
    lines = [(metric.described, f"{metric.of(scores):.2f}") for metric in export.kind.metrics]
    return _table(lines, ("score", split))


def _code(export: Export, base: str) -> str:
    """Returns the lines of Python that load an export."""
    if export.form == "transformers":
        if export.plain.auto_class == OF_CHOICE:
            return (
                "from transformers import AutoModelForMultipleChoice, AutoTokenizer\n\n"
                "model = AutoModelForMultipleChoice.from_pretrained(FOLDER)\n"
                "tokenizer = AutoTokenizer.from_pretrained(FOLDER)\n"
                f'inputs = tokenizer([text] * len(choices), choices, padding=True, {_cut(export)}, return_tensors="pt")\n'
                "scores = model(**{name: value[None] for name, value in inputs.items()}).logits[0]"
            )
        if export.plain.pooling:
            function = ', function_to_apply="none"' if len(export.artifact.labels) == 1 else ""
            given = '{"text": first, "text_pair": second}' if len(export.artifact.task.texts) > 1 else "text"
            return (
                "from transformers import pipeline\n\n"
                f'classifier = pipeline("text-classification", FOLDER{function})\n'
                f"classifier({given}, {_cut(export)})"
            )
        return (
            "from transformers import pipeline\n\n"
            'tagger = pipeline("token-classification", FOLDER, aggregation_strategy="simple")'
        )
    if export.form == "adapterhub":
        return (
            "# AdapterHub's package needs transformers 4: install it in an environment of its own.\n"
            "import adapters\n\n"
            f'model = adapters.AutoAdapterModel.from_pretrained("{base}")\n'
            "model.load_adapter(FOLDER, set_active=True, use_safetensors=True)"
        )
    extra = "".join(f", {name}={value!r}" for name, value in export.settings.items())
    loader = export.plain.auto_class.replace("AutoModel", "AutoPeftModel")
    return (
        f"from peft import {loader}\n"
        "from transformers import AutoTokenizer\n\n"
        f"model = {loader}.from_pretrained(FOLDER{extra})\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{base}")'
    )


def _cut(export: Export) -> str:
    """Returns the arguments by which a tokenizer cuts texts as they were cut in training."""
    config = (export.record or export.artifact.provenance)["config"]
    return f"truncation=True, max_length={config['data']['max_length']}"


def _versions(export: Export) -> Mapping[str, Any]:
    """Returns the versions of the packages that trained the model."""
    versions: Mapping[str, Any] = (export.record or export.artifact.provenance).get("versions", {})
    return versions


def _table(rows: Iterable[tuple[str, str]], header: Sequence[str] = ("", "")) -> str:
    """Returns a table in Markdown; a bar inside a cell is escaped."""
    lines = [header, ("---", "---"), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
