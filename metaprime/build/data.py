"""Builds the task and the rows of a config."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from metaprime.config.sections import Config
from metaprime.data.rows import Row, Sentence
from metaprime.data.subwords import Subwords, cache_folder
from metaprime.models.encoder import Encoder
from metaprime.models.language_head import load_language_head
from metaprime.peft import MethodConfig
from metaprime.tasks.masking import masking
from metaprime.tasks.tagging.audit import unlabelled
from metaprime.tasks.tagging.labels import LabelSet
from metaprime.tasks.tagging.reading import read
from metaprime.tasks.tagging.task import entity_types, tagging
from metaprime.tasks.tagging.windows import Lengths, shuffled_tags
from metaprime.tasks.task import Task
from metaprime.types import MetaprimeError

log = logging.getLogger(__name__)

LEAST_ROOM = 8
"""Sub-words of the shortest window that `data.max_length` may ask for."""


def build_task(config: Config, encoder: Encoder, method: MethodConfig | None = None) -> Task:
    """The task of the config, over the encoder's tokenizer, in windows that leave room for a method (`peft`, if not given).

    Raises:
        MetaprimeError: the method leaves no room.
    """
    longest = min(config.data.max_length, _room(encoder, method or config.peft))
    lengths = Lengths(longest, config.data.overlap, cut=config.data.long == "truncate")
    subwords = Subwords(encoder.tokenizer, cache_folder() if config.run.cache else None)
    return tagging(_labels(config), subwords, lengths)


def task_over(labels: Sequence[str], encoder: Encoder, method: MethodConfig) -> Task:
    """The task of a saved head: `labels` are its outputs' tags in order."""
    lengths = Lengths(_room(encoder, method))
    return tagging(LabelSet(entity_types(labels), {}), Subwords(encoder.tokenizer), lengths)


def text_alone(task: Task, encoder: Encoder, trust_remote_code: bool = False) -> Task:
    """The masked-word task over the sentences of a task, with the head that the encoder was pre-trained with.

    Raises:
        MetaprimeError: its checkpoint has no such head, or its tokenizer no mask token.
    """
    return masking(task, encoder.tokenizer, lambda sites: load_language_head(encoder, sites.words, trust_remote_code))


def priming_rows(config: Config, task: Task) -> dict[str, list[Row]]:
    """The rows that episodes are drawn from, by language.

    Raises:
        MetaprimeError: a language cannot be read, or has no entity at all.
    """
    pools = {}
    for language in config.data.languages:
        sentences = _read(config, config.data.source, language, config.data.train_split)
        for finding in unlabelled(f"{language}/{config.data.train_split}", sentences, config.data.labels):
            if finding.severity == "fatal":
                raise MetaprimeError(f"{config.data.source}: {finding.where}: {finding.text}")
            log.warning("%s: %s", finding.where, finding.text)
        if config.data.shuffle_tags:
            sentences = shuffled_tags(sentences, config.run.seed, language)
        pools[language] = task.encode(sentences)
    return pools


def validation_rows(config: Config, task: Task, language: str) -> tuple[list[Row], list[Row]]:
    """Training and validation rows of a held-out language, as many as `target_rows` gives."""
    source = config.data.validation_source or config.data.source
    return _rows(config, task, source, language, config.data.validation_split)


def target_rows(config: Config, task: Task, language: str) -> tuple[list[Row], list[Row]]:
    """Training and test rows of a target language; the first `transfer.test_sentences` of the test split."""
    return _rows(config, task, config.data.target_source or config.data.source, language, config.data.test_split)


def _rows(config: Config, task: Task, source: str, language: str, scored: str) -> tuple[list[Row], list[Row]]:
    train = _read(config, source, language, config.data.train_split)
    sentences = _read(config, source, language, scored)
    return task.encode(train), task.encode(sentences[: config.transfer.test_sentences])


def _read(config: Config, source: str, language: str, split: str) -> list[Sentence]:
    return read(source, language, split, _labels(config), config.data.invalid, config.data.tag_names)


def _room(encoder: Encoder, method: MethodConfig) -> int:
    """Sub-words that a method leaves room for."""
    longest = _longest(encoder)
    if method.positions > longest - LEAST_ROOM:
        raise MetaprimeError(
            f"peft.length {method.positions}: this encoder has {longest} positions, which leaves {longest - method.positions} "
            f"for a sentence: at most {longest - LEAST_ROOM}"
        )
    return longest - method.positions


def _longest(encoder: Encoder) -> int:
    """Sub-words the encoder can take; with relative or rotary positions, as many as it was made for."""
    config, longest = encoder.module.config, encoder.tokenizer.model_max_length
    spent = config.pad_token_id + 1 if encoder.layout.positions_after_padding else 0
    return int(min(longest, getattr(config, "max_position_embeddings", longest) - spent))


def _labels(config: Config) -> LabelSet:
    return LabelSet(config.data.labels, config.data.label_map)
