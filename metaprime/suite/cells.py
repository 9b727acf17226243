"""Defines a suite's cells, with folders named by a hash of their settings so that suites share them.

<run.output>/priming/KEY/seedN/                 a priming run
<run.output>/rates/KEY-METHOD-seedN.json        the downstream rate selected with that seed's encoder
<run.output>/transfer/KEY/seedN/                transfers with one method and rate, for all languages and K
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from metaprime.config.loading import override
from metaprime.config.presets import EMBEDDED_TRANSFER
from metaprime.config.sections import Config, TransferConfig, method_label
from metaprime.files import check_readable
from metaprime.peft import MethodConfig
from metaprime.runs.folder import PRIMED, TRANSFERS
from metaprime.runs.log import METRICS_FILE, read_metrics
from metaprime.runs.records import RECORD, Cell, read_record
from metaprime.types import MetaprimeError

PRIMINGS = "priming"
"""Folder of priming runs."""

RATES = "rates"
"""Folder of selected rates."""

SCORED = ("data.target_languages=[]", "data.target_source=null", "data.test_split=test")
"""Keys that no priming depends on, each at one value for all suites."""

UNSEEN = ("data.validation_languages=[]", "data.validation_source=null", "data.validation_split=validation")
"""Keys that priming does not depend on if `outer.validate_every` is 0."""

BASE = "base"
"""`transfer.encoder` of an arm that primes nothing."""

OLDER = "peft"
"""Label in version 0.1's addresses of a method with the settings of the section `peft`."""


@dataclass(frozen=True)
class Priming:
    """One priming run.

    Attributes:
        key: hash of its settings, without the seed.
        seed: seed of the run.
        config: complete config of the run.
    """

    key: str
    seed: int
    config: Config

    @property
    def folder(self) -> Path:
        """Its output directory."""
        return Path(self.config.run.output)

    @property
    def done(self) -> bool:
        """True once the run has a primed encoder."""
        return (self.folder / PRIMED).is_dir()

    @property
    def steps_done(self) -> int:
        """The number of meta-steps in its metrics.jsonl."""
        if not (self.folder / METRICS_FILE).is_file():
            return 0
        return sum("query_loss" in line for line in read_metrics(self.folder))


@dataclass(frozen=True)
class Primer:
    """The priming of an arm, for all seeds.

    Attributes:
        arm: the arm's config, as the suite defines it.
    """

    arm: Config

    @cached_property
    def config(self) -> Config:
        """The arm's config with one value for each key that no priming depends on.

        Seed and folders stay as they are.
        """
        arm, settings = self.arm, TransferConfig(lr=EMBEDDED_TRANSFER)
        validates = bool(arm.outer.validate_every and arm.data.validation_languages)
        if validates:
            # Held-out languages are fine-tuned as the targets will be, with the first rate and the first K.
            fixed = {
                "leave_out": 0,
                "encoder": settings.encoder,
                "methods": settings.methods,
                "seeds": settings.seeds,
            }
            first = {"lr": arm.transfer.rates(arm.peft)[:1], "method_lr": None, "shots": arm.transfer.shots[:1]}
            settings = arm.transfer.model_copy(update=fixed | first)
        return override(arm.model_copy(update={"transfer": settings}), *SCORED, *(() if validates else UNSEEN))

    @property
    def key(self) -> str:
        """The hash of its settings, without the seed."""
        return _Addressed(self.config).key()

    @property
    def simulates(self) -> str | None:
        """The name of the method whose fine-tuning priming simulates; None: no method."""
        simulated = self.config.learner.value.simulates
        return self.config.peft.method if simulated == "peft" else simulated

    def cell(self, seed: int, encoder: str) -> Priming:
        """Returns the priming run of one seed: `primer.cell(0, "runs/base")`.

        Args:
            seed: seed of the run.
            encoder: folder or hub id of the base encoder.
        """
        folder = Path(self.config.run.output) / PRIMINGS / self.key / f"seed{seed}"
        return Priming(self.key, seed, _Addressed(self.config).at(folder, encoder, f"run.seed={seed}"))


