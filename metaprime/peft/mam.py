"""Composes methods; the mix-and-match adapter is prefix and parallel adapter (He et al. 2022)."""

from __future__ import annotations

from typing import Any

import torch

from metaprime.nn import Adapter
from metaprime.peft.bottleneck import HE, SCALED_PARALLEL
from metaprime.peft.method import Method
from metaprime.peft.prefix import METHOD as PREFIX
from metaprime.peft.settings import ComposedConfig, MamConfig
from metaprime.types import Gradients, Params, Sites, add_prefix, strip_prefix


def composed(config: type[ComposedConfig], source: str, *parts: Method) -> Method:
    """Returns a composition of methods: `composed(MamConfig, HE, PREFIX, SCALED_PARALLEL)`.

    Args:
        config: has a field for each part, named after the part's method.
        source: paper of the composition.
        parts: the methods.
    """

    def inject(sites: Sites, config: Any) -> Adapter:
        return Composition(config, {part.name: part.inject(sites, getattr(config, part.name)) for part in parts})

    formula = "; ".join(part.formula for part in parts)
    return Method(config, inject, formula, source)


class Composition(Adapter):
    """The adapters of several methods, each below its method's name and with its own behaviour."""

    @property
    def parts(self) -> dict[str, Adapter]:
        """The adapters by the names of their methods."""
        return {name: part for name, part in self.items() if isinstance(part, Adapter)}

    def select(self, backbone: Params, gradients: Gradients) -> Params:
        """Returns the selections (k,) of all parts; arguments as in `Adapter.select`.

        Args:
            backbone: theta by full name, each in its own shape (...).
            gradients: yields gradients in named weights, batch after batch.
        """
        return self._joined({name: part.select(backbone, gradients) for name, part in self.parts.items()})

    def project(self, values: Params, done: float) -> Params:
        """Returns the values that the parts' constraints change.

        Args:
            values: phi, (...) or (T, ...).
            done: share of the steps that is done, in (0, 1].
        """
        return self._joined({name: part.project(strip_prefix(name, values), done) for name, part in self.parts.items()})

    def penalty(self, values: Params) -> torch.Tensor | None:
        """Returns the sum of the parts' penalties, () or (T,) in nats; None if no part has one.

        Args:
            values: phi, (...) or (T, ...).
        """
        penalties = [part.penalty(strip_prefix(name, values)) for name, part in self.parts.items()]
        prices = [penalty for penalty in penalties if penalty is not None]
        return torch.stack(prices).sum(0) if prices else None

    def collapse(self, values: Params) -> tuple[Any, Params]:
        """Returns config and values to store, in which every part is collapsed.

        Args:
            values: phi, (...) or (T, ...).
        """
        smaller = {name: part.collapse(strip_prefix(name, values)) for name, part in self.parts.items()}
        configs = {name: config for name, (config, _) in smaller.items()}
        return self.config.model_copy(update=configs), self._joined({name: kept for name, (_, kept) in smaller.items()})

    @property
    def selects(self) -> bool:
        """True if a part selects weights."""
        return any(part.selects for part in self.parts.values())

    @property
    def projects(self) -> bool:
        """True if a part constrains values after each step."""
        return any(part.projects for part in self.parts.values())

    @property
    def penalised(self) -> bool:
        """True if a part adds to the loss."""
        return any(part.penalised for part in self.parts.values())

    @staticmethod
    def _joined(values: dict[str, Params]) -> Params:
        """Joins the parts' values, each below the part's name."""
        return {full: value for name, part in values.items() for full, value in add_prefix(name, part).items()}


METHOD = composed(MamConfig, HE, PREFIX, SCALED_PARALLEL)
