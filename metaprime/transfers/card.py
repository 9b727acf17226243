"""Writes the model card of an export, README.md, with the facts that metaprime.json and record.json hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from metaprime.interop.token_classifier import address, revision
from metaprime.peft.method import label
from metaprime.runs.artifact import CARD, Artifact, load_artifact
from metaprime.runs.records import Record
from metaprime.tasks.task import TaskKind

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
        named: whether the encoder's own config names the labels.
    """

    artifact: Artifact
    kind: TaskKind
    record: Record | None
    form: str
    named: bool


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
        pipeline_tag="token-classification",
        tags=["metaprime", artifact.method.method],
    )
    facts = [("encoder", _encoder(artifact)), *_training(export), ("labels", ", ".join(artifact.labels))]
    parts = [
        f"# {artifact.task.name} of {', '.join(languages)} by {method}",
        f"{_what(export)} Its outputs are {len(artifact.labels)} scores for each sub-word; the score of a word is that of its "
        "first sub-word, on which alone it was trained.",
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
    whole = "A token classifier: encoder and head" if export.form == "transformers" else "An adapter and a head"
    done = f"fine-tuned with `{method}`" if export.record else f"primed with `{method}`"
    return f"{whole}, {done} by metaprime."


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
    names = dict(enumerate(export.artifact.labels))
    extra = "" if export.named else f", id2label={names}, label2id={ {name: number for number, name in names.items()} }"
    return (
        "from peft import AutoPeftModelForTokenClassification\n"
        "from transformers import AutoTokenizer\n\n"
        f"model = AutoPeftModelForTokenClassification.from_pretrained(FOLDER{extra})\n"
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
