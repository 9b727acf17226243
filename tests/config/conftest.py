"""The message that a wrong override gets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from metaprime.config.loading import load_config
from metaprime.types import MetaprimeError


@pytest.fixture
def refused() -> Callable[..., str]:
    """`refused("inner.lr=0")`: the message, from the defaults with these overrides."""

    def message(*overrides: str) -> str:
        with pytest.raises(MetaprimeError) as error:
            load_config(None, overrides)
        return str(error.value)

    return message
