"""Declares the settings of regression, which are checked before torch is loaded."""

from __future__ import annotations

import math
from typing import Literal

from metaprime.tasks.texts.settings import TextsConfig, paired
from metaprime.types import MetaprimeError

MetricName = Literal["correlation", "pearson", "spearman", "mse"]
"""Values of `task.metric`."""


class RegressionConfig(TextsConfig):
    """Config of regression: one text, or a pair of texts, has a number, such as how alike the two are."""

    name: Literal["regression"] = "regression"

    pair: str | None = None
    """Column of the second text; null: there is one text."""

    range: tuple[float, float] | None = None
    """Smallest and largest target, for which the head answers -1 and 1; null: it answers the target itself."""

    metric: MetricName = "correlation"
    """Number by which models are chosen and runs compared; `correlation` is the mean of Pearson's and Spearman's."""

    @property
    def columns(self) -> dict[str, str]:
        """The columns by the config key that names each."""
        return paired(super().columns, self.pair)

    @property
    def centre(self) -> float:
        """The target for which the head answers 0."""
        return sum(self.range) / 2 if self.range else 0.0

    @property
    def unit(self) -> float:
        """Distance of two targets for which the head's answers differ by 1."""
        return (self.range[1] - self.range[0]) / 2 if self.range else 1.0

    def check(self) -> None:
        """Refuses a range without width, and two keys that name one column.

        Raises:
            MetaprimeError: there is one.

        Example: `RegressionConfig(range=(0, 5)).check()`.
        """
        low, high = self.range or (0.0, 1.0)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise MetaprimeError(
                f"task.range is [{low:g}, {high:g}]: give the smallest target and a larger one, e.g. task.range: [0, 5]"
            )
        super().check()
