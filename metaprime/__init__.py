"""Priming of multilingual encoders for parameter-efficient fine-tuning.

    from metaprime import load_config, prime, transfer

Importing the package loads no torch; each name brings its module when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaprime.config import Config, load_config
    from metaprime.loops.ablate import ablate
    from metaprime.loops.demo import demo
    from metaprime.loops.predict import predict
    from metaprime.loops.prime import prime
    from metaprime.loops.transfer import transfer
    from metaprime.types import MetaprimeError

__version__ = "0.1.0"

_HOME = {
    "Config": "metaprime.config",
    "MetaprimeError": "metaprime.types",
    "ablate": "metaprime.loops.ablate",
    "demo": "metaprime.loops.demo",
    "load_config": "metaprime.config",
    "predict": "metaprime.loops.predict",
    "prime": "metaprime.loops.prime",
    "transfer": "metaprime.loops.transfer",
}

__all__ = ["Config", "MetaprimeError", "__version__", "ablate", "demo", "load_config", "predict", "prime", "transfer"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'metaprime' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
