"""SUITE.yaml: arms that differ by overrides of one base config, the seed pairs they are run with, and what is compared.

plan = read_plan("recipes/ablations/order.yaml", ["outer.steps=100", "seeds=0-2"], setting="synthetic")
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, NonNegativeInt, PositiveFloat, ValidationError

from metaprime.config.loading import load_config, override
from metaprime.config.sections import Config
from metaprime.config.yaml import change_key, nearest, read_keys
from metaprime.suite.cells import priming_config, priming_key, target_key
from metaprime.types import MetaprimeError, Section

Overrides = tuple[str, ...]
Axes = dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]]
OWN = "own"

WHOLE = ("run.", "encoder.", "transfer.encoder", "transfer.methods", "transfer.shots", "transfer.seeds")
WHOLE_DATA = ("data.target_languages", "data.target_source", "data.test_split")
"""Keys that are alike in all arms, or the arms' scores could not be compared."""

FOLDERS = ("base", "primed", "priming", "rates", "state", "transfer")
"""Names that a suite cannot have: they stand beside its folder in run.output."""


def seed_numbers(text: Any) -> Any:
    """`0-4` as five numbers; one number as itself; anything else unchanged."""
    if isinstance(text, int) and not isinstance(text, bool):
        return [text]
    if not isinstance(text, str):
        return text
    first, _, last = text.partition("-")
    try:
        return list(range(int(first), int(last or first) + 1))
    except ValueError:
        raise ValueError(f"{text!r} must read FIRST-LAST, for example 0-4, or be a list") from None


Seeds = Annotated[tuple[NonNegativeInt, ...], BeforeValidator(seed_numbers), Field(min_length=1)]


class ArmSection(Section):
    """One way to prepare the encoder and to start from it.

    `set` are overrides of the base config for priming, `rate` and `steps` are its outer rate and its number of meta-steps as
    multiples of the base's; `transfer` are overrides for the transfers. `priming: null` primes nothing, `priming: NAME` takes
    what the arm NAME primed. Arms of the same `line` are joined in the figure of F1 over parameters.
    """

    name: str = Field(min_length=1)
    title: str = ""
    set: Overrides = ()
    rate: PositiveFloat = 1.0
    steps: PositiveFloat = 1.0
    priming: str | None = OWN
    transfer: Overrides = ()
    line: str = ""


class SettingSection(Section):
    """One place to run a suite: its base config and overrides, and its own axes or arms where values depend on it."""

    base: str | None = None
    set: Overrides = ()
    axes: Axes | None = None
    arms: tuple[ArmSection, ...] | None = None


def setting_of(value: Any) -> Any:
    """A list is a setting that has overrides and nothing else."""
    return {"set": value} if isinstance(value, list) else value


