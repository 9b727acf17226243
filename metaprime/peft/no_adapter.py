"""Defines the methods without PEFT parameters: head tuning, and full fine-tuning."""

from __future__ import annotations

from metaprime.peft.method import Method, no_modules
from metaprime.peft.settings import MOVES_BACKBONE, OWN_RATES, FullConfig, HeadConfig

HEAD = Method(
    HeadConfig,
    no_modules,
    "y = W_head Encoder(x), W_head alone moves",
    "linear probing",
    short="HT",
    rate=OWN_RATES["head"],
)


FULL = Method(
    FullConfig,
    no_modules,
    "everything moves",
    "fine-tuning",
    moves_backbone="full" in MOVES_BACKBONE,
    short="FT",
    rate=OWN_RATES["full"],
)