@dataclass(frozen=True)
class Rate:
    """The selection of one method's downstream learning rate.

    Attributes:
        config: complete config of the fine-tunings.
        file: file of the rate.
        older: the file's place in version 0.1; None: version 0.1 had no such cell.
    """

    config: Config
    file: Path
    older: Path | None

    @property
    def known(self) -> float | None:
        """The selected rate; None: not selected yet.

        Raises:
            MetaprimeError: the file is damaged.
        """
        file = next((place for place in (self.file, self.older) if place and place.is_file()), None)
        if file is None:
            return None
        check_readable(file)
        try:
            return float(json.loads(file.read_text(encoding="utf-8"))["rate"])
        except (ValueError, KeyError, TypeError) as error:
            raise MetaprimeError(f"{file} is damaged ({error}): remove it, and the rate is chosen again") from None

    @property
    def fine_tunings(self) -> int:
        """The number of fine-tunings that the selection takes."""
        settings, (method,) = self.config.transfer, self.config.methods().values()
        return len(settings.rates(method)) * len(settings.shots) * len(self.config.data.validation_languages)


@dataclass(frozen=True)
class Transfers:
    """The transfers of one arm, seed and method to all languages, with all K.

    Attributes:
        seed: seed of the K sentences and of the primed encoder.
        column: index of the method among those of its arm.
        config: complete config of the transfers.
        older: the folder's place in version 0.1; None: version 0.1 had no such cell.
    """

    seed: int
    column: int
    config: Config
    older: Path | None

    @property
    def folder(self) -> Path:
        """Its output directory."""
        return Path(self.config.run.output)

    @property
    def files(self) -> dict[tuple[str, int], Path]:
        """The path of each (language, K)'s record, which may not exist yet."""
        label = method_label(self.config.transfer.methods[0])
        return {
            (language, shots): self._file(language, label, shots)
            for shots in self.config.transfer.shots
            for language in self.config.data.target_languages
        }

    def _file(self, language: str, label: str, shots: int) -> Path:
        """Returns the path of a record; that of version 0.1 if only that one exists."""
        encoder = PRIMED if self.config.transfer.encoder != BASE else BASE
        file = self.folder / TRANSFERS / encoder / Cell(language, label, shots, self.seed).folder / RECORD
        if self.older and not file.parent.exists():
            older = self.older / TRANSFERS / encoder / Cell(language, OLDER, shots, self.seed).folder / RECORD
            return older if older.is_file() else file
        return file

    def missing(self) -> int:
        """Returns the number of records that do not exist yet.

        Raises:
            MetaprimeError: an existing record is damaged.
        """
        written = [file for file in self.files.values() if file.parent.exists()]
        for file in written:
            try:
                read_record(file)
            except MetaprimeError as error:
                raise MetaprimeError(f"{error} (all of {file.parent})") from None
        return len(self.files) - len(written)