class SuiteSection(Section):
    """The file. `axes` (key -> values) stand for one arm for each combination, beside the named `arms`; a key of the section
    `transfer` is one of the transfers, any other of priming. With `tune` the rate of each arm and method is chosen among
    `transfer.lr`, on the held-out languages with the first seed. `settings` are alternatives, the first is the default.
    `matched` names for an arm the baseline that has its compute without its idea: tables put the two side by side.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    base: str | None = None
    settings: dict[str, Annotated[SettingSection, BeforeValidator(setting_of)]] = Field(default_factory=dict)
    seeds: Seeds = (0, 1, 2, 3, 4)
    axes: Axes = Field(default_factory=dict)
    arms: tuple[ArmSection, ...] = ()
    contrasts: tuple[tuple[str, str], ...] = ()
    matched: dict[str, str] = Field(default_factory=dict)
    tune: bool = True


SECTIONS: dict[str, type[BaseModel]] = {"arms": ArmSection, "settings": SettingSection}


@dataclass(frozen=True)
class Arm:
    """An arm over its base config. `priming` is None where nothing is primed, `target` is what transfers run with."""

    title: str
    set: Overrides
    transfer: Overrides
    priming: Config | None
    target: Config
    line: str


@dataclass(frozen=True)
class Plan:
    """What a suite comes to: every arm resolved, nothing run."""

    name: str
    setting: str | None
    base: Config
    arms: dict[str, Arm]
    contrasts: tuple[tuple[str, str], ...]
    matched: dict[str, str]
    seeds: tuple[int, ...]
    tune: bool


def read_plan(path: str | Path, overrides: Sequence[str] = (), setting: str | None = None) -> Plan:
    """Reads a suite. Overrides are of the base config (`outer.steps=100`) or of the suite itself (`seeds=0-1`).

    Raises:
        MetaprimeError: the file or its base is missing or not YAML, a key, arm or setting is unknown, a name stands twice,
            two arms are equal, or an arm's config is refused.
    """
    values = read_keys(Path(path), "suite", SuiteSection.model_fields)
    ours = [text for text in overrides if text.partition("=")[0] in SuiteSection.model_fields]
    for text in ours:
        change_key(values, text)
    where = f"suite {path}"
    try:
        suite = SuiteSection.model_validate(values)
    except ValidationError as error:
        raise MetaprimeError("\n".join(f"{where}: {_explain(item)}" for item in error.errors())) from None
    chosen = next(iter(suite.settings), None) if setting is None else setting
    if chosen is not None and chosen not in suite.settings:
        raise MetaprimeError(f"--setting: {_unknown(chosen, suite.settings)}")
    place = suite.settings[chosen] if chosen else SettingSection()
    file = place.base or suite.base
    if file is None:
        raise MetaprimeError(f"{where}: base is missing: name the config that the arms are overrides of")
    changed = {text.partition("=")[0] for text in ours}
    kept = {key: value for key in ("axes", "arms") if key not in changed and (value := getattr(place, key)) is not None}
    rest = [text for text in overrides if text not in ours]
    base = load_config(Path(path).parent / file, [*place.set, *rest])
    return make_plan(suite.model_copy(update=kept), base, where, chosen)


def make_plan(suite: SuiteSection, base: Config, where: str, setting: str | None = None) -> Plan:
    """The suite over its base config; `where` begins messages.

    Raises:
        MetaprimeError: as `read_plan`.
    """
    sections = [*suite.arms, *_combinations(suite.axes)]
    names = [arm.name for arm in sections]
    if suite.name in FOLDERS:
        raise MetaprimeError(f"{where}: name {suite.name!r} is that of a folder beside the suite's: choose another")
    if not sections:
        raise MetaprimeError(f"{where}: there is no arm: give arms, axes or both")
    for what, given in (("arm", names), ("contrast", suite.contrasts), ("seed", suite.seeds)):
        if twice := [one for one in given if list(given).count(one) > 1]:
            raise MetaprimeError(f"{where}: the {what} {twice[0]!r} stands twice")
    for key, pairs in (("contrasts", suite.contrasts), ("matched", suite.matched.items())):
        for name in itertools.chain(*pairs):
            if name not in names:
                raise MetaprimeError(f"{where}: {key}: arm {_unknown(name, names)}")
    if not suite.tune and len(base.transfer.lr) > 1:
        raise MetaprimeError(f"{where}: tune is false, but transfer.lr lists {len(base.transfer.lr)} rates: give one")
    by_name = {arm.name: arm for arm in sections}
    arms = {name: _resolved(by_name, name, base, where) for name in names}
    _refuse_equals(arms, where)
    return Plan(suite.name, setting, base, arms, suite.contrasts, suite.matched, suite.seeds, suite.tune)


def _combinations(axes: Axes) -> list[ArmSection]:
    """One arm for each combination of the axes' values."""
    if not axes:
        return []
    arms = []
    for values in itertools.product(*axes.values()):
        changes = [f"{key}={_written(value)}" for key, value in zip(axes, values, strict=True)]
        later = tuple(change for change in changes if change.startswith("transfer."))
        first = tuple(change for change in changes if change not in later)
        arms.append(ArmSection(name=", ".join(changes), set=first, transfer=later))
    return arms


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _resolved(arms: dict[str, ArmSection], name: str, base: Config, where: str) -> Arm:
    arm = arms[name]
    where = f"{where}: arm {name!r}"
    for change in (*arm.set, *arm.transfer):
        key = change.partition("=")[0]
        if change.startswith((*WHOLE, *WHOLE_DATA)):
            raise MetaprimeError(
                f"{where}: {key} is the same for all arms: set it in the base, a setting or by key=value"
            )
        if change in arm.transfer and not key.startswith(("transfer", "peft", "data")):
            raise MetaprimeError(f"{where}: no transfer depends on {key}: move it from `transfer` to `set`")
    primed = arm
    if arm.priming != OWN:
        if arm.set or (arm.rate, arm.steps) != (1, 1):
            raise MetaprimeError(
                f"{where}: with priming {arm.priming!r} it primes nothing itself: leave out set, rate and steps"
            )
        if arm.priming is not None:
            primed = _lender(arms, arm.priming, where)
    rate = () if primed.rate == 1 else (f"outer.lr={base.outer.lr * primed.rate}",)
    steps = () if primed.steps == 1 else (f"outer.steps={max(1, round(base.outer.steps * primed.steps))}",)
    changes = (*rate, *steps, *primed.set)
    unsaid = "provenance={}"  # an arm's values are the suite's, wherever the base's came from
    try:
        priming = None if arm.priming is None else priming_config(override(base, unsaid, *changes))
        target = override(base, unsaid, *arm.transfer)
    except MetaprimeError as error:
        raise MetaprimeError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from None
    return Arm(arm.title or name, () if priming is None else changes, arm.transfer, priming, target, arm.line)


def _lender(arms: dict[str, ArmSection], name: str, where: str) -> ArmSection:
    if name not in arms:
        raise MetaprimeError(f"{where}: priming: arm {_unknown(name, arms)}")
    if arms[name].priming != OWN:
        raise MetaprimeError(f"{where}: priming: the arm {name!r} has no priming of its own to take")
    return arms[name]


def _refuse_equals(arms: dict[str, Arm], where: str) -> None:
    seen: dict[tuple[str | None, str], str] = {}
    for name, arm in arms.items():
        cell = (priming_key(arm.priming), target_key(arm.target))
        if cell in seen:
            raise MetaprimeError(f"{where}: the arms {seen[cell]!r} and {name!r} are equal: leave out one of them")
        seen[cell] = name


def _explain(item: Any) -> str:
    """One pydantic error as a sentence that names key, value and remedy."""
    place = [str(part) for part in item["loc"]]
    key = ".".join(place)
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        model = next((SECTIONS[part] for part in reversed(place[:-1]) if part in SECTIONS), SuiteSection)
        return f"unknown key {key}{nearest(place[-1], model.model_fields)}"
    if item["type"] in ("value_error", "missing"):
        return f"{key}: {message[0].lower()}{message[1:]}"
    return f"{key}: {message[0].lower()}{message[1:]}, but is {item['input']!r}"


def _unknown(name: str, known: Iterable[str]) -> str:
    return f"{name!r} is unknown{nearest(name, known)}"
