"""What a PEFT method is, and the hooks by which all of them modify an encoder.

A method never replaces a module: it leaves the backbone's parameter names alone, puts its own modules into one
`ModuleDict` and hooks the sites of `types.Sites`. A hook calls its module at the tap; where tap and add are two places,
the result waits in between in a stash of that layer alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, cast

import torch
from pydantic import Field
from torch import nn

from metaprime.noise import Noise
from metaprime.types import Gradients, LayerSites, Params, Section, Sites


class MethodConfig(Section):
    """Base of a method's config. `method` is its name in METHODS."""

    method: str = ""

    @property
    def identity(self) -> bool:
        """Whether initial phi promises to leave the encoder unchanged."""
        return True

    @property
    def positions(self) -> int:
        """How many of the encoder's positions it takes away from the words."""
        return 0


def under(path: str, values: Params) -> Params:
    """The values below a path, by the rest of their names."""
    return {name.removeprefix(f"{path}."): value for name, value in values.items() if name.startswith(f"{path}.")}


def as_it_is(config: Any, modules: nn.ModuleDict, values: Params) -> tuple[MethodConfig, Params]:
    """Of a method that stores what it trains."""
    return config, values


@dataclass(frozen=True)
class Method:
    """One way to fine-tune.

    Attributes:
        config: its config class; every field has a default.
        inject: hooks the encoder's sites and gives phi's modules; they start at zero and are `types.Drawn`.
        formula: one line for people.
        source: the paper it is from.
        moves_backbone: whether fine-tuning with it moves theta as well (full fine-tuning does).
        choose: config, modules, the backbone and its gradients on some batches to choices by their names in the modules: which
            part of the weights may move. Asked once, before the first step.
        project: config, modules, values and the share of the steps done to the values that a constraint changes, after each step;
            values, by their names in the modules, may have a leading dimension.
        penalty: config and values to what training adds to the loss (nats).
        collapse: config, modules and values (by their names in the modules) to what need be stored: a config, and values that
            give the same function under it. Values are those after the last step.
    """

    config: type[MethodConfig]
    inject: Callable[[Sites, Any], nn.ModuleDict]
    formula: str
    source: str
    moves_backbone: bool = False
    choose: Callable[[Any, nn.ModuleDict, Params, Gradients], Params] | None = None
    project: Callable[[Any, nn.ModuleDict, Params, float], Params] | None = None
    penalty: Callable[[Any, Params], torch.Tensor] | None = None
    collapse: Callable[[Any, nn.ModuleDict, Params], tuple[MethodConfig, Params]] = as_it_is

    @property
    def name(self) -> str:
        """What a config calls it."""
        return str(self.config.model_fields["method"].default)


def no_modules(sites: Sites, config: MethodConfig) -> nn.ModuleDict:
    """Phi of a method without PEFT parameters."""
    return nn.ModuleDict()


def kaiming_uniform(rows: int, columns: int, *, generator: torch.Generator) -> torch.Tensor:
    """(rows, columns) uniform in +-1/sqrt(columns): `kaiming_uniform_(a=sqrt(5))`, the default of `nn.Linear`."""
    bound = 1 / math.sqrt(columns)
    return (torch.rand(rows, columns, generator=generator) * 2 - 1) * bound


def dropped(x: torch.Tensor, share: float, noise: Noise | None) -> torch.Tensor:
    """Dropout: each entry zero with probability `share`, the others grown by 1 / (1 - share). Without noise, x."""
    if noise is None:
        return x
    return x * (noise.rand_like(x) >= share).to(x) / (1 - share)


FUSED = ("query", "key", "value")
"""In the order in which a fused projection holds them."""


def rows_of(layer: LayerSites, name: str) -> range:
    """The rows of the weight that make up this site: all, or a third of a fused query, key and value projection."""
    rows = range(getattr(layer, name).out_features)
    if name not in FUSED or layer.query is not layer.key:
        return rows
    width, place = len(rows) // len(FUSED), FUSED.index(name)
    return rows[place * width : (place + 1) * width]


Dropout = Annotated[float, Field(ge=0, lt=1)]

Compose = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""What becomes of h and its change."""


def add_to_output(site: nn.Module, delta: nn.Module, of_output: bool, compose: Compose = torch.add) -> None:
    """From now on the site's output is `output + delta(x)`, x being its output or its input.

    Of several outputs, as some architectures' layers have them, this is the first.
    """

    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> Any:
        if isinstance(output, tuple):
            return (hook(module, inputs, output[0]), *output[1:])
        return compose(output, cast(torch.Tensor, delta(output if of_output else inputs[0])))

    site.register_forward_hook(hook)


def add_between(tap: nn.Linear, delta: nn.Module, site: nn.Linear, before: bool, compose: Compose = torch.add) -> None:
    """From now on `delta(x)`, x being the input of `tap`, is added to the output of `site`, or `before` it to its input."""
    waiting: list[
        torch.Tensor
    ] = []  # one result, from tap to site; a pass that failed in between leaves its own behind

    def take(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        waiting[:] = [delta(inputs[0])]

    def give_before(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (compose(inputs[0], waiting.pop()), *inputs[1:])

    def give_after(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return compose(output, waiting.pop())

    tap.register_forward_pre_hook(take)
    if before:
        site.register_forward_pre_hook(give_before)
    else:
        site.register_forward_hook(give_after)
