"""Head tuning: no PEFT parameters, theta frozen, only the task's output layer moves."""

from __future__ import annotations

from typing import Literal

from metaprime.peft.method import Method, MethodConfig, no_modules


class HeadConfig(MethodConfig):
    """Nothing to set."""

    method: Literal["head"] = "head"


HEAD = Method(HeadConfig, no_modules, "y = W_head Encoder(x), W_head alone moves", "linear probing", short="HT")


class FullConfig(MethodConfig):
    """Nothing to set."""

    method: Literal["full"] = "full"


FULL = Method(FullConfig, no_modules, "everything moves", "fine-tuning", moves_backbone=True, short="FT")
