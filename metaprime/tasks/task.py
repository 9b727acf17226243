"""Defines what a task is: one kind of problem, with its examples, its outputs, its loss and its scores.

A `TaskKind` is what `task.name` names: it knows its config, its metrics and how its predictions are
scored, and builds a `Task` over one tokenizer. Everything else in the package works through these two;
a new kind is one file with a TaskKind, and one line in TASKS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.func import functional_call

from metaprime.data.audit import Finding
from metaprime.data.reading import Policy, Reading
from metaprime.data.rows import Example, Lengths, Row, by_length, to_device
from metaprime.data.subwords import Subwords
from metaprime.models.task_model import Measure, Outputs, TaskModel, head_outputs
from metaprime.types import Batch, Params, Section, Sites

PREDICTED_TOGETHER = 64
"""Rows, and windows, of one forward pass when predicting."""


class TaskConfig(Section):
    """Base of a task's config. `name` is its name in TASKS."""

    name: str = ""
    """Which task."""

    invalid: Policy = "repair"
    """What becomes of invalid examples: `repair` mends what has one clear reading and refuses the rest, `drop` leaves
    out each example with a mistake in it, `error` refuses any mistake."""

    @property
    def shuffles(self) -> bool:
        """Whether priming is on shuffled labels, the control."""
        return False


@dataclass(frozen=True)
class Metric:
    """One number among a task's scores.

    Attributes:
        name: in captions, such as `entity F1`.
        key: its path in `Scores.details`.
        column: its name in CSV files.
        short: its name in narrow tables, such as `F1`; empty: `name`.
        heading: its column in the table of `metaprime transfer`; empty: it has none unless no metric has one.
        unit: of the number, such as `%`.
        note: how it is computed, for captions.
        higher_is_better: its direction.
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
        """Its name where there is little room."""
        return self.short or self.name

    @property
    def title(self) -> str:
        """Its name at the beginning of a sentence."""
        return self.name[:1].upper() + self.name[1:]

    @property
    def described(self) -> str:
        """Its name at the beginning of a sentence, with unit and note."""
        notes = ", ".join(text for text in (self.unit, self.note) if text)
        return f"{self.title} ({notes})" if notes else self.title

    @property
    def with_unit(self) -> str:
        """Its name and unit, for the axis of a figure."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def rank(self, value: float) -> float:
        """Returns a number that is larger for the better of two values."""
        return value if self.higher_is_better else -value

    def of(self, details: Mapping[str, Any]) -> float:
        """Returns the number out of a record's scores.

        Raises:
            KeyError: the scores have no such number.
        """
        value: Any = details
        for part in self.key:
            value = value[part]
        return float(value)


@dataclass(frozen=True)
class Scores:
    """What predictions are worth: `headline`, the first metric, by which models are chosen, and all numbers as JSON."""

    headline: float
    details: dict[str, Any]


@dataclass(frozen=True)
class Statistics:
    """A headline metric as a function of sums over examples, from which intervals over test examples are computed.

    Attributes:
        of_example: one line of predictions.jsonl to k counts. The last one depends on the gold answer alone: scores
            are paired only where it is the same in every line. A line that is none raises ValueError.
        of_sums: sums (..., k) to the metric (...).
    """

    of_example: Callable[[Mapping[str, Any]], tuple[int, ...]]
    of_sums: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Piece:
    """A stretch of a shown text: its label, and the kind of match it is part of, or neither."""

    text: str
    type: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Errors:
    """How a task's mistakes are sorted and shown.

    Attributes:
        kinds: every kind, that of right answers first.
        of_example: one line of predictions.jsonl to the number of matches of each kind.
        reference: kinds that add up to the gold answers, out of which rates are computed.
        unit: what is counted, in the plural.
        caption: what the kinds mean, in sentences.
        show: one line, and `gold` or `predicted`, to the pieces of that reading.
    """

    kinds: tuple[str, ...]
    of_example: Callable[[Mapping[str, Any]], tuple[int, ...]]
    reference: tuple[str, ...]
    unit: str
    caption: str
    show: Callable[[Mapping[str, Any], str], tuple[Piece, ...]]


