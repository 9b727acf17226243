"""Defines what a PEFT method is: a config class, and a function that puts its modules beside an encoder.

A method never replaces a module. It leaves the backbone's parameter names alone, hooks the sites of
`types.Sites` (`injection.py`) and returns its own modules as one `nn.Adapter`, which also holds whatever
else the method does: selection, projection, penalty, collapse.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from metaprime.nn import Adapter
from metaprime.types import Section, Sites

Dropout = Annotated[float, Field(ge=0, lt=1)]


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


def label(config: MethodConfig) -> str:
    """Returns a name for a method with its settings, fit for a folder: `lora`, or `lora-rank4` where one is not a default.

    Settings that are long, or have other characters than a folder's name should, are named by a digest.
    """
    changed = config.model_dump(mode="json", exclude_defaults=True, exclude={"method"})
    settings = "".join(f"-{key}{value}" for key, value in changed.items())
    if not re.fullmatch(r"[\w.-]{0,40}", settings):
        settings = "-" + hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]
    return config.method + settings


def no_modules(sites: Sites, config: MethodConfig) -> Adapter:
    """Returns the empty adapter of a method without PEFT parameters."""
    return Adapter(config)


@dataclass(frozen=True)
class Method:
    """One way to fine-tune.

    Attributes:
        config: its config class; every field has a default.
        inject: hooks the encoder's sites and returns phi's modules; they start at zero and are `types.Drawn`.
        formula: one line for readers.
        source: the paper it is from.
        moves_backbone: whether fine-tuning with it moves theta as well, as full fine-tuning does.
        short: its abbreviation in papers' tables, such as AT; empty: its name.
    """

    config: type[MethodConfig]
    inject: Callable[[Sites, Any], Adapter]
    formula: str
    source: str
    moves_backbone: bool = False
    short: str = ""

    @property
    def name(self) -> str:
        """The name by which a config calls it."""
        return str(self.config.model_fields["method"].default)

    @property
    def injects(self) -> bool:
        """Whether it has PEFT parameters at all."""
        return self.inject is not no_modules
