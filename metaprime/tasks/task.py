"""Defines the interface of tasks: examples, outputs, loss, predictions and scores.

`task.name` selects a `TaskKind`, which has a config class, metrics and a scoring function, and
builds a `Task` over one tokenizer. The rest of the package uses only these two; a new kind is one
file with a TaskKind, and one line in `tasks/__init__.py`: its import.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metaprime.data.audit import Finding
from metaprime.data.readers.jsonl import inside
from metaprime.data.reading import UNSTATED, Format, Policy, Reading
from metaprime.data.rows import Example, Lengths, Row
from metaprime.data.subwords import Subwords
from metaprime.models.outputs import Measure, Outputs, head_outputs
from metaprime.types import Batch, Params, Section, Sites

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import nn

    from metaprime.models.task_model import TaskModel


class TaskConfig(Section):
    """Base class of the config of a task."""

    name: str = ""
    """Name of the task, a key of TASKS."""

    invalid: Policy = "repair"
    """Treatment of invalid examples: `repair` corrects mistakes that have one clear reading and
    refuses the rest, `drop` leaves out each example with a mistake, `error` refuses any mistake."""

    @property
    def shuffles(self) -> bool:
        """True if priming uses shuffled labels, which is a control."""
        return False

    def for_encoder(self, pooling: str | None) -> TaskConfig:
        """Returns the config with what it leaves to the encoder; of a task over words itself.

        Args:
            pooling: what the encoder's own config names for classifiers, `cls` or `mean`; None: it names none.

        Example: `TaskConfig().for_encoder(None)`.
        """
        return self

    def for_language(self, language: str) -> TaskConfig:
        """Returns the config of what is tuned on one language; of most tasks itself: `TaskConfig().for_language("de")`."""
        return self

    def check(self) -> None:
        """Refuses settings that contradict each other, before torch is loaded; of a task of one's own nothing.

        Raises:
            MetaprimeError: they do.
        """

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns of an example's whole texts; empty: an example is a sentence of words."""
        return ()

    def texts_in(self, values: Mapping[str, Any]) -> list[Any]:
        """Returns the whole texts in an object of JSON, by their columns: `config.texts_in({"text": "Well said."})`.

        Raises:
            LookupError: one is missing.
            MetaprimeError: one contradicts another.
        """
        return [values[name] if name in values else inside(values, name)[0] for name in self.texts]

    @property
    def own_heads(self) -> bool:
        """True if each language has an output layer of its own, which no other trains."""
        return False

    @property
    def together(self) -> int:
        """Windows that follow one another and that the loss reads together: one, or one for each choice."""
        return 1

    @property
    def least_shots(self) -> int:
        """Smallest K but 0 for which the sample has an example of each class; 1 where examples have none."""
        return 1


