"""Builds a model: a copy of an encoder with a method's adapter in it and a task's head on it, self-checked."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from metaprime.data.rows import Row
from metaprime.models.encoder import Encoder
from metaprime.models.injection_check import check_injection, probe, supports_one_pass
from metaprime.models.sites import resolve
from metaprime.models.task_model import TaskModel
from metaprime.nn import Adapter
from metaprime.peft import MethodConfig, method_of
from metaprime.tasks.task import Task

CHECKED = 4
"""Rows that the self-check reads."""


def build_model(encoder: Encoder, task: Task, method: MethodConfig, example: Sequence[Row]) -> TaskModel:
    """Builds a model over a copy of the encoder and checks on a few rows that everything is connected.

    Args:
        encoder: where theta comes from; it is not modified.
        task: whose head and outputs the model has.
        method: the PEFT method, with its settings.
        example: rows to check with; the first few are read.

    Raises:
        MetaprimeError: the method is not connected to this encoder as it should be.
    """
    module = copy.deepcopy(encoder.module)
    sites = resolve(module, encoder.layout)
    head = task.new_head(sites)
    batch = task.collate(example[:CHECKED])
    bare = probe(TaskModel(module, Adapter(), head, task.outputs).eval(), batch)
    model = TaskModel(module, method_of(method).inject(sites, method), head, task.outputs).eval()
    check_injection(model, batch, bare, method.identity)
    with torch.no_grad():
        one_pass = supports_one_pass(model, batch)
    # Lower precision comes last: the checks are of exact equality.
    return model.variant(autocast=encoder.autocast, supports_one_pass=one_pass)
