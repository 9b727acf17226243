"""Draws the episodes of a problem from sentences of a source, as priming draws them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from problem import Problem, Shape, problem_over
from transformers import BertModel

from metaprime.build.data import build_task, priming_rows
from metaprime.config.loading import load_config
from metaprime.config.sections import Config
from metaprime.data.episodes import EpisodeSampler, EpisodeShape
from metaprime.data.rows import Row
from metaprime.models.encoder import load_encoder
from metaprime.tasks import Task


@dataclass(frozen=True)
class Sentences:
    """Encoded sentences of some languages.

    Attributes:
        config: the config that they were read by.
        task: collates them.
        pools: language -> rows.
    """

    config: Config
    task: Task
    pools: dict[str, list[Row]]


def config_of(source: str, languages: Sequence[str], encoder: str) -> Config:
    """Returns a config with defaults for all but source, languages and encoder.

    Args:
        source: as in a config, such as `parquet:data/wikiann`.
        languages: codes of languages.
        encoder: folder of an encoder.
    """
    given = [
        f"data.source={source}",
        f"data.languages=[{','.join(languages)}]",
        "data.validation_languages=[]",
        "data.target_languages=[]",
        "task.label_map={DATE: O, MISC: O}",
        f"encoder.name={encoder}",
    ]
    return load_config(None, given)


def read(source: str, languages: Sequence[str], encoder: str) -> Sentences:
    """Reads and encodes the training sentences, as `metaprime prime` does.

    Args:
        source: as in a config, such as `parquet:data/wikiann`.
        languages: codes of languages.
        encoder: folder of an encoder, whose tokenizer is used.
    """
    config = config_of(source, languages, encoder)
    task = build_task(config.task, config.data, load_encoder(encoder), config.peft)
    return Sentences(config, task, priming_rows(task, config.data, config.run.seed))


def draws(sentences: Sentences, shape: Shape) -> Callable[[int], Problem]:
    """Returns a function from the number of a meta-batch to the problem with its episodes.

    Encoder and starting values are the same for all meta-batches.

    Args:
        sentences: encoded sentences and their encoder.
        shape: T, B and n; the query batch has B sentences too.
    """
    config = sentences.config
    encoder = load_encoder(config.encoder.name).module
    if not isinstance(encoder, BertModel):
        raise SystemExit(
            f"--encoder {config.encoder.name}: a {type(encoder).__name__}, the peers' model is made of a BERT"
        )
    each = EpisodeShape(shape.episodes, shape.sentences, shape.steps, shape.sentences, config.episodes.tau)
    sampler = EpisodeSampler(sentences.pools, each, config.run.seed)
    first = sampler.meta_batch(0, range(shape.episodes), sentences.task.collate)
    problem = problem_over(encoder, first, shape, len(sentences.task.labels))

    def draw(number: int) -> Problem:
        return replace(problem, batch=sampler.meta_batch(number, range(shape.episodes), sentences.task.collate))

    return draw
