"""Builds the task of a config over an encoder's tokenizer, and reads the rows of a run."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from metaprime.build.roles import HELD_OUT, PRIMED_ON, TARGETS, Role, by_key
from metaprime.config.sections import DataConfig
from metaprime.data.rows import Example, Lengths, Row
from metaprime.data.subwords import Subwords, cache_folder
from metaprime.models.encoder import Encoder
from metaprime.models.language_head import load_language_head
from metaprime.models.sites import first_position
from metaprime.peft import MethodConfig
from metaprime.tasks import TASKS, Task, TaskConfig
from metaprime.tasks.masking import masking
from metaprime.tasks.task import Text
from metaprime.types import MetaprimeError

log = logging.getLogger(__name__)

BuildTask = Callable[[TaskConfig, DataConfig, Encoder, MethodConfig, bool], Task]
"""The type of `build_task`."""

ENCODED = 4
"""Sentences of a split that a task for checks encodes."""

LEAST_ROOM = 8
"""Smallest number of sub-words that a method must leave for a window."""


@dataclass(frozen=True)
class Split:
    """The encoded rows of one language.

    Attributes:
        train: training rows.
        scored: rows of the split on which scores are computed.
    """

    train: list[Row]
    scored: list[Row]

    @property
    def rows(self) -> list[Row]:
        """Rows for a trial of a model: the training rows, or the scored ones if there are none."""
        return self.train or self.scored


def build_task(task: TaskConfig, data: DataConfig, encoder: Encoder, method: MethodConfig, cache: bool = False) -> Task:
    """Builds the task of a config, with windows short enough for the positions that a method takes.

    Args:
        task: the section `task`.
        data: the section `data`, for the windows and the format of files.
        encoder: the encoder whose tokenizer is used.
        method: the PEFT method, which may take some of the encoder's positions.
        cache: whether to cache tokenised text on disk.

    Raises:
        MetaprimeError: the method leaves fewer than LEAST_ROOM sub-words, or the section contradicts itself.

    Example: `build_task(config.task, config.data, encoder, config.peft)`
    """
    longest = min(data.max_length, _room(encoder, method))
    lengths = Lengths(longest, data.overlap, cut=data.long == "truncate")
    subwords = Subwords(encoder.tokenizer, cache_folder() if cache else None)
    return _task_over(task, Text(subwords, lengths, data.form), encoder)


def thin_tasks() -> BuildTask:
    """Returns a `build_task` for checks: its tasks read a split once and encode only its first sentences.

    The rows of all other sentences repeat the windows of the first one.

    Example: `thin_tasks()(config.task, config.data, encoder, config.peft, True)`.
    """
    read: dict[str, Callable[[str, str, str], list[Example]]] = {}

    def build(task: TaskConfig, data: DataConfig, encoder: Encoder, method: MethodConfig, cached: bool) -> Task:
        """Builds the task of a config."""
        whole = build_task(task, data, encoder, method, cached)
        # Languages and sources are arguments of a reading, the task and the form of its files are not.
        form = data.model_dump_json(exclude={"languages", "validation_languages", "target_languages"})
        known = read.setdefault(task.model_dump_json() + form, cache(whole.read))

        def encode(examples: Sequence[Example]) -> list[Row]:
            """Encodes the first examples."""
            rows = whole.encode(examples[:ENCODED])
            return [*rows, *(Row(rows[0].windows, example) for example in examples[ENCODED:])]

        return replace(whole, read=known, encode=encode)

    return build


def restored_task(task: TaskConfig, encoder: Encoder, method: MethodConfig) -> Task:
    """Builds the task of a saved head, with the longest windows that encoder and method allow.

    Args:
        task: the section `task` of the artifact.
        encoder: the encoder whose tokenizer is used.
        method: the PEFT method, which may take some of the encoder's positions.

    Raises:
        MetaprimeError: the method leaves fewer than LEAST_ROOM sub-words, or the section contradicts itself.

    Example: `restored_task(artifact.task, encoder, artifact.method)`
    """
    lengths = Lengths(_room(encoder, method))
    return _task_over(task, Text(Subwords(encoder.tokenizer), lengths), encoder)


def _task_over(task: TaskConfig, text: Text, encoder: Encoder) -> Task:
    """Builds the task that a section names, with what the section leaves to the encoder."""
    pooling = getattr(encoder.module.config, "classifier_pooling", None)
    return TASKS[task.name].build(task.for_encoder(pooling), text)


def text_alone(task: Task, encoder: Encoder, trust_remote_code: bool = False) -> Task:
    """Returns the masked-word task over a task's texts, with the pre-trained head of the encoder.

    Args:
        task: the task whose examples are masked.
        encoder: the encoder whose checkpoint holds the masked-word head.
        trust_remote_code: whether Python files that come with the checkpoint may be run.

    Raises:
        MetaprimeError: the checkpoint has no such head, or the tokenizer no mask token.

    Example: `text_alone(task, encoder)`
    """
    return masking(task, encoder.tokenizer, lambda sites: load_language_head(encoder, sites.words, trust_remote_code))


def priming_rows(task: Task, data: DataConfig, seed: int) -> dict[str, list[Row]]:
    """Reads the training rows for episodes, by language.

    Args:
        task: reads, audits and encodes examples; with `shuffle`, also shuffles their labels.
        data: the section `data`.
        seed: key of the shuffling.

    Raises:
        MetaprimeError: there is no language, one cannot be read, or the task's audit finds a fatal problem in it.

    Example: `priming_rows(task, config.data, config.run.seed)["de"]`
    """
    pools = {}
    for language in PRIMED_ON.names(data):
        examples = _read(task, data, PRIMED_ON, language, "train_split")
        for finding in task.audit(f"{language}/{data.train_split}", examples):
            if finding.severity == "fatal":
                raise MetaprimeError(f"{data.source} {finding.where}: {finding.text}")
            log.warning("%s: %s", finding.where, finding.text)
        if task.shuffle:
            examples = task.shuffle(examples, seed, language)
        pools[language] = task.encode(examples)
    return pools


def validation_rows(task: Task, data: DataConfig, language: str, most: int | None, trains: bool = True) -> Split:
    """Reads training rows and validation rows of a held-out language.

    Args:
        task: reads and encodes examples.
        data: the section `data`.
        language: one of `data.validation_languages`.
        most: largest number of validation rows, the first ones; None reads all.
        trains: whether to read training rows; without fine-tuning none are needed.

    Raises:
        MetaprimeError: a split cannot be read.

    Example: `validation_rows(task, config.data, "de", 500).scored`
    """
    return _split(task, data, HELD_OUT, language, (most, trains))


def target_rows(task: Task, data: DataConfig, language: str, most: int | None, trains: bool = True) -> Split:
    """Reads training rows and test rows of a target language.

    Args:
        task: reads and encodes examples.
        data: the section `data`.
        language: one of `data.target_languages`.
        most: largest number of test rows, the first ones; None reads all.
        trains: whether to read training rows; without fine-tuning none are needed.

    Raises:
        MetaprimeError: a split cannot be read.

    Example: `target_rows(task, config.data, "sw", None).scored`
    """
    return _split(task, data, TARGETS, language, (most, trains))


def _split(task: Task, data: DataConfig, role: Role, language: str, limits: tuple[int | None, bool]) -> Split:
    """Reads training rows, if there is training, and the rows of the split to score, at most so many."""
    assert role.scored
    most, trains = limits
    train = _read(task, data, role, language, "train_split") if trains else []
    examples = _read(task, data, role, language, role.scored)[:most]
    if task.stratum and trains:
        _check_classes(task.stratum, train, examples, f"{role.uri(data)} {language}/{data.train_split}")
    return Split(task.encode(train), task.encode(examples))


def _check_classes(
    stratum: Callable[[Example], str], train: Sequence[Example], scored: Sequence[Example], where: str
) -> None:
    """Refuses a class that is scored and that no training text has."""
    wanted = Counter(map(stratum, scored))
    missing = sorted(wanted.keys() - set(map(stratum, train)))
    if missing:
        counted = ", ".join(f"{name!r} ({wanted[name]} times)" for name in missing)
        raise MetaprimeError(
            f"{where}: no text has the class {counted}, which the texts to be scored have: add some, leave the language out, or "
            "give the class another name in task.label_map"
        )


def _read(task: Task, data: DataConfig, role: Role, language: str, key: str) -> list[Example]:
    """Reads the split that a key of `data` names; what the corpus lacks is refused by the key that asks for it."""
    with by_key(role, data, key):
        return task.read(role.uri(data), language, getattr(data, key))


def _room(encoder: Encoder, method: MethodConfig) -> int:
    """Returns the largest number of sub-words that encoder and method allow in a window."""
    longest = _longest(encoder)
    if method.positions > longest - LEAST_ROOM:
        raise MetaprimeError(
            f"peft.length {method.positions}: this encoder has {longest} positions, which leaves {longest - method.positions} "
            f"for a sentence: set it to at most {longest - LEAST_ROOM}"
        )
    return longest - method.positions


def _longest(encoder: Encoder) -> int:
    """Returns the largest number of sub-words that the encoder takes, by its tokenizer and its positions."""
    config, longest = encoder.module.config, encoder.tokenizer.model_max_length
    reserved = first_position(encoder.module, encoder.layout)
    return int(min(longest, getattr(config, "max_position_embeddings", longest) - reserved))
