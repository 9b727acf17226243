"""Selects the weights that an episode may move, by gradients of its support sentences.

Only sparse methods (`peft/sparse`) select weights, before the first inner step. The gradients are
those of the unchanged backbone, and are computed episode by episode.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from metaprime.meta.execution import episode
from metaprime.meta.learner import InnerLoop
from metaprime.types import Batch, Gradients, Loss, Params


def select_weights(loss: Loss, backbone: Params, start: Params, support: Sequence[Batch], inner: InnerLoop) -> Params:
    """Returns `start` with each episode's own selection of weights.

    Args:
        loss: loss of one episode in nats, ().
        backbone: theta by name.
        start: phi and head, each (T, ...).
        support: support batches of tensors (T, B, ...).
        inner: its `select` makes the selection; None: `start` is returned unchanged.

    Returns:
        The values of `start`, with integer tensors (T, k) that hold the selection replaced.
    """
    if inner.select is None:
        return start
    selected = []
    for place in range(len(next(iter(start.values())))):
        fast = {name: value for name, value in episode(start, place).items() if not name.startswith("rates.")}
        batches = [episode(batch, place) for batch in support]
        selected.append(inner.select(backbone, backbone_gradients(loss, backbone, fast, batches)))
    return {**start, **{name: torch.stack([values[name] for values in selected]) for name in selected[0]}}


def backbone_gradients(loss: Loss, backbone: Params, fast: Params, batches: Iterable[Batch]) -> Gradients:
    """Returns a function that yields the loss's gradient in backbone weights, batch after batch.

    Gradients are computed one at a time, when the caller takes them.

    Args:
        loss: loss of one episode in nats, ().
        backbone: theta by name.
        fast: phi and head of the episode, without a leading T.
        batches: tensors (B, ...) of the episode.

    Returns:
        A function: `gradients(["backbone.x"])` yields `{"backbone.x": gradient}` for each batch.
    """

    def gradients(names: Sequence[str]) -> Iterator[Params]:
        still = {name: value.detach() for name, value in fast.items()}
        leaves = {name: backbone[name].detach().requires_grad_() for name in names}
        theta = {name: value.detach() for name, value in backbone.items()} | leaves
        for batch in batches:
            values = torch.autograd.grad(loss(theta, still, batch), list(leaves.values()))
            yield dict(zip(leaves, values, strict=True))

    return gradients
