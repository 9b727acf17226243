"""Primes multilingual encoders for parameter-efficient fine-tuning.

    import metaprime

    config = metaprime.load_config("recipes/configs/smoke.yaml")
    encoder = metaprime.prime(config)
    results = metaprime.transfer(config)
    tagger = metaprime.load(results[0].path)

Importing the package loads no torch; each name loads its module when it is first used. docs/api.md lists all of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaprime.config.loading import load_config, override
    from metaprime.config.sections import Config
    from metaprime.meta import learners
    from metaprime.preflight.corpus import check_data
    from metaprime.preflight.cost import estimate
    from metaprime.priming.prime import prime
    from metaprime.priming.primed import PrimedEncoder
    from metaprime.reports.write import report
    from metaprime.suite.ablate import ablate
    from metaprime.suite.demo import demo
    from metaprime.transfers.export import export
    from metaprime.transfers.predict import Predictor, evaluate, load, predict
    from metaprime.transfers.transfer import TransferResult, transfer
    from metaprime.types import MetaprimeError

__version__ = "0.1.0"

_MODULES = {
    "Config": "config.sections",
    "MetaprimeError": "types",
    "Predictor": "transfers.predict",
    "PrimedEncoder": "priming.primed",
    "TransferResult": "transfers.transfer",
    "ablate": "suite.ablate",
    "check_data": "preflight.corpus",
    "demo": "suite.demo",
    "estimate": "preflight.cost",
    "evaluate": "transfers.predict",
    "export": "transfers.export",
    "load": "transfers.predict",
    "load_config": "config.loading",
    "override": "config.loading",
    "predict": "transfers.predict",
    "prime": "priming.prime",
    "report": "reports.write",
    "transfer": "transfers.transfer",
}
"""The module that each public name but `learners`, itself a module, is in."""

__all__ = [
    "Config",
    "MetaprimeError",
    "Predictor",
    "PrimedEncoder",
    "TransferResult",
    "__version__",
    "ablate",
    "check_data",
    "demo",
    "estimate",
    "evaluate",
    "export",
    "learners",
    "load",
    "load_config",
    "override",
    "predict",
    "prime",
    "report",
    "transfer",
]


def __getattr__(name: str) -> Any:
    if name == "learners":
        return importlib.import_module("metaprime.meta.learners")
    if name not in _MODULES:
        raise AttributeError(f"module 'metaprime' has no attribute {name!r}")
    return getattr(importlib.import_module(f"metaprime.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