@dataclass(frozen=True)
class Target:
    """The transfers of an arm, for all seeds.

    Attributes:
        config: the arm's config, with all its methods.
    """

    config: Config

    @property
    def key(self) -> str:
        """The hash of its settings, without encoder and methods."""
        return self._key()

    def _key(self, *changes: str) -> str:
        """Returns the hash of its settings after some overrides."""
        fixed = ("transfer.methods=[head]", "transfer.shots=[1]", "transfer.seeds=[0]", "transfer.encoder=base")
        changed = override(self.config, *SCORED[:1], "data.languages=[]", *fixed, *changes)
        return _Addressed(changed).key("encoder", "data", "peft", "transfer")

    def rates(self, column: int) -> Sequence[float]:
        """Returns the rates of one method: `target.rates(0)`.

        Args:
            column: index of the method among the arm's.
        """
        return self.config.transfer.rates(self.config.method(self.config.transfer.methods[column]))

    def rate(self, source: Priming | None, column: int, seed: int, encoder: str) -> Rate:
        """Returns the selection of one method's rate.

        Args:
            source: priming run of the encoder to fine-tune; None: the base encoder.
            column: index of the method among the arm's.
            seed: seed of the fine-tunings.
            encoder: folder or hub id of the base encoder.

        Example: `target.rate(None, 0, 0, "runs/base").known`.
        """
        label, target = self._with_method(column)
        shots, lr = list(target.config.transfer.shots), list(target.rates(0))
        settings = target._key(f"transfer.shots={shots}", f"transfer.lr={lr}", "transfer.leave_out=0")
        key = _joined(source and source.key, settings, target.config.run.seed)
        folder = Path(target.config.run.output) / RATES
        file, older = (folder / f"{key}-{name}-seed{seed}.json" for name in (label, OLDER))
        config = _Addressed(target._from(source, seed)).at(folder, encoder)
        return Rate(config, file, older if target._in_section_peft else None)

    def transfers(self, source: Priming | None, column: int, rate: float, seed: int, encoder: str) -> Transfers:
        """Returns the transfers of one seed with one method at one rate.

        Args:
            source: priming run of the encoder to fine-tune; None: the base encoder.
            column: index of the method among the arm's.
            rate: learning rate.
            seed: seed of the fine-tunings.
            encoder: folder or hub id of the base encoder.

        Example: `target.transfers(None, 0, 0.01, 0, "runs/base").missing()`.
        """
        label, target = self._with_method(column)
        settings, root = target._key(f"transfer.lr=[{rate}]"), Path(target.config.run.output) / TRANSFERS
        keys = (_joined(source and source.key, settings, name) for name in (label, OLDER))
        folder, older = (root / key / f"seed{seed}" for key in keys)
        config = _Addressed(target._from(source, seed)).at(folder, encoder, f"transfer.lr=[{rate}]")
        return Transfers(seed, column, config, older if target._in_section_peft else None)

    @property
    def _in_section_peft(self) -> bool:
        """True if the only method is that of the section `peft`, as version 0.1 could name it."""
        (method,) = self.config.methods().values()
        return method == self.config.peft

    def _with_method(self, column: int) -> tuple[str, Target]:
        """Returns a method's label, and the target with only this method and its settings."""
        choice = self.config.transfer.methods[column]
        only = {"methods": (choice,), "lr": self.rates(column), "method_lr": None}
        changes: dict[str, object] = {"transfer": self.config.transfer.model_copy(update=only)}
        if isinstance(choice, MethodConfig):
            changes["peft"] = choice
        return method_label(choice), Target(self.config.model_copy(update=changes))

    def _from(self, source: Priming | None, seed: int) -> Config:
        """Returns the config of transfers from a priming run, or from the base encoder."""
        start = json.dumps(str(source.folder / PRIMED)) if source else BASE
        return override(self.config, f"transfer.encoder={start}", f"transfer.seeds=[{seed}]")


@dataclass(frozen=True)
class _Addressed:
    """A config with its address and, for a run, its folder."""

    config: Config

    def key(self, *sections: str) -> str:
        """Returns the hash of some sections; `encoder.pretrain` counts only for an embedded encoder."""
        config = self.config
        if not config.encoder.name.startswith("synthetic:"):
            config = override(config, "encoder.pretrain={}")
        every = ("encoder", "data", "episodes", "peft", "inner", "outer", "learner", "transfer")
        return config.digest(*(sections or every))

    def at(self, folder: Path, encoder: str, *changes: str) -> Config:
        """Returns the config of a run in a folder from a base encoder, on one thread."""
        where = f"run.output={json.dumps(str(folder))}"
        name = f"encoder.name={json.dumps(encoder)}"
        return override(self.config, where, name, "run.threads=1", *changes)


def _joined(*parts: object) -> str:
    """Returns a hash of all parts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
