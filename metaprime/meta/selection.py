"""Selects which weights an episode may move, before its first inner step, by the gradients of its support sentences.

Sparse methods need it (`peft/sparse`); every other method skips it. The gradients are those of the
backbone's weights where the method has changed nothing yet. They are taken episode by episode, as no
two share them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from metaprime.meta.execution import episode
from metaprime.meta.learner import InnerLoop
from metaprime.types import Batch, Gradients, Loss, Params


def select_weights(loss: Loss, backbone: Params, start: Params, support: Sequence[Batch], inner: InnerLoop) -> Params:
    """Returns `start` with each episode's own selection in place of the one there.

    Args:
        loss: of one episode, scalar ().
        backbone: theta by name.
        start: phi and head with a leading T.
        support: the support batches, each tensor (T, B, ...).
        inner: its `select` decides; None: `start` is returned as it is.
    """
    if inner.select is None:
        return start
    selected = []
    for place in range(len(next(iter(start.values())))):
        fast = {name: value for name, value in episode(start, place).items() if not name.startswith("rates.")}
        batches = [episode(batch, place) for batch in support]
        selected.append(inner.select(backbone, backbone_gradients(loss, backbone, fast, batches)))
    return {**start, **{name: torch.stack([each[name] for each in selected]) for name in selected[0]}}


def backbone_gradients(loss: Loss, backbone: Params, fast: Params, batches: Iterable[Batch]) -> Gradients:
    """Returns a function from names in the backbone to the loss's gradients there, batch after batch.

    Each gradient is computed only when it is asked for.
    """

    def gradients(names: Sequence[str]) -> Iterator[Params]:
        still = {name: value.detach() for name, value in fast.items()}
        leaves = {name: backbone[name].detach().requires_grad_() for name in names}
        theta = {name: value.detach() for name, value in backbone.items()} | leaves
        for batch in batches:
            found = torch.autograd.grad(loss(theta, still, batch), list(leaves.values()))
            yield dict(zip(leaves, found, strict=True))

    return gradients
