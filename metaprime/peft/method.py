"""What a PEFT method is, and the hooks by which all of them modify an encoder.

A method never replaces a module: it leaves the backbone's parameter names alone, puts its own modules into one
`ModuleDict` and hooks the sites of `types.Sites`. A hook calls its module at the tap; where tap and add are two places,
the result waits in between in a stash of that layer alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from metaprime.types import Gradients, Params, Section, Sites


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
        short: its name at the head of a narrow column, as papers have it; empty: `name`.
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
    short: str = ""

    @property
    def name(self) -> str:
        """What a config calls it."""
        return str(self.config.model_fields["method"].default)


def no_modules(sites: Sites, config: MethodConfig) -> nn.ModuleDict:
    """Phi of a method without PEFT parameters."""
    return nn.ModuleDict()


Dropout = Annotated[float, Field(ge=0, lt=1)]
