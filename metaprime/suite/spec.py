"""Reads SUITE.yaml: arms that differ by overrides of one base config, their seeds, and what is compared.

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

from metaprime.config.loading import explain, load_config, override
from metaprime.config.sections import Config, method_label
from metaprime.config.yaml import change_key, nearest, read_keys
from metaprime.priming.settings import Sections, check_sections
from metaprime.suite.cells import Primer, Target
from metaprime.types import MetaprimeError, Section

Changes = tuple[str, ...]
Axes = dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]]
OWN = "own"
"""`priming` of an arm that primes; heading of a column in which each arm has a method of its own."""

WHOLE = ("run.", "encoder.", "task.name", "transfer.encoder", "transfer.shots", "transfer.seeds")
WHOLE_DATA = ("data.target_languages", "data.target_source", "data.test_split")
"""Keys that are alike in all arms, or the arms' scores could not be compared."""

FOLDERS = ("base", "primed", "priming", "rates", "state", "transfer")
"""Names that a suite cannot have: they stand beside its folder in run.output."""


def seed_numbers(text: Any) -> Any:
    """Reads `0-4` as five numbers and one number as itself; anything else is left as it is."""
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
    """One way to prepare the encoder and to start from it."""

    name: str = Field(min_length=1)
    """Its name in the file."""

    title: str = ""
    """Its name in tables; empty: `name`."""

    set: Changes = ()
    """Overrides of the base config for priming."""

    rate: PositiveFloat = 1.0
    """Outer rate, as a multiple of the base's."""

    steps: PositiveFloat = 1.0
    """Number of meta-steps, as a multiple of the base's."""

    priming: str | None = OWN
    """null primes nothing, `own` primes, the name of another arm takes what that arm primed."""

    transfer: Changes = ()
    """Overrides of the base config for transfers."""

    line: str = ""
    """Arms of the same line are joined in the figure of scores over parameters."""


class SettingSection(Section):
    """One place to run a suite."""

    base: str | None = None
    """Its base config; null: the suite's."""

    set: Changes = ()
    """Overrides of the base config."""

    axes: Axes | None = None
    """Its own axes, where values depend on it."""

    arms: tuple[ArmSection, ...] | None = None
    """Its own arms, likewise."""


def setting_of(value: Any) -> Any:
    """Accepts a list for a setting that has overrides and nothing else."""
    return {"set": value} if isinstance(value, list) else value


class SuiteSection(Section):
    """The file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    """Name of the suite and of its folder."""

    base: str | None = None
    """The config that the arms are overrides of, relative to the file."""

    settings: dict[str, Annotated[SettingSection, BeforeValidator(setting_of)]] = Field(default_factory=dict)
    """Alternatives; the first is the default."""

    seeds: Seeds = (0, 1, 2, 3, 4)
    """Seeds of priming, each with a transfer seed of the same number."""

    axes: Axes = Field(default_factory=dict)
    """Keys with values: one arm for each combination, beside `arms`. A key of the section `transfer` is one of the
    transfers, any other one of priming."""

    arms: tuple[ArmSection, ...] = ()
    """Named arms."""

    contrasts: tuple[tuple[str, str], ...] = ()
    """Pairs of arms that are compared: the first minus the second."""

    matched: dict[str, str] = Field(default_factory=dict)
    """For an arm, the baseline with its compute but without its idea: tables put the two side by side."""

    tune: bool = True
    """Whether the rate of each arm and method is chosen among `transfer.lr`, on the held-out languages with the first
    seed."""


NESTED_SECTIONS: dict[str, type[BaseModel]] = {"arms": ArmSection, "settings": SettingSection}
"""Keys of the file below which a section of its own stands."""


@dataclass(frozen=True)
class ArmPlan:
    """An arm over its base config.

    Attributes:
        title: in tables.
        set: overrides of the base config for priming; empty where nothing is primed.
        transfer: overrides for the transfers.
        primer: how it primes; None: it does not.
        target: how its transfers are made.
        line: joins it with other arms in the figure of F1 over parameters.
    """

    title: str
    set: Changes
    transfer: Changes
    primer: Primer | None
    target: Target
    line: str

    @property
    def methods(self) -> tuple[str, ...]:
        """Labels of its methods, in the order of the columns."""
        return tuple(method_label(choice) for choice in self.target.config.transfer.methods)


@dataclass(frozen=True)
class SuitePlan:
    """A suite with every arm resolved, and nothing run."""

    name: str
    setting: str | None
    base: Config
    arms: dict[str, ArmPlan]
    contrasts: tuple[tuple[str, str], ...]
    matched: dict[str, str]
    seeds: tuple[int, ...]
    tune: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """Headings of the methods: a method's label where it is the same in all arms, else `own`, `own 2`, ..."""
        each = list(zip(*(arm.methods for arm in self.arms.values()), strict=True))
        mixed = [place for place, labels in enumerate(each) if len(set(labels)) > 1]
        names = {place: OWN if number == 1 else f"{OWN} {number}" for number, place in enumerate(mixed, 1)}
        return tuple(names.get(place, labels[0]) for place, labels in enumerate(each))


