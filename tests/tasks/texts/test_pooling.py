"""Pooling: the head reads the first state, or the mean of those that are no padding."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from metaprime.tasks.texts.pooling import POOLED, mean_states


def test_pooling_reads_the_first_state_or_the_mean_of_those_that_are_no_padding() -> None:
    hidden = torch.randn(2, 4, 8)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    model: Any = SimpleNamespace(head=lambda states: states, encode=lambda batch: hidden)
    torch.testing.assert_close(POOLED["first"](model, {"attention_mask": mask}), hidden[:, 0])
    found = POOLED["mean"](model, {"attention_mask": mask})
    torch.testing.assert_close(found, torch.stack([hidden[0, :3].mean(0), hidden[1].mean(0)]))


def test_the_mean_of_nothing_is_zero() -> None:
    chosen = torch.tensor([[False, False], [True, False]])
    hidden = torch.ones(2, 2, 3)
    assert mean_states(hidden, chosen).tolist() == [[0, 0, 0], [1, 1, 1]]
