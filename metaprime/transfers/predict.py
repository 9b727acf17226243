"""Tagging new text with what a transfer (or a priming run that learned adapter and head) left."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from metaprime.build.data import task_over
from metaprime.build.model import build_model
from metaprime.data.rows import Sentence
from metaprime.models.task_model import assign
from metaprime.runs.artifact import load_artifact, load_encoder_of, trained_groups
from metaprime.transfers.evaluate import evaluate
from metaprime.types import MetaprimeError


def predict(folder: str | Path, text: str, trust_remote_code: bool = False) -> list[tuple[str, str]]:
    """(word, tag) pairs of one sentence.

    Args:
        folder: one cell of `<run.output>/transfer/...`, or a `primed` folder.
        text: the sentence; it is split at white space, and punctuation is split off the words' ends.
        trust_remote_code: whether Python files that come with the encoder may be run.

    Raises:
        MetaprimeError: the folder is not one of ours, its encoder changed, or the text is empty.
    """
    words = split_words(text)
    if not words:
        raise MetaprimeError("there is no word in the text")
    artifact = load_artifact(Path(folder))
    if "head" not in trained_groups(artifact):
        raise MetaprimeError(
            f"{folder}: priming with outer.head reset or keep leaves a random head, which cannot tag: give the folder of a "
            "transfer, or prime with outer.head=meta"
        )
    encoder = load_encoder_of(artifact, trust_remote_code)
    task = task_over(artifact.labels, encoder, artifact.method)
    rows = task.encode([Sentence(tuple(words), (task.labels[0],) * len(words), "text")])
    model = build_model(encoder, task, artifact.method, rows)
    assign(model, artifact.values)
    _, tags = evaluate(model, task, dict(model.named_parameters()), rows)
    return list(zip(words, tags[0], strict=True))


def split_words(text: str) -> list[str]:
    """White-space tokens with punctuation and symbols split off both ends, in every script."""
    words: list[str] = []
    for token in text.split():
        first, last = 0, len(token)
        while first < last and _mark(token[first]):
            first += 1
        while last > first and _mark(token[last - 1]):
            last -= 1
        words += [*token[:first], *([token[first:last]] if first < last else []), *token[last:]]
    return words


def _mark(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"
