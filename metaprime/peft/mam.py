"""The mix-and-match adapter: a short prefix, and a scaled parallel adapter at the feed-forward block (He et al. 2022)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator
from torch import nn

from metaprime.peft.bottleneck import HE, SCALED_PARALLEL, ScaledParallelConfig
from metaprime.peft.method import Method, MethodConfig, under
from metaprime.peft.prefix import METHOD as PREFIX
from metaprime.peft.prefix import PrefixConfig
from metaprime.types import Params, Sites


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

    def inject(sites: Sites, config: Any) -> nn.ModuleDict:
        return nn.ModuleDict({part.name: part.inject(sites, getattr(config, part.name)) for part in parts})

    def collapse(config: Any, modules: Any, values: Params) -> tuple[MethodConfig, Params]:
        smaller: dict[str, MethodConfig] = {}
        kept: Params = {}
        for part in parts:
            own, settings = under(part.name, values), getattr(config, part.name)
            smaller[part.name], left = part.collapse(settings, modules[part.name], own)
            kept |= {f"{part.name}.{name}": value for name, value in left.items()}
        return config.model_copy(update=smaller), kept

    formula = "; ".join(part.formula for part in parts)
    return Method(config, inject, formula, source, collapse=collapse)


class MamConfig(ComposedConfig):
    """The settings of both parts; those of He et al. for GLUE."""

    method: Literal["mam"] = "mam"
    prefix: PrefixConfig = PrefixConfig(length=16)
    scaled_parallel: ScaledParallelConfig = ScaledParallelConfig(bottleneck=16, scale=2.0)


METHOD = composed(MamConfig, HE, PREFIX, SCALED_PARALLEL)
