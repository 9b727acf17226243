"""Reference backend `learner.backend: learn2learn`: computes the meta-step with learn2learn 0.2.0.

`MAML.adapt` updates everything that requires a gradient, the backbone included, and so cannot express
the method; its parts `clone_module` and `maml_update` can. `make learn2learn` installs the package
without its dependencies, which would change 65 packages. Its `__init__` imports gym and torchvision, so
this module imports its submodule directly.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from metaprime.meta import InnerLoop, MetaStep, Outcome, Way
from metaprime.meta.chunks import chunks
from metaprime.meta.execution import attention_kernels, episode
from metaprime.meta.learner import in_groups
from metaprime.types import Batch, Episodes, Loss, MetaprimeError, Params, trainable

LEARNERS_HERE = ("peft_maml", "inner_peft", "maml", "anil")
"""Learners that this backend computes."""


def step_of(learner: str) -> MetaStep:
    """Returns the meta-step of a learner.

    Raises:
        MetaprimeError: this backend does not compute the learner, or learn2learn is not installed.

    Example: `step_of("peft_maml")`
    """
    if learner not in LEARNERS_HERE:
        raise MetaprimeError(f"learner.backend learn2learn computes {', '.join(LEARNERS_HERE)} only, not {learner!r}")
    _functions()
    return step


def installed() -> bool:
    """Returns True if learn2learn can be imported, without importing it."""
    return importlib.util.find_spec("learn2learn") is not None


class _Holder(nn.Module):
    """A flat module of parameters for learn2learn to clone; its forward pass is the loss on their values.

    A clone of the model itself would not do: our hooks close over the original modules.
    """

    def __init__(self, loss: Loss, backbone: Params, fast: Params) -> None:
        super().__init__()
        self.loss, self.backbone_names, self.fast_names = loss, list(backbone), list(fast)
        for name, value in {**backbone, **fast}.items():
            self.register_parameter(name.replace(".", "/"), nn.Parameter(value.detach().clone()))

    @property
    def names(self) -> list[str]:
        """Lists all names in the order of registration."""
        return [*self.backbone_names, *self.fast_names]

    def values(self, names: list[str]) -> Params:
        """Returns the parameters of these names."""
        # No registered parameter is None.
        return {name: self._parameters[name.replace(".", "/")] for name in names}  # type: ignore[misc]

    def forward(self, batch: Batch) -> torch.Tensor:
        """Returns the loss () of a batch with tensors (B, L)."""
        return self.loss(self.values(self.backbone_names), self.values(self.fast_names), batch)


def step(loss: Loss, backbone: Params, start: Params, batch: Episodes, inner: InnerLoop) -> Outcome:
    """Computes `meta.maml.step` with learn2learn, one episode at a time; a `MetaStep`.

    Args:
        loss: the loss of one episode's batch.
        backbone: theta by full name, in the shapes of the encoder's parameters, such as `(D, D)`.
        start: initial adapter and head, each `(...,)`.
        batch: the episodes, tensors `(T, B, L)`.
        inner: the inner loop; only plain SGD without carried values.

    Returns:
        Gradients by name, the query losses `(T,)`, and the first and last support losses `(T, 2)`.

    Raises:
        MetaprimeError: the inner loop carries values, is not plain SGD, or selects or constrains weights.
    """
    if inner.carry:
        raise MetaprimeError(
            "learner.backend learn2learn does not carry adapted values: set outer.adapter and outer.head"
        )
    if inner.optimizer != "sgd" or inner.clip:
        raise MetaprimeError(
            "learner.backend learn2learn computes plain SGD: set inner.optimizer to sgd and inner.clip to null"
        )
    if inner.select or inner.project or trainable(start).keys() != start.keys():
        raise MetaprimeError(
            "learner.backend learn2learn clones parameters and nothing else: a PEFT method that selects or constrains weights "
            "needs learner.backend: torch"
        )

    looped = inner.executed(way=Way.LOOP, micro=None)
    like = next(iter(backbone.values())).detach()
    gradients: Params = {}
    query_T, support_T2 = like.new_zeros(batch.total), like.new_zeros(batch.total, 2)
    with attention_kernels(looped, like.device):
        for (place,), part in chunks(batch, looped):
            (index,) = part.indices
            support = [episode(tensors, 0) for tensors in part.support]
            holder = _Holder(loss, backbone, episode(start, place))
            clone, curve = _adapt(holder, support, inner)
            query = clone(episode(part.query, 0))
            # First order takes the gradient at the clone's tensors: at phi' for phi, at theta for theta.
            moved = (holder if inner.second_order else clone).values(in_groups(holder.names, inner.outer))
            grads = torch.autograd.grad(query / batch.total, list(moved.values()))
            for name, gradient in zip(moved, grads, strict=True):
                gradients[name] = gradients[name] + gradient if name in gradients else gradient
            query_T[index], support_T2[index] = query.detach(), torch.stack([curve[0], curve[-1]])
    return Outcome(gradients, {}, {}, query_T, support_T2)


def _adapt(holder: _Holder, support: list[Batch], inner: InnerLoop) -> tuple[_Holder, list[torch.Tensor]]:
    """Runs the inner loop; returns the adapted clone, and the loss before each update."""
    clone_module, maml_update = _functions()
    clone, curve = clone_module(holder), []
    for batch in support:
        loss = clone(batch)
        fast = clone.values(in_groups(clone.names, inner.moves))
        grads = torch.autograd.grad(loss, list(fast.values()), create_graph=inner.second_order)
        gradients = dict(zip(fast, grads, strict=True))
        clone = maml_update(clone, inner.lr, [gradients.get(name) for name in clone.names])
        curve.append(loss.detach())
    return clone, curve


def _functions() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Imports `clone_module` and `maml_update` without running the package's `__init__`."""
    if "learn2learn" in sys.modules:
        maml = importlib.import_module("learn2learn.algorithms.maml")
        return maml.clone_module, maml.maml_update
    spec = importlib.util.find_spec("learn2learn")
    if spec is None or spec.submodule_search_locations is None:
        raise MetaprimeError("learner.backend learn2learn: the package is not installed; run `make learn2learn`")

    # Empty stand-ins for the two packages let their submodule be imported; they are removed afterwards.
    package = types.ModuleType("learn2learn")
    package.__path__ = list(spec.submodule_search_locations)
    algorithms = types.ModuleType("learn2learn.algorithms")
    algorithms.__path__ = [f"{place}/algorithms" for place in package.__path__]
    sys.modules["learn2learn"], sys.modules["learn2learn.algorithms"] = package, algorithms
    try:
        maml = importlib.import_module("learn2learn.algorithms.maml")
        return maml.clone_module, maml.maml_update
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "learn2learn"]:
            del sys.modules[name]
