"""Changes an inner loop's fields and those of its execution in one call."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from metaprime.meta import Execution, InnerLoop

EXECUTION = {field.name for field in fields(Execution)}


def changed(inner: InnerLoop, **changes: Any) -> InnerLoop:
    """`changed(inner, second_order=True, way=Way.LOOP)`."""
    executed = inner.executed(**{key: value for key, value in changes.items() if key in EXECUTION})
    return replace(executed, **{key: value for key, value in changes.items() if key not in EXECUTION})
