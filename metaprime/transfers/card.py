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

PIPELINES = {
    "AutoModelForTokenClassification": "token-classification",
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForMultipleChoice": "multiple-choice",
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
        language=languages,
        library_name=LIBRARIES[form],
        # The hub takes only its own ids here.
        base_model=None if Path(base).exists() else base,
        pipeline_tag=PIPELINES[export.plain.auto_class],
        tags=["metaprime", artifact.method.method],
    )
    facts = [("encoder", _encoder(artifact)), *_training(export), ("labels", ", ".join(artifact.labels))]
    parts = [
        f"# {artifact.task.name} of {', '.join(languages)} by {method}",
        f"{_what(export)} {_outputs(export)}",
        _table(facts),
        "## Scores" if export.record else "",
        _scores(export),
        "## Load",
        f"```python\n{_code(export, base)}\n```",
        "## Versions",
        _table((name, str(version)) for name, version in sorted(_versions(export).items())),
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _what(export: Export) -> str:
    """Returns a sentence that says what was exported."""
    method = export.artifact.method.method
    tags = export.plain.auto_class == "AutoModelForTokenClassification"
    whole = (
        f"A {'token' if tags else 'text'} classifier: encoder and head"
        if export.form == "transformers"
        else "An adapter and a head"
    )
    done = f"fine-tuned with `{method}`" if export.record else f"primed with `{method}`"
    return f"{whole}, {done} by metaprime."


def _outputs(export: Export) -> str:
    """Returns a sentence that says what the model's outputs are."""
    count = len(export.artifact.labels)
    if export.plain.auto_class == "AutoModelForTokenClassification":
        return (
            f"Its outputs are {count} scores for each sub-word; the score of a word is that of its first sub-word, on which "
            "alone it was trained."
        )
    if export.plain.auto_class == "AutoModelForMultipleChoice":
        return (
            "Its outputs are a score for each choice, which is read as a pair with the text; the largest is the answer."
        )
    read = "the first sub-word" if export.plain.pooling == "first" else "all sub-words, by their mean"
    outputs = f"{count} scores" if count > 1 else "the number itself"
    # let_pass of metaprime.interop.text_head says why.
    return (
        f"Its outputs are {outputs} for each text, from the encoder's output at {read}. The layer before the head is set so that "
        "it changes nothing: the model is for use as it is, not for further tuning."
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
        facts += [
            ("fine-tuned from", f"{start}, weights {record['weights']['the encoder']}"),
            ("fine-tuned on", f"{training['sentences']} sentences of {cell['language']} of {source}"),
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
        if export.plain.auto_class == "AutoModelForMultipleChoice":
            return (
                "from transformers import AutoModelForMultipleChoice, AutoTokenizer\n\n"
                "model = AutoModelForMultipleChoice.from_pretrained(FOLDER)\n"
                "tokenizer = AutoTokenizer.from_pretrained(FOLDER)"
            )
        if export.plain.pooling:
            function = ', function_to_apply="none"' if len(export.artifact.labels) == 1 else ""
            return (
                "from transformers import pipeline\n\n"
                f'classifier = pipeline("text-classification", FOLDER{function})  # a pair: {{"text": ..., "text_pair": ...}}'
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


def _versions(export: Export) -> Mapping[str, Any]:
    """Returns the versions of the packages that trained the model."""
    versions: Mapping[str, Any] = (export.record or export.artifact.provenance).get("versions", {})
    return versions


def _table(rows: Iterable[tuple[str, str]], header: Sequence[str] = ("", "")) -> str:
    """Returns a table in Markdown; a bar inside a cell is escaped."""
    lines = [header, ("---", "---"), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
