"""Where the rooms meet: config -> task, rows and a model with its PEFT modules in place."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from metaprime.data.rows import Row
from metaprime.models.encoder import Encoder
from metaprime.models.injection_check import check_injection, probe, supports_one_pass
from metaprime.models.sites import resolve
from metaprime.models.task_model import TaskModel
from metaprime.peft import METHODS, Method, MethodConfig
from metaprime.peft.method import under
from metaprime.tasks.task import Task
from metaprime.types import Gradients, Params


def build_model(encoder: Encoder, task: Task, method: MethodConfig, example: Sequence[Row]) -> TaskModel:
    """A copy of the encoder with phi injected and a head, self-checked on a few rows.

    Raises:
        MetaprimeError: the method is not connected to this encoder as it should be.
    """
    module = copy.deepcopy(encoder.module)
    sites = resolve(module, encoder.layout)
    head = task.new_head(sites.hidden, cast(nn.Embedding, module.get_input_embeddings()))
    batch = task.collate(example[:4])
    bare = probe(TaskModel(module, nn.ModuleDict(), head).eval(), batch)
    model = TaskModel(module, METHODS[method.method].inject(sites, method), head).eval()
    _bind(model, METHODS[method.method], method)
    check_injection(model, batch, bare, method.identity)
    with torch.no_grad():
        model.per_episode = supports_one_pass(model, batch)
    model.autocast = encoder.autocast  # only now: the checks are of exact equality
    return model


def _bind(model: TaskModel, method: Method, config: MethodConfig) -> None:
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
