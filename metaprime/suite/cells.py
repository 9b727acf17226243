"""Addresses the cells of a suite by what their results depend on, so that suites share them.

<run.output>/priming/KEY/seedN/                 a priming run
<run.output>/rates/KEY-METHOD-seedN.json        the downstream rate chosen with that seed's encoder
<run.output>/transfer/KEY/seedN/                transfers with one method at one rate, every language and K
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from metaprime.config.loading import override
from metaprime.config.sections import Config, TransferConfig, method_label
from metaprime.peft import MethodConfig
from metaprime.runs.folder import PRIMED, TRANSFERS
from metaprime.runs.log import METRICS_FILE, read_metrics
from metaprime.runs.records import RECORD, read_record
from metaprime.transfers.record import Cell
from metaprime.types import MetaprimeError

PRIMINGS = "priming"
"""Folder of priming runs."""

RATES = "rates"
"""Folder of chosen rates."""

SCORED = ("data.target_languages=[]", "data.target_source=null", "data.test_split=test")
"""What priming does not depend on, at a value that is the same in all suites."""

UNSEEN = ("data.validation_languages=[]", "data.validation_source=null", "data.validation_split=validation")
"""What it does not depend on where `outer.validate_every` is 0."""

BASE = "base"
"""`transfer.encoder` of an arm that primes nothing."""

OLDER = "peft"
"""Label by which version 0.1 addressed cells whose method's settings are the arm's own."""


@dataclass(frozen=True)
class Priming:
    """One priming run.

    Attributes:
        key: names its content, without its seed.
        seed: of the run.
        config: ready to run.
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
        """Whether it has a primed encoder."""
        return (self.folder / PRIMED).is_dir()

    @property
    def steps_done(self) -> int:
        """Counts the meta-steps in its metrics.jsonl."""
        if not (self.folder / METRICS_FILE).is_file():
            return 0
        return sum("query_loss" in line for line in read_metrics(self.folder))


@dataclass(frozen=True)
class Primer:
    """How an arm primes, over all seeds. `arm` is its config as it is written."""

    arm: Config

    @cached_property
    def config(self) -> Config:
        """The config with everything that priming does not depend on (but its seed and place) at one value."""
        arm, used = self.arm, TransferConfig()
        seen = bool(arm.outer.validate_every and arm.data.validation_languages)
        if seen:
            # Held-out languages are fine-tuned as the targets will be, with the first rate and the first K.
            asked = {"leave_out": 0, "encoder": used.encoder, "methods": used.methods, "seeds": used.seeds}
            first = {"lr": arm.transfer.lr[:1], "shots": arm.transfer.shots[:1]}
            used = arm.transfer.model_copy(update=asked | first)
        return override(arm.model_copy(update={"transfer": used}), *SCORED, *(() if seen else UNSEEN))

    @property
    def key(self) -> str:
        """Names the content of its priming runs, without their seed."""
        return _Addressed(self.config).key()

    @property
    def simulates(self) -> str | None:
        """The method that priming practises fine-tuning with, by its name; None: none."""
        found = self.config.learner.value.simulates
        return self.config.peft.method if found == "peft" else found

    def cell(self, seed: int, encoder: str) -> Priming:
        """Returns the priming run of one seed from the base encoder at `encoder`."""
        folder = Path(self.config.run.output) / PRIMINGS / self.key / f"seed{seed}"
        return Priming(self.key, seed, _Addressed(self.config).at(folder, encoder, f"run.seed={seed}"))


@dataclass(frozen=True)
class Rate:
    """The choice of one method's downstream rate.

    Attributes:
        config: ready to run.
        file: keeps the rate.
        older: where version 0.1 may have kept it; None: it cannot have.
    """

    config: Config
    file: Path
    older: Path | None

    @property
    def known(self) -> float | None:
        """The rate, once it is chosen.

        Raises:
            MetaprimeError: the file is damaged.
        """
        file = next((one for one in (self.file, self.older) if one and one.is_file()), None)
        if file is None:
            return None
        try:
            return float(json.loads(file.read_text(encoding="utf-8"))["rate"])
        except (ValueError, KeyError, TypeError) as error:
            raise MetaprimeError(f"{file} is damaged ({error}): remove it, and the rate is chosen again") from None

    @property
    def fine_tunings(self) -> int:
        """Counts the fine-tunings that it takes."""
        settings = self.config.transfer
        return len(settings.lr) * len(settings.shots) * len(self.config.data.validation_languages)


