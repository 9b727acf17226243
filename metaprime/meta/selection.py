"""Before the first step: what an episode may move, chosen by the gradients that its own sentences give.

The gradients are of the backbone's weights, where the PEFT method has changed nothing yet; they are taken episode by episode, as
no two share them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from metaprime.meta.learner import Settings
from metaprime.types import Batch, Gradients, Loss, Params


def select_weights(loss: Loss, backbone: Params, start: Params, support: Sequence[Batch], settings: Settings) -> Params:
    """`start` with the choices of each of T episodes in place of those there, if the method chooses."""
    if settings.choose is None:
        return start
    episodes = len(next(iter(start.values())))
    found = []
    for place in range(episodes):
        own = {name: value[place] for name, value in start.items() if not name.startswith("rates.")}
        batches = [{name: tensor[place] for name, tensor in batch.items()} for batch in support]
        found.append(settings.choose(backbone, backbone_gradients(loss, backbone, own, batches)))
    return {**start, **{name: torch.stack([one[name] for one in found]) for name in found[0]}}


def backbone_gradients(loss: Loss, backbone: Params, fast: Params, batches: Iterable[Batch]) -> Gradients:
    """The loss's gradients in the backbone, each computed only when it is asked for."""

    def gradients(names: Sequence[str]) -> Iterator[Params]:
        still = {name: value.detach() for name, value in fast.items()}
        leaves = {name: backbone[name].detach().requires_grad_() for name in names}
        whole = {name: value.detach() for name, value in backbone.items()} | leaves
        for batch in batches:
            found = torch.autograd.grad(loss(whole, still, batch), list(leaves.values()))
            yield dict(zip(leaves, found, strict=True))

    return gradients
