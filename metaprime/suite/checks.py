"""Checks a suite before its first cell: every arm passes the checks that its priming and transfers would make.

The checks are those of `metaprime prime` and `metaprime transfer`. Each text is read once, however many
arms use it, and only a few of its sentences are encoded.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from accelerate import Accelerator

from metaprime.build.data import BuildTask, thin_tasks
from metaprime.build.encoder import at_hand
from metaprime.models.encoder import Encoder
from metaprime.priming.setup import assemble
from metaprime.priming.state import expected_artifact
from metaprime.runs.artifact import Artifact
from metaprime.suite.cells import Primer, Target
from metaprime.suite.early import refuse_arms
from metaprime.suite.order import count_cells
from metaprime.suite.spec import ArmPlan, SuitePlan
from metaprime.transfers.start import Source
from metaprime.transfers.transfer import check_cells, read_inputs
from metaprime.types import MetaprimeError


def check_plan(plan: SuitePlan) -> None:
    """Refuses a plan with an arm that could not be primed or transferred. Writes nothing.

    A suite with no cell left to run is not checked.

    Args:
        plan: the suite.

    Raises:
        MetaprimeError: an input is missing or does not fit; one line for each mistake, with its arms.

    Example: `check_plan(read_plan("recipes/ablations/order.yaml"))`.
    """
    if all(kind.done == kind.cells for kind in count_cells(plan).values()):
        return
    with at_hand(plan.base.encoder, plan.base.output) as encoder:
        refuse_arms(plan, _Checker(encoder, thin_tasks(), Accelerator()).refusals)


@dataclass(frozen=True)
class _Checker:
    """The checks of a plan's arms over one encoder, each made once.

    Attributes:
        encoder: the base encoder.
        build: builds tasks.
        accelerator: this process.
        primed: key of a priming run -> what it will leave beside its encoder, or why it is refused.
        tuned: key of an arm's transfers -> why they are refused; empty if they are not.
    """

    encoder: Encoder
    build: BuildTask
    accelerator: Accelerator
    primed: dict[str, Artifact | str] = field(default_factory=dict)
    tuned: dict[object, str] = field(default_factory=dict)

    def refusals(self, arm: ArmPlan) -> list[str]:
        """Returns why an arm is refused, a line for each mistake; of transfers only if its priming is not refused."""
        start = self._primed(arm.primer) if arm.primer else None
        if isinstance(start, str):
            return start.splitlines()
        methods = tuple(method.model_dump_json() for method in arm.target.config.methods().values())
        key = (arm.primer and arm.primer.key, arm.target.key, methods)
        if key not in self.tuned:
            self.tuned[key] = self._refusal(arm.target, start)
        return self.tuned[key].splitlines()

    def _primed(self, primer: Primer) -> Artifact | str:
        """Checks a priming run, and returns what it will leave beside its encoder, or why it is refused."""
        if primer.key not in self.primed:
            try:
                run = assemble(primer.config, self.encoder, self.accelerator, self.build)
                self.primed[primer.key] = expected_artifact(run)
            except MetaprimeError as error:
                self.primed[primer.key] = str(error)
        return self.primed[primer.key]

    def _refusal(self, target: Target, start: Artifact | None) -> str:
        """Checks an arm's transfers, and returns why they are refused; empty if they are not."""
        try:
            inputs = read_inputs(target.config, Source(self.encoder, start), self.build)
            check_cells(inputs, inputs.cells, self.accelerator.device)
        except MetaprimeError as error:
            return str(error)
        return ""