@dataclass(frozen=True)
class Metric:
    """Name, place and direction of one number of a task's scores.

    Attributes:
        name: in captions, such as `entity F1`.
        key: path of the number in `Scores.details`.
        column: name in CSV files.
        short: name in narrow tables, such as `F1`; empty: `name`.
        heading: column in the table of `metaprime transfer`; empty: not shown there, unless no
            metric has a heading, which shows the first one.
        unit: such as `%`; empty: none.
        note: method of computation, for captions.
        higher_is_better: False if lower values are better.

    Example: `Metric("accuracy", ("accuracy",), "accuracy").of({"accuracy": 90.0})` is 90.0.
    """

    name: str
    key: tuple[str, ...]
    column: str
    short: str = ""
    heading: str = ""
    unit: str = "%"
    note: str = ""
    higher_is_better: bool = True

    @property
    def label(self) -> str:
        """Short name for narrow tables."""
        return self.short or self.name

    @property
    def title(self) -> str:
        """Name with a capital, for the beginning of a sentence."""
        return self.name[:1].upper() + self.name[1:]

    @property
    def described(self) -> str:
        """Capitalised name with unit and note, such as `Entity F1 (%, lenient, micro)`."""
        notes = ", ".join(text for text in (self.unit, self.note) if text)
        return f"{self.title} ({notes})" if notes else self.title

    @property
    def with_unit(self) -> str:
        """Name and unit for the axis of a figure, such as `entity F1 (%)`."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def width(self) -> float:
        """Distance between the smallest and the largest value: 100 for per cent, else infinite."""
        return 100.0 if self.unit == "%" else math.inf

    def rank(self, value: float) -> float:
        """Returns a number that is larger for better values: `max(values, key=metric.rank)`."""
        return value if self.higher_is_better else -value

    def of(self, details: Mapping[str, Any]) -> float:
        """Returns the metric's number among the details of scores: `metric.of(scores.details)`.

        Raises:
            KeyError: the details have no such number.
        """
        value: Any = details
        for part in self.key:
            value = value[part]
        return float(value)


@dataclass(frozen=True)
class Scores:
    """Scores of a model's predictions on one split.

    Attributes:
        headline: value of the first metric, by which models are chosen.
        details: all numbers, as JSON; `Metric.key` is a path in them.
    """

    headline: float
    details: dict[str, Any]


@dataclass(frozen=True)
class Statistics:
    """A headline metric as a function of sums over examples, for intervals over test examples.

    Attributes:
        of_example: maps a line of predictions.jsonl to k counts. The last count depends on the gold
            answer alone: scores of two models are paired only if all their lines agree in it.
                Raises
            ValueError for a malformed line.
        of_sums: maps sums of counts (..., k) to the metric (...).

    Example: `statistics.of_sums(np.array([[8.0, 10.0, 10.0]]))`.
    """

    of_example: Callable[[Mapping[str, Any]], tuple[int, ...]]
    of_sums: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Trivial:
    """The best answer that reads no text, whose score stands beside those of models.

    Attributes:
        text: the answer, as the subject of a sentence.
        of: maps the details of a model's scores, and a metric, to the answer's score on the same examples.
            Raises KeyError for details that lack it.

    Example: `kind.trivial.of(record["scores"], kind.metric)`.
    """

    text: str
    of: Callable[[Mapping[str, Any], Metric], float]


@dataclass(frozen=True)
class Piece:
    """A stretch of a text in the report.

    Attributes:
        text: the words, joined by spaces.
        type: label, such as an entity type; empty: none.
        kind: kind of match, one of `Errors.kinds`, or `gold`; empty: none.
    """

    text: str
    type: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Errors:
    """A classification of a task's mistakes, and their display.

    Attributes:
        kinds: every kind of match, right answers first.
        of_example: maps a line of predictions.jsonl to the number of matches of each kind.
        reference: kinds that add up to the gold answers, the denominator of rates.
        unit: noun for the things counted, in the plural.
        caption: explanation of the kinds, in sentences.
        show: maps a line, and `gold` or `predicted`, to the pieces of that side.
        missed: the kind of a gold answer to which no prediction belongs; empty: there is none.
    """

    kinds: tuple[str, ...]
    of_example: Callable[[Mapping[str, Any]], tuple[int, ...]]
    reference: tuple[str, ...]
    unit: str
    caption: str
    show: Callable[[Mapping[str, Any], str], tuple[Piece, ...]]
    missed: str = ""

    def nothing_predicted(self, counts: Sequence[int]) -> bool:
        """Returns True if all that is counted are gold answers without a prediction.

        Args:
            counts: number of matches of each kind, in the order of `kinds`.

        Example: `ERRORS.nothing_predicted((0, 0, 0, 7, 0))` is True: seven missed entities.
        """
        others = [count for kind, count in zip(self.kinds, counts, strict=True) if kind != self.missed]
        return bool(self.missed) and sum(counts) > 0 and not any(others)


@dataclass(frozen=True)
class Audit:
    """Functions of a task for `metaprime data check`.

    Attributes:
        examine: reads a split with all its problems, even those that the config would refuse. Takes
            source, language, split, the task's config, True if labels are restricted to the
            config's, and facts about the files.
        facts: maps examples to counts as JSON, which include `sentences` and `scripts`.
        columns: maps facts to cells of a terminal table, by header.
        labels: finds problems of labels. Takes the split's name, examples, and the config, or None
            if labels are not restricted.
        lengths: finds text that the encoder cannot see. Takes the split's name, examples, and the
            encoder's text.
    """

    examine: Callable[[str, str, str, Any, bool, Format], Reading]
    facts: Callable[[Sequence[Example]], dict[str, Any]]
    columns: Callable[[Mapping[str, Any]], dict[str, str]]
    labels: Callable[[str, Sequence[Example], Any], list[Finding]]
    lengths: Callable[[str, Sequence[Example], Text], list[Finding]]


@dataclass(frozen=True)
class Text:
    """A run's text: its conversion into sub-words, and the format of its files.

    Attributes:
        subwords: the tokenizer with its cache.
        lengths: limits on the length of windows.
        form: facts about the files that hold the text.
    """

    subwords: Subwords
    lengths: Lengths
    form: Format = UNSTATED


@dataclass(frozen=True)
class TaskKind:
    """One kind of problem, independent of a tokenizer.

    Attributes:
        config: class of its config section, whose default `name` is the kind's name.
        metrics: numbers of its scores; the first is the headline.
        unit: denominator of the loss, which is in nats per this.
        build: builds the task of a config over the text of a run.
        of_labels: returns the config of a task whose head has these outputs.
        score: maps examples and their predictions to scores.
        to_json: maps an example and its prediction to a line of predictions.jsonl, with keys `gold`
            and `predicted`.
        audit: for `metaprime data check`; None: it does not support the task.
        statistics: for intervals over test examples; None: intervals are over seeds alone.
        errors: for the report; None: mistakes are not classified.
        trivial: an answer that reads no text, to compare with; None: the task has none, as scores of 0 say it.
        present: maps an example and its prediction to the output of `metaprime predict`.
        of: returns the kind of one config, where metrics depend on it; None: always this one.

    Example: `TASKS["tagging"].build(TaggingConfig(), text)`.
    """

    config: type[TaskConfig]
    metrics: tuple[Metric, ...]
    unit: str
    build: Callable[[Any, Text], Task]
    of_labels: Callable[[Sequence[str]], TaskConfig]
    score: Callable[[Sequence[Example], Sequence[Any]], Scores]
    to_json: Callable[[Example, Any], dict[str, Any]]
    audit: Audit | None = None
    statistics: Statistics | None = None
    errors: Errors | None = None
    trivial: Trivial | None = None
    present: Callable[[Example, Any], Any] = lambda example, predicted: predicted
    of: Callable[[Any], TaskKind] | None = None

    @property
    def name(self) -> str:
        """Value of `task.name` that selects the kind."""
        return str(self.config.model_fields["name"].default)

    @property
    def metric(self) -> Metric:
        """Headline metric, by which models are chosen."""
        return self.metrics[0]

    @property
    def listed(self) -> tuple[Metric, ...]:
        """Metrics in the table of `metaprime transfer`: the first, and others with a heading, if it has one or is chosen."""
        headed = tuple(metric for metric in self.metrics if metric.heading)
        return headed if self.metric in headed else (self.metric, *headed)

    @property
    def validation_key(self) -> str:
        """Key of the held-out languages' score in metrics.jsonl, such as `validation_f1`."""
        return f"validation_{self.metric.key[-1]}"


