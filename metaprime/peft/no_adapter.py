"""Defines the methods without PEFT parameters: head tuning, and full fine-tuning."""

from __future__ import annotations

from typing import Literal

from metaprime.peft.method import Method, MethodConfig, no_modules


class HeadConfig(MethodConfig):
    """Head tuning: theta is frozen and the task's output layer moves. It has no settings."""

    method: Literal["head"] = "head"


HEAD = Method(HeadConfig, no_modules, "y = W_head Encoder(x), W_head alone moves", "linear probing", short="HT")


class FullConfig(MethodConfig):
    """Full fine-tuning: the encoder and the task's output layer move. It has no settings."""

    method: Literal["full"] = "full"


FULL = Method(FullConfig, no_modules, "everything moves", "fine-tuning", moves_backbone=True, short="FT")
