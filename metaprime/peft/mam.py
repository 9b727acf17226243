"""The mix-and-match adapter: a short prefix, and a scaled parallel adapter at the feed-forward block (He et al. 2022)."""

from __future__ import annotations

from typing import Literal

from metaprime.peft.bottleneck import HE, SCALED_PARALLEL, ScaledParallelConfig
from metaprime.peft.composed import ComposedConfig, composed
from metaprime.peft.prefix import METHOD as PREFIX
from metaprime.peft.prefix import PrefixConfig


class MamConfig(ComposedConfig):
    """The settings of both parts; those of He et al. for GLUE."""

    method: Literal["mam"] = "mam"
    prefix: PrefixConfig = PrefixConfig(length=16)
    scaled_parallel: ScaledParallelConfig = ScaledParallelConfig(bottleneck=16, scale=2.0)


METHOD = composed(MamConfig, HE, PREFIX, SCALED_PARALLEL)