def read_plan(path: str | Path, overrides: Sequence[str] = (), setting: str | None = None) -> SuitePlan:
    """Reads a suite.

    Args:
        path: the file.
        overrides: of the base config (`outer.steps=100`) or of the suite itself (`seeds=0-1`).
        setting: one of the suite's; None: the first.

    Raises:
        MetaprimeError: the file or its base is missing or not YAML; a key, arm or setting is unknown; a name is
            duplicated; two arms are equal; or an arm's config is refused.
    """
    values = read_keys(Path(path), "suite", SuiteSection.model_fields)
    ours = [text for text in overrides if text.partition("=")[0] in SuiteSection.model_fields]
    for text in ours:
        change_key(values, text)
    where = f"suite {path}"
    try:
        suite = SuiteSection.model_validate(values)
    except ValidationError as error:
        lines = [f"{where}: {explain(item, values, _known_keys)}" for item in error.errors()]
        raise MetaprimeError("\n".join(lines)) from None
    chosen = next(iter(suite.settings), None) if setting is None else setting
    if chosen is not None and chosen not in suite.settings:
        raise MetaprimeError(f"--setting: {_unknown_name(chosen, suite.settings)}")
    place = suite.settings[chosen] if chosen else SettingSection()
    file = place.base or suite.base
    if file is None:
        raise MetaprimeError(f"{where}: base is missing: name the config that the arms are overrides of")
    changed = {text.partition("=")[0] for text in ours}
    kept = {key: value for key in ("axes", "arms") if key not in changed and (value := getattr(place, key)) is not None}
    rest = [text for text in overrides if text not in ours]
    base = load_config(Path(path).parent / file, [*place.set, *rest])
    return make_plan(suite.model_copy(update=kept), base, where, chosen)


def make_plan(suite: SuiteSection, base: Config, where: str, setting: str | None = None) -> SuitePlan:
    """Returns the suite over its base config.

    Args:
        suite: the file's content.
        base: what its arms are overrides of.
        where: begins messages.
        setting: the one that was chosen.

    Raises:
        MetaprimeError: as `read_plan`.
    """
    sections = [*suite.arms, *_combinations(suite.axes)]
    _check_names(suite, [arm.name for arm in sections], where)
    if not suite.tune and len(base.transfer.lr) > 1:
        raise MetaprimeError(f"{where}: tune is false, but transfer.lr lists {len(base.transfer.lr)} rates: give one")
    by_name = {arm.name: arm for arm in sections}
    arms = {name: _resolved(by_name, name, base, f"{where}: arm {name!r}") for name in by_name}
    first = next(iter(arms))
    for name, arm in arms.items():
        if len(arm.methods) != len(arms[first].methods):
            raise MetaprimeError(
                f"{where}: transfer.methods: the arm {first!r} has {len(arms[first].methods)} and the arm {name!r} "
                f"{len(arm.methods)}: give all arms the same number, which are the columns of the table"
            )
    _refuse_equals(arms, where)
    return SuitePlan(suite.name, setting, base, arms, suite.contrasts, suite.matched, suite.seeds, suite.tune)


def _check_names(suite: SuiteSection, names: Sequence[str], where: str) -> None:
    """Refuses a suite without arms, duplicates, and arms that do not exist."""
    if suite.name in FOLDERS:
        raise MetaprimeError(f"{where}: name {suite.name!r} is that of a folder beside the suite's: choose another")
    if not names:
        raise MetaprimeError(f"{where}: there is no arm: give arms, axes or both")
    for what, given in (("arm", names), ("contrast", suite.contrasts), ("seed", suite.seeds)):
        if twice := [one for one in given if list(given).count(one) > 1]:
            raise MetaprimeError(f"{where}: duplicate {what} {twice[0]!r}")
    for key, pairs in (("contrasts", suite.contrasts), ("matched", suite.matched.items())):
        for name in itertools.chain(*pairs):
            if name not in names:
                raise MetaprimeError(f"{where}: {key}: arm {_unknown_name(name, names)}")


