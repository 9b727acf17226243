"""Builds the task of a config over an encoder's tokenizer, and reads the rows that a run needs."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from metaprime.config.sections import DataConfig
from metaprime.data.rows import Lengths, Row
from metaprime.data.subwords import Subwords, cache_folder
from metaprime.models.encoder import Encoder
from metaprime.models.language_head import load_language_head
from metaprime.peft import MethodConfig
from metaprime.tasks import TASKS, Task, TaskConfig
from metaprime.tasks.masking import masking
from metaprime.tasks.task import Text
from metaprime.types import MetaprimeError

log = logging.getLogger(__name__)

LEAST_ROOM = 8
"""Sub-words of the shortest window that `data.max_length` may ask for."""


@dataclass(frozen=True)
class Split:
    """Rows of one language: those that are trained on, and those that are scored."""

    train: list[Row]
    scored: list[Row]


def build_task(task: TaskConfig, data: DataConfig, encoder: Encoder, method: MethodConfig, cache: bool = False) -> Task:
    """Builds the task of a config over the encoder's tokenizer, in windows that leave room for a method.

    Args:
        task: the section `task`.
        data: says how long texts are read.
        encoder: whose tokenizer cuts words.
        method: takes some of the encoder's positions, or none.
        cache: whether tokenised text is kept on disk.

    Raises:
        MetaprimeError: the method leaves no room, or the section contradicts itself.
    """
    longest = min(data.max_length, _room(encoder, method))
    lengths = Lengths(longest, data.overlap, cut=data.long == "truncate")
    return _task_over(task, Text(Subwords(encoder.tokenizer, cache_folder() if cache else None), lengths))


def restored_task(task: TaskConfig, encoder: Encoder, method: MethodConfig) -> Task:
    """Builds the task of a saved head, in the longest windows that encoder and method have room for."""
    lengths = Lengths(_room(encoder, method))
    return _task_over(task, Text(Subwords(encoder.tokenizer), lengths))


def _task_over(task: TaskConfig, text: Text) -> Task:
    """Builds the task that a section names."""
    return TASKS[task.name].build(task, text)


def text_alone(task: Task, encoder: Encoder, trust_remote_code: bool = False) -> Task:
    """Returns the masked-word task over the examples of a task, with the head that the encoder was pre-trained with.

    Raises:
        MetaprimeError: the checkpoint has no such head, or the tokenizer no mask token.
    """
    return masking(task, encoder.tokenizer, lambda sites: load_language_head(encoder, sites.words, trust_remote_code))


def priming_rows(task: Task, data: DataConfig, seed: int) -> dict[str, list[Row]]:
    """Reads the rows that episodes are drawn from, by language; labels are shuffled where the task says so.

    Raises:
        MetaprimeError: a language cannot be read, or has no label at all.
    """
    pools = {}
    for language in data.languages:
        examples = task.read(data.source, language, data.train_split)
        for finding in task.audit(f"{language}/{data.train_split}", examples):
            if finding.severity == "fatal":
                raise MetaprimeError(f"{data.source}: {finding.where}: {finding.text}")
            log.warning("%s: %s", finding.where, finding.text)
        if task.shuffle:
            examples = task.shuffle(examples, seed, language)
        pools[language] = task.encode(examples)
    return pools


def validation_rows(task: Task, data: DataConfig, language: str, most: int | None) -> Split:
    """Reads a held-out language; at most the first `most` rows are scored."""
    source = data.validation_source or data.source
    return _split(task, data, source, (language, data.validation_split), most)


def target_rows(task: Task, data: DataConfig, language: str, most: int | None) -> Split:
    """Reads a target language; at most the first `most` rows of its test split are scored."""
    return _split(task, data, data.target_source or data.source, (language, data.test_split), most)


def _split(task: Task, data: DataConfig, source: str, scored: tuple[str, str], most: int | None) -> Split:
    train = task.read(source, scored[0], data.train_split)
    examples = task.read(source, *scored)
    return Split(task.encode(train), task.encode(examples[:most]))


def _room(encoder: Encoder, method: MethodConfig) -> int:
    """Returns the sub-words that a method leaves room for."""
    longest = _longest(encoder)
    if method.positions > longest - LEAST_ROOM:
        raise MetaprimeError(
            f"peft.length {method.positions}: this encoder has {longest} positions, which leaves {longest - method.positions} "
            f"for a sentence: at most {longest - LEAST_ROOM}"
        )
    return longest - method.positions


def _longest(encoder: Encoder) -> int:
    """Returns the sub-words the encoder can take; with relative or rotary positions, as many as it was made for."""
    config, longest = encoder.module.config, encoder.tokenizer.model_max_length
    spent = config.pad_token_id + 1 if encoder.layout.positions_after_padding else 0
    return int(min(longest, getattr(config, "max_position_embeddings", longest) - spent))
