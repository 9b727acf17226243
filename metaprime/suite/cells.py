"""The cells of a suite and where they lie: addressed by what their results depend on, so that suites share them.

<run.output>/priming/KEY/seedN/                 a priming run
<run.output>/rates/KEY-METHOD-seedN.json        the downstream rate chosen with that seed's encoder
<run.output>/transfer/KEY/seedN/                transfers with one method at one rate, every language and K
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from metaprime.config.loading import override
from metaprime.config.sections import Config, TransferConfig
from metaprime.runs.folder import PRIMED, TRANSFERS
from metaprime.runs.log import METRICS, read_metrics
from metaprime.runs.records import read_record
from metaprime.transfers.record import RECORD, Cell
from metaprime.types import MetaprimeError

PRIMINGS = "priming"
RATES = "rates"

SCORED = ("data.target_languages=[]", "data.target_source=null", "data.test_split=test")
"""What priming knows nothing of, at a value that is alike in all suites."""
UNSEEN = ("data.validation_languages=[]", "data.validation_source=null", "data.validation_split=validation")
"""What it does not look at where `outer.validate_every` is 0."""

BASE = "base"
"""`transfer.encoder` of an arm that primes nothing."""


def priming_config(config: Config) -> Config:
    """The config with whatever a priming run does not depend on (but its seed and place) brought to one value."""
    used = TransferConfig()
    if seen := bool(config.outer.validate_every and config.data.validation_languages):
        # Held-out languages are fine-tuned as the targets will be, with the first rate and the first K.
        asked = {"leave_out": 0, "encoder": used.encoder, "methods": used.methods, "seeds": used.seeds}
        first = {"lr": config.transfer.lr[:1], "shots": config.transfer.shots[:1]}
        used = config.transfer.model_copy(update=asked | first)
    return override(config.model_copy(update={"transfer": used}), *SCORED, *(() if seen else UNSEEN))


def priming_key(config: Config | None) -> str | None:
    """Names a priming run's content, its seed apart; None for none."""
    return None if config is None else _key(config)


def target_key(config: Config, *changes: str) -> str:
    """Names what the transfers of an arm are made with, their encoder apart."""
    asked = ("transfer.methods=[head]", "transfer.shots=[1]", "transfer.seeds=[0]", "transfer.encoder=base")
    changed = override(config, *SCORED[:1], "data.languages=[]", *asked, *changes)
    return _key(changed, "encoder", "data", "peft", "transfer")


def _key(config: Config, *sections: str) -> str:
    if not config.encoder.name.startswith("synthetic:"):
        config = override(config, "encoder.pretrain={}")
    every = ("encoder", "data", "episodes", "peft", "inner", "outer", "learner", "transfer")
    return config.digest(*(sections or every))


def _joined(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Priming:
    """One priming run: `config` is ready to run, `key` names it without its seed."""

    key: str
    seed: int
    config: Config

    @property
    def folder(self) -> Path:
        return Path(self.config.run.output)

    @property
    def done(self) -> bool:
        return (self.folder / PRIMED).is_dir()

    @property
    def steps_done(self) -> int:
        """Counts the meta-steps written down so far."""
        if not (self.folder / METRICS).is_file():
            return 0
        return sum("query_loss" in line for line in read_metrics(self.folder))


@dataclass(frozen=True)
class Rate:
    """The choice of one method's downstream rate, kept in `file`."""

    method: str
    config: Config
    file: Path

    @property
    def known(self) -> float | None:
        """The rate, once it is chosen.

        Raises:
            MetaprimeError: the file is damaged.
        """
        if not self.file.is_file():
            return None
        try:
            return float(json.loads(self.file.read_text(encoding="utf-8"))["rate"])
        except (ValueError, KeyError, TypeError) as error:
            raise MetaprimeError(f"{self.file} is damaged ({error}): remove it, and the rate is chosen again") from None

    @property
    def fine_tunings(self) -> int:
        settings = self.config.transfer
        return len(settings.lr) * len(settings.shots) * len(self.config.data.validation_languages)


@dataclass(frozen=True)
class Transfers:
    """All languages and K of one arm, seed and method: `config` is ready to run."""

    seed: int
    method: str
    config: Config

    @property
    def folder(self) -> Path:
        return Path(self.config.run.output)

    @property
    def files(self) -> dict[tuple[str, int], Path]:
        """The record of each (language, K), there or not yet."""
        root = self.folder / TRANSFERS / (PRIMED if self.config.transfer.encoder != BASE else BASE)
        return {
            (language, shots): root / Cell(language, self.method, shots, self.seed).folder / RECORD
            for shots in self.config.transfer.shots
            for language in self.config.data.target_languages
        }

    def missing(self) -> int:
        """How many records are not there.

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


def priming_cell(config: Config, seed: int, encoder: str) -> Priming:
    """A priming run of one seed from the base encoder at `encoder`."""
    key, folder = _key(config), Path(config.run.output) / PRIMINGS / _key(config) / f"seed{seed}"
    return Priming(key, seed, _at(config, folder, encoder, f"run.seed={seed}"))


def rate_cell(target: Config, source: Priming | None, method: str, seed: int, encoder: str) -> Rate:
    """The choice of a rate, with the encoder that `source` primed."""
    shots, lr = list(target.transfer.shots), list(target.transfer.lr)
    tried = target_key(target, f"transfer.shots={shots}", f"transfer.lr={lr}", "transfer.leave_out=0")
    key = _joined(source and source.key, tried, target.run.seed)
    folder = Path(target.run.output) / RATES
    config = _at(_from(target, source, method, seed), folder, encoder)
    return Rate(method, config, folder / f"{key}-{method}-seed{seed}.json")


def transfer_cell(
    target: Config, source: Priming | None, method: str, rate: float, seed: int, encoder: str
) -> Transfers:
    """The transfers of one seed with one method at one rate."""
    key = _joined(source and source.key, target_key(target, f"transfer.lr=[{rate}]"), method)
    folder = Path(target.run.output) / TRANSFERS / key / f"seed{seed}"
    config = _at(_from(target, source, method, seed), folder, encoder, f"transfer.lr=[{rate}]")
    return Transfers(seed, method, config)


def _from(target: Config, source: Priming | None, method: str, seed: int) -> Config:
    start = json.dumps(str(source.folder / PRIMED)) if source else BASE
    return override(target, f"transfer.encoder={start}", f"transfer.methods=[{method}]", f"transfer.seeds=[{seed}]")


def _at(config: Config, folder: Path, encoder: str, *changes: str) -> Config:
    where = f"run.output={json.dumps(str(folder))}"
    return override(config, where, f"encoder.name={json.dumps(encoder)}", "run.threads=1", *changes)