def _combinations(axes: Axes) -> list[ArmSection]:
    """Returns one arm for each combination of the axes' values."""
    if not axes:
        return []
    arms = []
    for values in itertools.product(*axes.values()):
        changes = [f"{key}={_as_override(value)}" for key, value in zip(axes, values, strict=True)]
        later = tuple(change for change in changes if change.startswith("transfer."))
        first = tuple(change for change in changes if change not in later)
        arms.append(ArmSection(name=", ".join(changes), set=first, transfer=later))
    return arms


def _as_override(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _resolved(arms: dict[str, ArmSection], name: str, base: Config, where: str) -> ArmPlan:
    """Returns an arm over the base config.

    Raises:
        MetaprimeError: it changes what is the same for all arms, or its config is refused.
    """
    arm = arms[name]
    _check_changes(arm, where)
    primed = _primed_by(arms, arm, where)
    changes: Changes = ()
    if primed:
        rate = () if primed.rate == 1 else (f"outer.lr={base.outer.lr * primed.rate}",)
        steps = () if primed.steps == 1 else (f"outer.steps={max(1, round(base.outer.steps * primed.steps))}",)
        changes = (*rate, *steps, *primed.set)
    # An arm's values are the suite's, wherever the base's came from.
    unsaid = "provenance={}"
    try:
        primer = Primer(override(base, unsaid, *changes)) if primed else None
        if primer:
            own = primer.config
            check_sections(Sections(own.learner, own.inner, own.outer, own.peft))
        target = override(base, unsaid, *arm.transfer)
    except MetaprimeError as error:
        raise MetaprimeError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from None
    return ArmPlan(arm.title or name, changes, arm.transfer, primer, Target(target), arm.line)


def _check_changes(arm: ArmSection, where: str) -> None:
    """Refuses overrides of what must be the same for all arms, and of what their list is not for."""
    for change in (*arm.set, *arm.transfer):
        key = change.partition("=")[0]
        if change.startswith((*WHOLE, *WHOLE_DATA)):
            raise MetaprimeError(
                f"{where}: {key} is the same for all arms: set it in the base, a setting or by key=value"
            )
        if change in arm.set and key.startswith("transfer.methods"):
            raise MetaprimeError(f"{where}: no priming depends on {key}: move it from `set` to `transfer`")
        if change in arm.transfer and not key.startswith(("transfer", "peft", "data", "task")):
            raise MetaprimeError(f"{where}: no transfer depends on {key}: move it from `transfer` to `set`")


def _primed_by(arms: dict[str, ArmSection], arm: ArmSection, where: str) -> ArmSection | None:
    """Returns the arm whose priming an arm takes: itself, another, or None.

    Raises:
        MetaprimeError: it primes nothing itself but says how, or takes from an arm that does not prime.
    """
    if arm.priming == OWN:
        return arm
    if arm.set or (arm.rate, arm.steps) != (1, 1):
        raise MetaprimeError(
            f"{where}: with priming {arm.priming!r} it primes nothing itself: leave out set, rate and steps"
        )
    if arm.priming is None:
        return None
    if arm.priming not in arms:
        raise MetaprimeError(f"{where}: priming: arm {_unknown_name(arm.priming, arms)}")
    if arms[arm.priming].priming != OWN:
        raise MetaprimeError(f"{where}: priming: the arm {arm.priming!r} has no priming of its own to take")
    return arms[arm.priming]


def _refuse_equals(arms: dict[str, ArmPlan], where: str) -> None:
    seen: dict[object, str] = {}
    for name, arm in arms.items():
        methods = tuple(method.model_dump_json() for method in arm.target.config.methods().values())
        cell = (arm.primer and arm.primer.key, arm.target.key, methods)
        if cell in seen:
            raise MetaprimeError(f"{where}: the arms {seen[cell]!r} and {name!r} are equal: leave out one of them")
        seen[cell] = name


def _known_keys(place: Sequence[str], values: dict[str, Any]) -> list[str]:
    """Returns the keys that are known at a place of the file."""
    model = next((NESTED_SECTIONS[part] for part in reversed(place) if part in NESTED_SECTIONS), SuiteSection)
    return list(model.model_fields)


def _unknown_name(name: str, known: Iterable[str]) -> str:
    return f"{name!r} is unknown{nearest(name, known)}"
