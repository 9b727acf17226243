"""Checks a config as `metaprime prime` and `metaprime transfer` would, one after the other, without a run."""

from __future__ import annotations

from dataclasses import dataclass

from accelerate import Accelerator

from metaprime.build.data import thin_tasks
from metaprime.build.encoder import at_hand
from metaprime.build.kind import kinds_of
from metaprime.config.sections import Config
from metaprime.priming.setup import assemble
from metaprime.priming.state import expected_artifact
from metaprime.runs.folder import PRIMED, Claim, check_output
from metaprime.transfers.start import Source, open_source
from metaprime.transfers.transfer import check_cells, read_inputs
from metaprime.types import MetaprimeError


@dataclass(frozen=True)
class DryRun:
    """A dry run of priming and of the transfers from what it primes; it trains and writes nothing.

    Attributes:
        config: config of both.
    """

    config: Config

    def refusals(self) -> list[str]:
        """Returns why `metaprime prime` or `metaprime transfer` would refuse the config, a line for each mistake.

        Transfers that start from `primed` are checked against what the priming run would leave there.

        Raises:
            MetaprimeError: the encoder cannot be used, or `run.output` is not given or not free.

        Example: `DryRun(config).refusals() == []`.
        """
        kinds = kinds_of(self.config.encoder, self.config.transfer)
        config = self.config.at_rates(*kinds)
        claim, build, accelerator = Claim(*config.recorded()), thin_tasks(), Accelerator()
        # A run that is there already may be resumed.
        check_output(claim, resume=True, overwrite=False)
        refused: list[str] = []
        with at_hand(config.encoder, claim.output) as encoder:
            source = Source(encoder, None)
            try:
                run = assemble(config, encoder, accelerator, build)
                if config.transfer.encoder == PRIMED:
                    source = Source(encoder, expected_artifact(run))
            except MetaprimeError as error:
                refused += [f"prime: {line}" for line in str(error).splitlines()]
            try:
                if config.transfer.encoder not in (PRIMED, "base"):
                    source = open_source(config.encoder, config.transfer, claim.output, config.run.threads)
                inputs = read_inputs(self.config.at_transfer_rates(*kinds), source, build)
                check_cells(inputs, inputs.cells, accelerator.device)
            except MetaprimeError as error:
                refused += [f"transfer: {line}" for line in str(error).splitlines()]
        return refused
