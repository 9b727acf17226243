"""Settings of regression: what contradicts itself is refused."""

from __future__ import annotations

import pytest

from metaprime.tasks.regression.settings import RegressionConfig
from metaprime.types import MetaprimeError

CONFIG = RegressionConfig(range=(0, 5))


def test_a_range_has_a_width() -> None:
    with pytest.raises(MetaprimeError, match=r"task\.range is \[5, 5\]: give the smallest target and a larger one"):
        RegressionConfig(range=(5, 5)).check()
    with pytest.raises(MetaprimeError, match=r"task\.text and task\.pair name one column"):
        RegressionConfig(text="a", pair="a").check()
