"""Full fine-tuning: no PEFT parameters, theta and the head move. The yardstick, downstream only."""

from __future__ import annotations

from typing import Literal

from metaprime.peft.method import Method, MethodConfig, no_modules


class FullConfig(MethodConfig):
    """Nothing to set."""

    method: Literal["full"] = "full"


METHOD = Method(FullConfig, no_modules, "everything moves", "fine-tuning", moves_backbone=True)
