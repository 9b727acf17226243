"""Audits texts with choices, as texts whose class is the place of the right one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from metaprime.tasks.choice.reading import examine
from metaprime.tasks.classification import audit
from metaprime.tasks.texts.audit import lengths
from metaprime.tasks.texts.encoding import Ids


def each_choice(texts: Sequence[Ids]) -> list[Sequence[Ids]]:
    """Returns the pairs of a text and each of its choices: `each_choice([[1], [2], [3]])` is `[[[1], [2]], [[1], [3]]]`."""
    return [[texts[0], choice] for choice in texts[1:]]


AUDIT = replace(audit.AUDIT, examine=examine, lengths=partial(lengths, group=each_choice))
