"""Where the rooms meet: config -> task, rows and a model with its PEFT modules in place."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from metaprime.config import Config
from metaprime.data import check
from metaprime.data.corpora import read
from metaprime.data.encoding import Lengths, shuffled_tags
from metaprime.data.labels import LabelSet
from metaprime.data.subwords import Subwords, cache_folder
from metaprime.models.encoder import Encoder
from metaprime.models.language_head import load_language_head
from metaprime.models.primable import PrimableModel
from metaprime.models.selfcheck import check_injection, probe, takes_episodes
from metaprime.models.sites import resolve
from metaprime.peft import METHODS, Method, MethodConfig
from metaprime.peft.method import under
from metaprime.tasks.masking import masking
from metaprime.tasks.tagging import entity_types, tagging
from metaprime.tasks.task import Task
from metaprime.types import Gradients, MetaprimeError, Params, Row, Sentence

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
    return masking(
        task, encoder.tokenizer, lambda _, embedding: load_language_head(encoder, embedding, trust_remote_code)
    )


def priming_rows(config: Config, task: Task) -> dict[str, list[Row]]:
    """The rows that episodes are drawn from, by language.

    Raises:
        MetaprimeError: a language cannot be read, or has no entity at all.
    """
    pools = {}
    for language in config.data.languages:
        sentences = _read(config, config.data.source, language, config.data.train_split)
        for finding in check.unlabelled(f"{language}/{config.data.train_split}", sentences, config.data.labels):
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


def build_model(encoder: Encoder, task: Task, method: MethodConfig, example: Sequence[Row]) -> PrimableModel:
    """A copy of the encoder with phi injected and a head, self-checked on a few rows.

    Raises:
        MetaprimeError: the method is not connected to this encoder as it should be.
    """
    module = copy.deepcopy(encoder.module)
    sites = resolve(module, encoder.layout)
    head = task.new_head(sites.hidden, cast(nn.Embedding, module.get_input_embeddings()))
    batch = task.collate(example[:4])
    bare = probe(PrimableModel(module, nn.ModuleDict(), head).eval(), batch)
    model = PrimableModel(module, METHODS[method.method].inject(sites, method), head).eval()
    _bind(model, METHODS[method.method], method)
    check_injection(model, batch, bare, method.identity)
    with torch.no_grad():
        model.per_episode = takes_episodes(model, batch)
    model.autocast = encoder.autocast  # only now: the checks are of exact equality
    return model


def _bind(model: PrimableModel, method: Method, config: MethodConfig) -> None:
    """The method's functions of local names, as the model's of full ones."""

    def full(values: Params) -> Params:
        return {f"adapter.{name}": value for name, value in values.items()}

    def choose(backbone: Params, gradients: Gradients) -> Params:
        assert method.choose
        return full(method.choose(config, model.adapter, backbone, gradients))

    def project(values: Params, done: float) -> Params:
        assert method.project
        return full(method.project(config, model.adapter, under("adapter", values), done))

    def penalty(values: Params) -> torch.Tensor:
        assert method.penalty
        return method.penalty(config, under("adapter", values))

    model.choose = choose if method.choose else None
    model.project = project if method.project else None
    model.penalty = penalty if method.penalty else None


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
