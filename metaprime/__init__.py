"""Priming of multilingual encoders for parameter-efficient fine-tuning.

    from metaprime import load_config, prime, transfer

Importing the package loads no torch; each name brings its module when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaprime.config.loading import load_config
    from metaprime.config.sections import Config
    from metaprime.priming.prime import prime
    from metaprime.suite.ablate import ablate
    from metaprime.suite.demo import demo
    from metaprime.transfers.predict import predict
    from metaprime.transfers.transfer import transfer
    from metaprime.types import MetaprimeError

__version__ = "0.1.0"

_HOME = {
    "Config": "metaprime.config.sections",
    "MetaprimeError": "metaprime.types",
    "ablate": "metaprime.suite.ablate",
    "demo": "metaprime.suite.demo",
    "load_config": "metaprime.config.loading",
    "predict": "metaprime.transfers.predict",
    "prime": "metaprime.priming.prime",
    "transfer": "metaprime.transfers.transfer",
}

__all__ = ["Config", "MetaprimeError", "__version__", "ablate", "demo", "load_config", "predict", "prime", "transfer"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'metaprime' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
