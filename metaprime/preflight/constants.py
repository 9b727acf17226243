"""Holds still what a forward pass takes as constant, so that differences of a loss are slopes of its gradient.

A forward pass that detaches a part of itself, as DoRA does with the norms of its weights, has by
design a gradient that is not the slope of its loss. It is the slope of the loss in which the
detached parts keep the values that they had.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from metaprime.types import Batch, Loss, Params


class _Detached(TorchFunctionMode):
    """A mode that records what is detached, or returns what was recorded in its place.

    Attributes:
        values: what was detached, in order.
        dependent: whether one of these was part of a graph.
        replaying: whether the recorded values are returned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: list[torch.Tensor] = []
        self.dependent, self.replaying, self._place = False, False, 0

    def replay(self) -> None:
        """Returns recorded values from now on, from the first one again after the last one."""
        self.replaying, self._place = True, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs a function of torch; `detach` is recorded or replaced."""
        returned = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") != "detach":
            return returned
        if not self.replaying:
            self.values.append(returned)
            self.dependent = self.dependent or args[0].requires_grad
            return returned
        self._place += 1
        return self.values[(self._place - 1) % len(self.values)]


class Constants:
    """The parts of a loss that are detached during its forward pass.

    Example: `constants = Constants(loss); constants.loss(backbone, fast, batch); constants.hold()`.
    """

    def __init__(self, loss: Loss) -> None:
        """Wraps a loss, `loss(backbone, fast, batch)`."""
        self._loss, self._mode = loss, _Detached()

    @property
    def present(self) -> bool:
        """True if something with a gradient was detached."""
        return self._mode.dependent

    def loss(self, backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
        """Returns the loss () and records what is detached; after `hold`, with the recorded parts.

        Args:
            backbone: theta by full name, each in its own shape (...).
            fast: adapter and head by full name, each (...).
            batch: tensors (B, L).
        """
        with self._mode:
            return self._loss(backbone, fast, batch)

    def hold(self) -> None:
        """Keeps the recorded parts constant in all later passes, which must come in the same order."""
        self._mode.replay()
