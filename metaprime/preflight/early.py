"""Refuses a config by what needs no encoder: the output, folders, languages and splits, and settings that do not fit.

Commands ask this before they load torch, which takes seconds. Each check is that of the command itself, which
makes it again, and all others after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from metaprime.build.folders import check_encoder, started_from
from metaprime.build.kind import kinds_of
from metaprime.build.roles import HELD_OUT, PRIMED_ON, TARGETS, Role, check_corpus
from metaprime.config.sections import Config
from metaprime.data.sources import check_texts
from metaprime.models.folder import refuse_bad_encoder
from metaprime.priming.settings import Sections, check_sections
from metaprime.runs.artifact import CARD, check_artifact
from metaprime.runs.folder import PRIMED, Claim, check_writable, differences
from metaprime.tasks import reads_corpora
from metaprime.transfers.rates import check_rates
from metaprime.transfers.shots import check_primed, check_shares, check_untrained
from metaprime.types import MetaprimeError


@dataclass(frozen=True)
class Early:
    """The checks of a config that load no torch.

    Attributes:
        config: config of the command.
    """

    config: Config

    def prime(self, resume: bool, overwrite: bool, force: bool) -> None:
        """Makes the checks of `metaprime prime`: `Early(config).prime(False, False, False)`.

        Args:
            resume: whether to continue the run in the output.
            overwrite: whether to replace it.
            force: whether to resume although the config differs.

        Raises:
            MetaprimeError: the command would refuse the config.
        """
        output = self._output(resume, overwrite, force)
        # A finished run is not read again.
        if not (resume and (output / PRIMED).is_dir()):
            self.priming()

    def priming(self, validates: bool = True) -> None:
        """Makes the checks of a priming run but that of its output: `Early(config).priming()`.

        Args:
            validates: whether the run may score held-out languages.

        Raises:
            MetaprimeError: settings do not go together, or encoder, corpus, language or split is missing.
        """
        config, data, settings = self.config, self.config.data, self.config.transfer
        check_sections(Sections(config.learner, config.inner, config.outer, config.peft, config.task.together))
        check_encoder(config.encoder, check_writable(config.output))
        self._corpus(PRIMED_ON)
        if validates and config.outer.validate_every and data.validation_languages:
            self._corpus(HELD_OUT, trains=any(settings.shots))
            check_shares(settings, self.config.task.least_shots)

    def transfer(self) -> None:
        """Makes the checks of `metaprime transfer`: `Early(config).transfer()`.

        Raises:
            MetaprimeError: the command would refuse the config.
        """
        output = check_writable(self.config.output)
        name = started_from(self.config.transfer, output)
        primed = name is not None and (Path(name) / CARD).is_file()
        if name is None:
            check_encoder(self.config.encoder, output)
        else:
            if primed:
                check_artifact(Path(name))
            refuse_bad_encoder(name)
        check_primed(self.config.transfer, name or self.config.encoder.name, primed)
        self.transfers(primed)

    def transfers(self, primed: bool) -> None:
        """Makes the checks of transfers but those of encoder and output: `Early(config).transfers(True)`.

        Args:
            primed: whether the encoder is, or will be, a primed one.

        Raises:
            MetaprimeError: settings do not go together, or a corpus, a language or a split is missing.
        """
        settings, data = self.config.transfer, self.config.data
        filled = self.config.at_transfer_rates(*kinds_of(self.config.encoder, settings))
        check_rates(filled.transfer, data)
        check_untrained(settings, list(self.config.methods().values()))
        self._corpus(TARGETS, trains=any(settings.shots))
        check_shares(settings, self.config.task.least_shots)

    def arm(self, priming: Early | None) -> list[str]:
        """Returns why an arm with these transfers from the base or a primed encoder is refused, by its priming first.

        Args:
            priming: of the arm's priming run; None: it has none.

        Example: `Early(arm.target.config).arm(None) == []`.
        """
        try:
            check_encoder(self.config.encoder, self.config.output)
            if priming:
                priming.priming()
            self.transfers(primed=priming is not None)
        except MetaprimeError as error:
            return str(error).splitlines()
        return []

    def refusals(self) -> list[str]:
        """Returns why `metaprime prime` or `metaprime transfer` would refuse the config, as `DryRun.refusals` does.

        Raises:
            MetaprimeError: the encoder cannot be used, or `run.output` is not given or not free.

        Example: `Early(config).refusals() == []`.
        """
        check_encoder(self.config.encoder, self._output(resume=True, overwrite=False, force=None))
        refused: list[str] = []
        with _collected("prime", refused):
            self.priming()
        with _collected("transfer", refused):
            if self.config.transfer.encoder == PRIMED:
                # The priming run before would leave it.
                self.transfers(primed=True)
            else:
                self.transfer()
        return refused

    def _corpus(self, role: Role, trains: bool = True) -> None:
        """Refuses labels that contradict each other, and a corpus without texts, languages or splits that are asked for."""
        if reads_corpora(self.config.task.name):
            self.config.task.check()
            if self.config.task.texts:
                check_texts(role.uri(self.config.data))
            check_corpus(role, self.config.data, trains)

    def _output(self, resume: bool, overwrite: bool, force: bool | None) -> Path:
        """Refuses an output that is not free, and returns it."""
        output = check_writable(self.config.output)
        filled = self.config.at_rates(*kinds_of(self.config.encoder, self.config.transfer))
        differences(Claim(*filled.recorded()), resume, overwrite, force)
        return output


@contextmanager
def _collected(command: str, refused: list[str]) -> Iterator[None]:
    """Adds the lines of a refusal in the block to a list, with the command before each."""
    try:
        yield
    except MetaprimeError as error:
        refused += [f"{command}: {line}" for line in str(error).splitlines()]
