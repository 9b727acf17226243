"""Defines a PEFT method: a config class, and a function that attaches its modules to an encoder.

A method never replaces a module. It leaves the backbone's parameter names alone, hooks the sites of
`types.Sites` (`injection.py`) and returns its own modules as one `nn.Adapter`, which also
implements selection, projection, penalty and collapse where the method has them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from metaprime.types import Section, Sites

if TYPE_CHECKING:
    from metaprime.nn import Adapter

USUAL_RATE = 3e-3
"""Usual peak rate of transfers, on a pretrained encoder of width 384."""

Dropout = Annotated[float, Field(ge=0, lt=1)]


class MethodConfig(Section):
    """Base of a method's config. `method` is the name in METHODS."""

    method: str = ""

    @property
    def identity(self) -> bool:
        """True if the initial values of phi leave the encoder unchanged."""
        return True

    @property
    def tuning_only(self) -> str:
        """Reason why priming cannot simulate the method, which only fine-tunes; empty: it can."""
        return ""

    @property
    def positions(self) -> int:
        """Number of the encoder's positions that the method takes from the words."""
        return 0


def label(config: MethodConfig) -> str:
    """Returns a method's name for folders and tables: `label(LoraConfig(rank=4))` is `lora-rank4`.

    Defaults are left out. Settings that are long, or contain characters unfit for a folder's name,
    are replaced by a digest.
    """
    changed = config.model_dump(mode="json", exclude_defaults=True, exclude={"method"})
    settings = "".join(f"-{key}{value}" for key, value in changed.items())
    if not re.fullmatch(r"[\w.-]{0,40}", settings):
        settings = "-" + hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]
    return config.method + settings


def no_modules(sites: Sites, config: MethodConfig) -> Adapter:
    """Returns an empty adapter, that of head or full tuning: `no_modules(sites, HeadConfig())`."""
    # Whoever injects has torch; whoever reads a config need not.
    from metaprime.nn import Adapter

    return Adapter(config)


@dataclass(frozen=True)
class Method:
    """A way to fine-tune; `METHODS["lora"]` is one.

    Attributes:
        config: its config class; every field has a default.
        inject: hooks the encoder's sites and returns phi's modules: zeros, each a `types.Drawn`.
        formula: its equation, one line.
        source: its paper.
        moves_backbone: whether fine-tuning moves theta too, as full fine-tuning does.
        short: its abbreviation in tables of papers, such as AT; empty: its name.
        rate: peak rate of its transfers on a pretrained encoder of width 384 (`config/presets.py`).
    """

    config: type[MethodConfig]
    inject: Callable[[Sites, Any], Adapter]
    formula: str
    source: str
    moves_backbone: bool = False
    short: str = ""
    rate: float = USUAL_RATE

    @property
    def name(self) -> str:
        """The method's name in configs."""
        return str(self.config.model_fields["method"].default)

    @property
    def injects(self) -> bool:
        """True if the method has PEFT parameters."""
        return self.inject is not no_modules
