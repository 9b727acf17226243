"""The mix-and-match adapter: a short prefix, and a scaled parallel adapter at the feed-forward block (He et al. 2022)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import model_validator

from metaprime.nn import Adapter
from metaprime.peft.bottleneck import HE, SCALED_PARALLEL, ScaledParallelConfig
from metaprime.peft.method import Method, MethodConfig
from metaprime.peft.prefix import METHOD as PREFIX
from metaprime.peft.prefix import PrefixConfig
from metaprime.types import Gradients, Params, Sites, add_prefix, strip_prefix


class ComposedConfig(MethodConfig):
    """Base of a composition's config: one field for each part, called as the part's method is."""

    @model_validator(mode="before")
    @classmethod
    def _over_the_defaults(cls, values: Any) -> Any:
        """A part's keys that are not given are those of the composition, not those the part has by itself."""
        if not isinstance(values, dict):
            return values
        parts = {
            name: field.default for name, field in cls.model_fields.items() if isinstance(field.default, MethodConfig)
        }
        given = {name: values[name] for name in parts if isinstance(values.get(name), dict)}
        return values | {name: parts[name].model_dump() | part for name, part in given.items()}

    @property
    def identity(self) -> bool:
        return all(part.identity for part in self.parts.values())

    @property
    def positions(self) -> int:
        return sum(part.positions for part in self.parts.values())

    @property
    def parts(self) -> dict[str, MethodConfig]:
        """Each part's config by its name."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in values.items() if isinstance(value, MethodConfig)}


def composed(config: type[ComposedConfig], source: str, *parts: Method) -> Method:
    """The composition of some methods: `composed(MamConfig, source, prefix.METHOD, bottleneck.SCALED_PARALLEL)`."""

    def inject(sites: Sites, config: Any) -> Adapter:
        return Composition(config, {part.name: part.inject(sites, getattr(config, part.name)) for part in parts})

    formula = "; ".join(part.formula for part in parts)
    return Method(config, inject, formula, source)


class Composition(Adapter):
    """The adapters of several methods, each below its method's name; each does to its own values what it does alone."""

    @property
    def parts(self) -> dict[str, Adapter]:
        """Each part by its method's name."""
        return {name: part for name, part in self.items() if isinstance(part, Adapter)}

    def select(self, backbone: Params, gradients: Gradients) -> Params:
        return self._joined({name: part.select(backbone, gradients) for name, part in self.parts.items()})

    def project(self, values: Params, done: float) -> Params:
        return self._joined({name: part.project(strip_prefix(name, values), done) for name, part in self.parts.items()})

    def penalty(self, values: Params) -> torch.Tensor | None:
        found = [part.penalty(strip_prefix(name, values)) for name, part in self.parts.items()]
        prices = [price for price in found if price is not None]
        return torch.stack(prices).sum(0) if prices else None

    def collapse(self, values: Params) -> tuple[Any, Params]:
        smaller = {name: part.collapse(strip_prefix(name, values)) for name, part in self.parts.items()}
        configs = {name: config for name, (config, _) in smaller.items()}
        return self.config.model_copy(update=configs), self._joined({name: kept for name, (_, kept) in smaller.items()})

    @property
    def selects(self) -> bool:
        return any(part.selects for part in self.parts.values())

    @property
    def projects(self) -> bool:
        return any(part.projects for part in self.parts.values())

    @property
    def penalised(self) -> bool:
        return any(part.penalised for part in self.parts.values())

    @staticmethod
    def _joined(values: dict[str, Params]) -> Params:
        return {full: value for name, own in values.items() for full, value in add_prefix(name, own).items()}


class MamConfig(ComposedConfig):
    """The settings of both parts; those of He et al. for GLUE."""

    method: Literal["mam"] = "mam"
    prefix: PrefixConfig = PrefixConfig(length=16)
    scaled_parallel: ScaledParallelConfig = ScaledParallelConfig(bottleneck=16, scale=2.0)


METHOD = composed(MamConfig, HE, PREFIX, SCALED_PARALLEL)
