"""Refuses a plan by checks of its arms, all mistakes in one message. Nothing here loads torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

from metaprime.suite.order import count_cells
from metaprime.suite.spec import ArmPlan, SuitePlan
from metaprime.types import MetaprimeError


def refuse_arms(plan: SuitePlan, refusals: Callable[[ArmPlan], Sequence[str]]) -> None:
    """Refuses a plan with an arm that cannot run; a suite with no cell left to run is not checked.

    Args:
        plan: the suite.
        refusals: returns why an arm is refused, a line for each mistake.

    Raises:
        MetaprimeError: an arm is refused; one line for each mistake, with its arms.

    Example: `refuse_arms(plan, lambda arm: [])`.
    """
    if all(kind.done == kind.cells for kind in count_cells(plan).values()):
        return
    found: dict[str, list[str]] = defaultdict(list)
    for name, arm in plan.arms.items():
        for line in refusals(arm):
            found[line].append(name)
    if found:
        raise MetaprimeError("\n".join(_line(text, names, plan.arms) for text, names in found.items()))


def _line(text: str, names: Sequence[str], arms: Collection[str]) -> str:
    """Returns a line about a mistake, which names the arms if not all of them have it."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return text if len(names) == len(arms) else f"arm {names[0]!r}{more}: {text}"
