"""Builds a model from a copy of an encoder, a method's adapter and a task's head, and checks it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence

import torch

from metaprime.data.rows import Row
from metaprime.models.encoder import Encoder
from metaprime.models.injection_check import check_injection, probe, supports_one_pass
from metaprime.models.packing_check import why_padded
from metaprime.models.site_check import checked
from metaprime.models.sites import first_position, resolve
from metaprime.models.task_model import TaskModel
from metaprime.nn import Adapter
from metaprime.packing import packed_calls
from metaprime.peft import MethodConfig, method_of
from metaprime.tasks.task import Task

log = logging.getLogger(__name__)

CHECKED = 4
"""Rows in the batch of the self-check."""


def build_model(encoder: Encoder, task: Task, method: MethodConfig, example: Sequence[Row]) -> TaskModel:
    """Builds a model over a copy of the encoder and checks on a few rows that the adapter has an effect.

    Args:
        encoder: the encoder with theta; it is not modified.
        task: gives the model its head and its outputs.
        method: the PEFT method, with its settings.
        example: rows for the self-check, at least one; the first CHECKED are used.

    Raises:
        MetaprimeError: a site is not what its name says, or an adapter module or parameter has no
            effect in this encoder.

    Example: `build_model(encoder, task, config.peft, rows)`
    """
    module = copy.deepcopy(encoder.module)
    batch = task.collate(example[:CHECKED])
    sites = checked(resolve(module, encoder.layout), batch)
    head = task.new_head(sites)
    scale = encoder.scale if task.scales else 1.0
    bare = probe(TaskModel(module, Adapter(), head, task.outputs).variant(scale=scale), batch)
    adapter = method_of(method).inject(sites, method)
    model = TaskModel(module, adapter, head, task.outputs).variant(scale=scale)
    check_injection(model, batch, bare, method.identity)
    with torch.no_grad():
        one_pass = supports_one_pass(model, batch)
    model = model.variant(supports_one_pass=one_pass)
    packed_calls(module, first_position(module, encoder.layout))
    padded = encoder.padded or why_padded(model, batch)
    if padded and not encoder.padded:
        log.warning("peft.method %s: batches stay padded: %s", method.method, padded)
    # The checks compare for equality, so a lower precision must come after them.
    return model.variant(autocast=encoder.autocast, padded=padded)