@dataclass(frozen=True)
class Transfers:
    """All languages and K of one arm, seed and method.

    Attributes:
        seed: draws the K sentences, and is that of the primed encoder.
        column: the method's place among those of its arm.
        config: ready to run.
        older: where version 0.1 may have put them; None: it cannot have.
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
        """The record of each (language, K), there or not yet."""
        label = method_label(self.config.transfer.methods[0])
        return {
            (language, shots): self._file(language, label, shots)
            for shots in self.config.transfer.shots
            for language in self.config.data.target_languages
        }

    def _file(self, language: str, label: str, shots: int) -> Path:
        """Returns the place of a record; that of version 0.1, if it is there alone."""
        encoder = PRIMED if self.config.transfer.encoder != BASE else BASE
        file = self.folder / TRANSFERS / encoder / Cell(language, label, shots, self.seed).folder / RECORD
        if self.older and not file.parent.exists():
            older = self.older / TRANSFERS / encoder / Cell(language, OLDER, shots, self.seed).folder / RECORD
            return older if older.is_file() else file
        return file

    def missing(self) -> int:
        """Counts the records that are not there.

        Raises:
            MetaprimeError: one that is there is damaged.
        """
        there = [file for file in self.files.values() if file.parent.exists()]
        for file in there:
            try:
                read_record(file)
            except MetaprimeError as error:
                raise MetaprimeError(f"{error} (all of {file.parent})") from None
        return len(self.files) - len(there)


@dataclass(frozen=True)
class Target:
    """How an arm's transfers are made, over all seeds. `config` is the arm's, with all its methods."""

    config: Config

    @property
    def key(self) -> str:
        """Names what its transfers are made with, encoder and methods apart."""
        return self._key()

    def _key(self, *changes: str) -> str:
        asked = ("transfer.methods=[head]", "transfer.shots=[1]", "transfer.seeds=[0]", "transfer.encoder=base")
        changed = override(self.config, *SCORED[:1], "data.languages=[]", *asked, *changes)
        return _Addressed(changed).key("encoder", "data", "peft", "transfer")

    def rate(self, source: Priming | None, column: int, seed: int, encoder: str) -> Rate:
        """Returns the choice of a method's rate, with the encoder that `source` primed."""
        method, own = self._with_method(column)
        shots, lr = list(own.config.transfer.shots), list(own.config.transfer.lr)
        tried = own._key(f"transfer.shots={shots}", f"transfer.lr={lr}", "transfer.leave_out=0")
        key = _joined(source and source.key, tried, own.config.run.seed)
        folder = Path(own.config.run.output) / RATES
        file, older = (folder / f"{key}-{name}-seed{seed}.json" for name in (method, OLDER))
        return Rate(_Addressed(own._from(source, seed)).at(folder, encoder), file, older if own._had_word else None)

    def transfers(self, source: Priming | None, column: int, rate: float, seed: int, encoder: str) -> Transfers:
        """Returns the transfers of one seed with one method at one rate."""
        method, own = self._with_method(column)
        used, root = own._key(f"transfer.lr=[{rate}]"), Path(own.config.run.output) / TRANSFERS
        folder, older = (root / _joined(source and source.key, used, name) / f"seed{seed}" for name in (method, OLDER))
        config = _Addressed(own._from(source, seed)).at(folder, encoder, f"transfer.lr=[{rate}]")
        return Transfers(seed, column, config, older if own._had_word else None)

    @property
    def _had_word(self) -> bool:
        """Whether version 0.1 had a word for the one method: it is the section `peft`'s, with these settings."""
        (method,) = self.config.methods().values()
        return method == self.config.peft

    def _with_method(self, column: int) -> tuple[str, Target]:
        """Returns a method's label, and the target with that method alone; a mapping replaces the section `peft`."""
        choice = self.config.transfer.methods[column]
        changes = {"transfer": self.config.transfer.model_copy(update={"methods": (choice,)})}
        own: dict[str, object] = {**changes, "peft": choice} if isinstance(choice, MethodConfig) else {**changes}
        return method_label(choice), Target(self.config.model_copy(update=own))

    def _from(self, source: Priming | None, seed: int) -> Config:
        start = json.dumps(str(source.folder / PRIMED)) if source else BASE
        return override(self.config, f"transfer.encoder={start}", f"transfer.seeds=[{seed}]")


@dataclass(frozen=True)
class _Addressed:
    """A config as cells are addressed and placed by it."""

    config: Config

    def key(self, *sections: str) -> str:
        """Names the content of some sections; `encoder.pretrain` only where there is an embedded encoder."""
        config = self.config
        if not config.encoder.name.startswith("synthetic:"):
            config = override(config, "encoder.pretrain={}")
        every = ("encoder", "data", "episodes", "peft", "inner", "outer", "learner", "transfer")
        return config.digest(*(sections or every))

    def at(self, folder: Path, encoder: str, *changes: str) -> Config:
        """Returns the config of a run in a folder, from the base encoder at `encoder`, on one thread."""
        where = f"run.output={json.dumps(str(folder))}"
        name = f"encoder.name={json.dumps(encoder)}"
        return override(self.config, where, name, "run.threads=1", *changes)


def _joined(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