@dataclass(frozen=True)
class Audit:
    """What `metaprime data check` asks of a task.

    Attributes:
        examine: source URI, language, split, the task's section, and whether labels are restricted to those of the
            section, to the split with every problem in it, whatever the section allows.
        facts: examples to counts as JSON, `sentences` and `scripts` among them.
        columns: facts to cells of a terminal table, by header.
        labels: name of the split, examples, and the section if labels are restricted to it, to findings about labels.
        lengths: name of the split, examples and the encoder's text, to findings about what the encoder cannot see.
    """

    examine: Callable[[str, str, str, Any, bool], Reading]
    facts: Callable[[Sequence[Example]], dict[str, Any]]
    columns: Callable[[Mapping[str, Any]], dict[str, str]]
    labels: Callable[[str, Sequence[Example], Any], list[Finding]]
    lengths: Callable[[str, Sequence[Example], Text], list[Finding]]


@dataclass(frozen=True)
class Text:
    """How a run's text becomes sub-words: the tokenizer, and how long texts are read."""

    subwords: Subwords
    lengths: Lengths


@dataclass(frozen=True)
class TaskKind:
    """One kind of problem, before a tokenizer is known.

    Attributes:
        config: its section's class; `name` there is the kind's name.
        metrics: its numbers; the first is the headline.
        unit: of the loss, which is in nats per this.
        build: its section and the text to a task.
        of_labels: the section of a task whose head has these outputs.
        score: examples and their predictions to scores.
        to_json: an example and its prediction to a line of predictions.jsonl, with `gold` and `predicted`.
        audit: for `metaprime data check`.
        statistics: for intervals over test examples; None: intervals are over seeds alone.
        errors: for the report; None: mistakes are not sorted.
        present: an example and its prediction to what `metaprime predict` gives for it.
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
    present: Callable[[Example, Any], Any] = lambda example, predicted: predicted

    @property
    def name(self) -> str:
        """The name by which a config calls it."""
        return str(self.config.model_fields["name"].default)

    @property
    def metric(self) -> Metric:
        """The headline: what is shown, and what models are chosen by."""
        return self.metrics[0]

    @property
    def listed(self) -> tuple[Metric, ...]:
        """The metrics in the table of `metaprime transfer`."""
        return tuple(metric for metric in self.metrics if metric.heading) or self.metrics[:1]

    @property
    def validation_key(self) -> str:
        """Name of the held-out languages' score in metrics.jsonl, such as `validation_f1`."""
        return f"validation_{self.metric.key[-1]}"


@dataclass(frozen=True)
class Task:
    """One kind of problem over one tokenizer.

    Attributes:
        kind: metrics, scores and errors.
        config: its section.
        labels: what the head's outputs mean, in order.
        read: source, language and split to examples; logs what was repaired or dropped.
        example: words to an example without a known answer.
        encode: examples to rows.
        collate: the windows of all rows to one padded batch.
        new_head: an encoder's sites to an output layer that is `types.Drawn`.
        loss: outputs and batch to a scalar in nats per `kind.unit`.
        predict: a model, all its values, and rows to one prediction for each row.
        audit: finds missing labels in a split; fatal ones end the run.
        outputs: a model and a batch to outputs: (B, L, C) for tagging, (B, C) for classes.
        corrupt: changes the rows of one episode by a draw of that episode, before they are learned from.
        shuffle: the control: examples whose answers are shuffled, by seed and language.
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
    corrupt: Callable[[Sequence[Row], torch.Generator], list[Row]] | None = None
    shuffle: Callable[[Sequence[Example], int, str], list[Example]] | None = None


@torch.no_grad()
def outputs_of(
    model: TaskModel, values: Params, rows: Sequence[Row], collate: Callable[[Sequence[Row]], Batch]
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Runs the model over rows, those of like length together.

    Args:
        model: whose modules are run.
        values: all its parameters by name.
        rows: what to run it on.
        collate: the task's.

    Yields:
        The numbers of some rows, and the outputs of all their windows, in that order.
    """
    device = next(iter(values.values())).device
    for chosen in by_length(rows, PREDICTED_TOGETHER):
        batch = to_device(collate([rows[index] for index in chosen]), device)
        pieces = zip(*(tensor.split(PREDICTED_TOGETHER) for tensor in batch.values()), strict=True)
        named = (dict(zip(batch, piece, strict=True)) for piece in pieces)
        yield chosen, torch.cat([functional_call(model, values, (piece,)) for piece in named])
