"""The trial that decides whether an encoder works on packed rows, and the reasons it gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from batches import batch_of
from torch import nn

from metaprime.build.model import build_model
from metaprime.data.readers import synthetic
from metaprime.data.rows import Lengths
from metaprime.data.subwords import Subwords
from metaprime.models.encoder import load_encoder
from metaprime.models.packing_check import why_padded
from metaprime.models.task_model import TaskModel
from metaprime.peft import METHODS
from metaprime.tasks import TASKS
from metaprime.tasks.tagging.task import TaggingConfig
from metaprime.tasks.task import Text
from metaprime.types import Batch


def parts(folder: Path, method: str = "lora") -> tuple[TaskModel, Batch]:
    encoder = load_encoder(str(folder))
    task = TASKS["tagging"].build(
        TaggingConfig(labels=("PER", "ORG", "LOC")), Text(Subwords(encoder.tokenizer), Lengths(64))
    )
    rows = task.encode(synthetic.read("", "qaa", "train")[:4])
    return build_model(encoder, task, METHODS[method].config(), rows), task.collate(rows)


def test_an_encoder_that_packs_has_no_reason_against_it(toy_bert: Path) -> None:
    model, batch = parts(toy_bert)
    assert model.packed
    assert why_padded(model, batch) == ""
    assert why_padded(model, {name: tensor[:1] for name, tensor in batch.items()}) == ""


def test_the_trial_has_padding_to_leave_out(toy_bert: Path) -> None:
    """Of sentences of one length, and of one alone."""
    model, _ = parts(toy_bert)
    even = batch_of(torch.randint(5, 60, (1, 12)))
    seen: list[int] = []
    query = model.backbone.get_submodule("encoder.layer.0.attention.self.query")
    query.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[0] * inputs[0].shape[1]))
    assert why_padded(model, even) == ""
    assert min(seen) < 0.9 * max(seen)


def test_deberta_keeps_its_padding_and_says_why(toy_encoder: Callable[[str], Path]) -> None:
    model, _ = parts(toy_encoder("deberta-v2"))
    assert not model.packed
    assert model.traits.padded == "its attention has terms of its own, outside transformers' interface"


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        pytest.param(
            lambda module, inputs, output: output + output.mean(1, keepdim=True),
            "BertModel computes other states from a row of sub-words than from a padded batch",
            id="reads all positions",
        ),
        pytest.param(
            lambda module, inputs, output: output.view(4, -1, output.shape[-1]),
            "BertModel does not run on a row of sub-words (RuntimeError: shape '[4, -1, ",
            id="counts windows",
        ),
    ],
)
def test_what_reads_whole_windows_keeps_the_batch_padded(
    toy_bert: Path, harm: Callable[[nn.Module, object, torch.Tensor], torch.Tensor], reason: str
) -> None:
    model, batch = parts(toy_bert)
    odd = {name: tensor[:, :11] for name, tensor in batch.items()}
    model.backbone.get_submodule("encoder.layer.0.output.dense").register_forward_hook(harm)
    assert why_padded(model, odd).startswith(reason)