@dataclass(frozen=True)
class Plain:
    """The model of transformers that computes what a task's head does.

    Attributes:
        auto_class: name of the class that loads it.
        pooling: the state of a window that the head reads, `first` or `mean`; empty: those of all sub-words.
        centre: number for which the head answers 0, where it answers with numbers.
        unit: distance of two numbers for which its answers differ by 1.
        labels: names of its outputs, which are those of the head from `first` on; empty: the task's.
        first: number of the head's first output that it has.

    Example: `Plain("AutoModelForSequenceClassification", "first")`.
    """

    auto_class: str
    pooling: str = ""
    centre: float = 0.0
    unit: float = 1.0
    labels: tuple[str, ...] = ()
    first: int = 0


@dataclass(frozen=True)
class Task:
    """One kind of problem over one tokenizer.

    Shape suffixes: B windows, L sub-words, C labels.

    Attributes:
        kind: metrics, scores and errors.
        config: config section of the task.
        labels: meaning of the head's C outputs, in order.
        read: reads examples of a source, language and split; logs what was repaired or dropped.
        example: makes an example without a known answer from words.
        encode: maps examples to rows.
        collate: pads the windows of all rows to one batch, `input_ids` (B, L).
        new_head: builds an output layer, a `types.Drawn`, for the sites of an encoder.
        loss: maps outputs and batch to a scalar () in nats per `kind.unit`.
        predict: returns one prediction per row. Takes a model, all its parameter values, and rows.
        audit: finds missing labels in a split; a fatal finding ends the run.
        outputs: maps a model and a batch to outputs: (B, L, C) for tagging, (B, C) for classes.
        scales: whether the head reads features of unit scale; a pretrained head reads the encoder's own.
        corrupt: changes the rows of one episode before training, with a generator of that episode.
        shuffle: returns examples with shuffled answers, a control, for a seed and a language.
        stratum: returns the class of an example, of which episodes and samples have all in proportion; None:
            they are drawn uniformly.
        plain: the model of transformers with such a head, for exports; None: there is none.
    """

    kind: TaskKind
    config: TaskConfig
    labels: tuple[str, ...]
    read: Callable[[str, str, str], list[Example]]
    example: Callable[[Sequence[str]], Example]
    encode: Callable[[Sequence[Example]], list[Row]]
    collate: Callable[[Sequence[Row]], Batch]
    new_head: Callable[[Sites], nn.Module]
    loss: Measure
    predict: Callable[[TaskModel, Params, Sequence[Row]], list[Any]]
    audit: Callable[[str, Sequence[Example]], list[Finding]]
    outputs: Outputs = head_outputs
    scales: bool = True
    corrupt: Callable[[Sequence[Row], torch.Generator], list[Row]] | None = None
    shuffle: Callable[[Sequence[Example], int, str], list[Example]] | None = None
    stratum: Callable[[Example], str] | None = None
    plain: Plain | None = Plain("AutoModelForTokenClassification")

    def trial_batch(self, rows: Sequence[Row]) -> Batch:
        """Returns a batch (B, L) of rows as training sees them, drawn alike in each call: for trial meta-steps."""
        import torch

        return self.collate(self.corrupt(rows, torch.Generator().manual_seed(0)) if self.corrupt else rows)
