"""Reads SUITE.yaml: arms as overrides of a base config, their seeds, and the contrasts between them.

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

from metaprime.build.kind import kinds_of
from metaprime.config.loading import explain, load_config, override
from metaprime.config.presets import EMBEDDED
from metaprime.config.sections import Config, method_label
from metaprime.config.yaml import change_key, nearest, read_keys
from metaprime.priming.settings import Sections, check_sections
from metaprime.suite.cells import Primer, Target
from metaprime.types import MetaprimeError, Scalar, Section

Changes = tuple[str, ...]
Axes = dict[str, Annotated[tuple[Annotated[Any, Scalar], ...], Field(min_length=1)]]
OWN = "own"
"""Value of `priming` for an arm that primes; heading of a column whose method differs between arms."""

WHOLE_TASK = ("task=", "task.name", "task.scheme", "task.metric", "task.preset", "task.tasks", "task.range")
WHOLE = ("run.", "encoder.", "transfer.encoder", "transfer.shots", "transfer.seeds", *WHOLE_TASK)
WHOLE_DATA = ("data.target_languages", "data.target_source", "data.test_split")
"""Keys that must be the same in all arms, whose scores could not be compared otherwise."""

FOLDERS = ("base", "primed", "priming", "rates", "state", "transfer")
"""Names that a suite cannot have, because other folders in run.output have them."""


def seed_numbers(text: Any) -> Any:
    """Returns the numbers of a range such as `0-4`, or a single number, as a list.

    Other values are returned unchanged, for validation.

    Args:
        text: value of the key `seeds`.

    Raises:
        ValueError: the text is no range of whole numbers.

    Example: `seed_numbers("0-4")` is `[0, 1, 2, 3, 4]`.
    """
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
    """An arm: a way to prime the encoder and to start transfers from it."""

    name: str = Field(min_length=1)
    """Name of the arm in the file."""

    title: str = ""
    """Title of the arm in tables; empty: its name."""

    set: Changes = ()
    """Overrides of the base config for priming."""

    rate: PositiveFloat = 1.0
    """Factor on the base's `outer.lr`, above 0."""

    steps: PositiveFloat = 1.0
    """Factor on the base's `outer.steps`, above 0."""

    priming: str | None = OWN
    """Encoder of the arm: null is the base encoder, `own` a priming run of its own, an arm's name the
    encoder that this arm primed."""

    transfer: Changes = ()
    """Overrides of the base config for transfers."""

    line: str = ""
    """Name of a line that joins arms in the figure of scores over parameters; empty: none."""


class SettingSection(Section):
    """A setting: the base config, overrides and arms for one place to run a suite."""

    base: str | None = None
    """Path of its base config, relative to the suite's file; null: the suite's."""

    set: Changes = ()
    """Overrides of the base config."""

    axes: Axes | None = None
    """Axes that replace the suite's; null: the suite's."""

    arms: tuple[ArmSection, ...] | None = None
    """Arms that replace the suite's; null: the suite's."""


def setting_of(value: Any) -> Any:
    """Returns a setting that is a list of overrides as a mapping: `setting_of(["outer.steps=3"])`."""
    return {"set": value} if isinstance(value, list) else value


class SuiteSection(Section):
    """The content of SUITE.yaml."""

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    """Name of the suite and of its folder."""

    base: str | None = None
    """Path of the config that the arms override, relative to the suite's file."""

    settings: dict[str, Annotated[SettingSection, BeforeValidator(setting_of)]] = Field(default_factory=dict)
    """Settings by name; the first is the default."""

    seeds: Seeds = (0, 1, 2, 3, 4)
    """Seeds of priming, each at least 0; a transfer has the seed of its priming."""

    axes: Axes = Field(default_factory=dict)
    """Keys with lists of values; each combination is an arm beside `arms`. Keys of the section `transfer`
    override the transfers, all others priming."""

    arms: tuple[ArmSection, ...] = ()
    """Arms with names, in the order of tables."""

    contrasts: tuple[tuple[str, str], ...] = ()
    """Pairs of arms to compare: the first minus the second."""

    matched: dict[str, str] = Field(default_factory=dict)
    """Arm -> its baseline at equal compute, which tables show beside it."""

    tune: bool = True
    """True selects the rate of each arm and method from `transfer.lr` by the held-out languages, with the
    first seed; False: `transfer.lr` gives the only rate."""


NESTED_SECTIONS: dict[str, type[BaseModel]] = {"arms": ArmSection, "settings": SettingSection}
"""Keys of the file whose values have sections of their own."""


@dataclass(frozen=True)
class ArmPlan:
    """An arm with its configs resolved.

    Attributes:
        title: title in tables.
        set: overrides of the base config for priming; empty without priming.
        transfer: overrides of the base config for transfers.
        primer: the arm's priming; None: it has none.
        target: the arm's transfers.
        line: name of the line that joins it with other arms in the figure of scores over parameters.
    """

    title: str
    set: Changes
    transfer: Changes
    primer: Primer | None
    target: Target
    line: str

    @property
    def methods(self) -> tuple[str, ...]:
        """The labels of its methods, in the order of the columns."""
        return tuple(method_label(choice) for choice in self.target.config.transfer.methods)


@dataclass(frozen=True)
class SuitePlan:
    """A suite with all arms resolved.

    Attributes:
        name: name of the suite and of its folder.
        setting: name of the selected setting; None: the suite has none.
        base: config that the arms override.
        arms: arms by name.
        contrasts: pairs of arms to compare: the first minus the second.
        matched: arm -> its baseline at equal compute.
        seeds: seeds of priming and transfers.
        tune: True selects rates on the held-out languages.
    """

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
        """The headings of the methods: the label that all arms share, otherwise `own`, `own 2`, ..."""
        columns = list(zip(*(arm.methods for arm in self.arms.values()), strict=True))
        mixed = [index for index, labels in enumerate(columns) if len(set(labels)) > 1]
        headings = {index: OWN if number == 1 else f"{OWN} {number}" for number, index in enumerate(mixed, 1)}
        return tuple(headings.get(index, labels[0]) for index, labels in enumerate(columns))


def read_plan(path: str | Path, overrides: Sequence[str] = (), setting: str | None = None) -> SuitePlan:
    """Reads a suite's file and resolves its arms.

    Args:
        path: the file.
        overrides: changes of the base config (`outer.steps=100`) or of the suite itself (`seeds=0-1`).
        setting: name of one of the suite's settings; None: the first.

    Raises:
        MetaprimeError: the file or its base is missing or not YAML, a key, arm or setting is unknown, a name
            is duplicated, two arms are equal, or an arm's config is invalid.

    Example: `read_plan("recipes/ablations/order.yaml", ["seeds=0-2"], setting="synthetic").arms`.
    """
    # The suite's own keys are changed before it is validated, those of the base config after.
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

    # A setting's base, overrides, axes and arms go before the suite's, and the command's before both.
    chosen = next(iter(suite.settings), None) if setting is None else setting
    if chosen is not None and chosen not in suite.settings:
        raise MetaprimeError(f"--setting: {_unknown_name(chosen, suite.settings)}")
    settings = suite.settings[chosen] if chosen else SettingSection()
    file = settings.base or suite.base
    if file is None:
        raise MetaprimeError(f"{where}: base is missing: name the config that the arms are overrides of")
    changed = {text.partition("=")[0] for text in ours}
    replaced = {key: getattr(settings, key) for key in ("axes", "arms") if key not in changed}
    replaced = {key: value for key, value in replaced.items() if value is not None}
    rest = [text for text in overrides if text not in ours]
    base = load_config(Path(path).parent / file, [*settings.set, *rest])
    return make_plan(suite.model_copy(update=replaced), base, where, chosen)


def make_plan(suite: SuiteSection, base: Config, where: str, setting: str | None = None) -> SuitePlan:
    """Resolves the arms of a suite over its base config.

    Args:
        suite: content of the file.
        base: config that the arms override.
        where: beginning of messages.
        setting: name of the selected setting; None: the suite has none.

    Raises:
        MetaprimeError: an arm is unknown or missing, a name is duplicated, two arms are equal, or an arm's
            config is invalid.

    Example: `make_plan(SuiteSection(name="mine", arms=[ArmSection(name="meta")]), config, "suite mine")`.
    """
    kinds = kinds_of(base.encoder, base.transfer) if base.asks_for_rates else (EMBEDDED, EMBEDDED)
    base = base.at_transfer_rates(*kinds)
    sections = [*suite.arms, *_combinations(suite.axes)]
    _check_names(suite, [arm.name for arm in sections], where)
    if not suite.tune and (several := [rates for rates in base.transfer.all_rates if len(rates) > 1]):
        raise MetaprimeError(f"{where}: tune is false, but transfer.lr lists {len(several[0])} rates: give one")

    # All arms have the same columns.
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
    """Validates the suite's name, and that arms exist and nothing is duplicated."""
    if suite.name in FOLDERS:
        raise MetaprimeError(f"{where}: name {suite.name!r} is taken by another folder in run.output: choose another")
    if not names:
        raise MetaprimeError(f"{where}: there is no arm: give arms, axes or both")
    for kind, items in (("arm", names), ("contrast", suite.contrasts), ("seed", suite.seeds)):
        if duplicates := [item for item in items if list(items).count(item) > 1]:
            raise MetaprimeError(f"{where}: duplicate {kind} {duplicates[0]!r}")
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
        transfer = tuple(change for change in changes if change.startswith("transfer."))
        priming = tuple(change for change in changes if change not in transfer)
        arms.append(ArmSection(name=", ".join(changes), set=priming, transfer=transfer))
    return arms


def _as_override(value: Any) -> str:
    """Returns a value as an override spells it; text inside lists and mappings has quotes."""
    return value if isinstance(value, str) else _spelled(value)


def _spelled(value: Any) -> str:
    """Returns a value as JSON, but numbers as they are written, unless they have a point.

    The key decides what 010 and 1e-4 are. Arms are named after the text, and 5.0e-4 has always been
    0.0005 there.
    """
    if isinstance(value, list):
        return f"[{', '.join(map(_spelled, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {_spelled(item)}" for key, item in value.items()) + "}"
    if not isinstance(value, Scalar):
        return json.dumps(value)
    number = isinstance(value.value, float | int) and not isinstance(value.value, bool)
    return value.text if number and "." not in value.text else json.dumps(value.value)


def _resolved(arms: dict[str, ArmSection], name: str, base: Config, where: str) -> ArmPlan:
    """Resolves one arm over the base config.

    Raises:
        MetaprimeError: the arm changes a key that must be the same in all arms, or its config is invalid.
    """
    arm = arms[name]
    _check_changes(arm, where)
    source = _primed_by(arms, arm, where)
    changes: Changes = ()
    if source:
        rate = () if source.rate == 1 else (f"outer.lr={base.outer.rate * source.rate}",)
        steps = () if source.steps == 1 else (f"outer.steps={max(1, round(base.outer.steps * source.steps))}",)
        changes = (*rate, *steps, *source.set)

    # The base's statements of provenance do not hold for an arm's values.
    no_provenance = "provenance={}"
    try:
        primer = Primer(override(base, no_provenance, *changes)) if source else None
        if primer:
            config = primer.config
            check_sections(Sections(config.learner, config.inner, config.outer, config.peft, config.task.together))
        target = override(base, no_provenance, *arm.transfer)
    except MetaprimeError as error:
        raise MetaprimeError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from None
    return ArmPlan(arm.title or name, changes, arm.transfer, primer, Target(target), arm.line)


def _check_changes(arm: ArmSection, where: str) -> None:
    """Refuses overrides of keys that must be the same in all arms, and overrides in the wrong list."""
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
    """Returns the arm whose primed encoder an arm takes: itself, another, or None.

    Raises:
        MetaprimeError: the arm has no priming of its own but settings for it, or the other arm has none.
    """
    if arm.priming == OWN:
        return arm
    if arm.set or (arm.rate, arm.steps) != (1, 1):
        raise MetaprimeError(
            f"{where}: priming {arm.priming!r} means no priming of its own: leave out set, rate and steps"
        )
    if arm.priming is None:
        return None
    if arm.priming not in arms:
        raise MetaprimeError(f"{where}: priming: arm {_unknown_name(arm.priming, arms)}")
    if arms[arm.priming].priming != OWN:
        raise MetaprimeError(f"{where}: priming: the arm {arm.priming!r} has no priming of its own to take")
    return arms[arm.priming]


def _refuse_equals(arms: dict[str, ArmPlan], where: str) -> None:
    """Refuses two arms with the same cells."""
    seen: dict[object, str] = {}
    for name, arm in arms.items():
        methods = tuple(method.model_dump_json() for method in arm.target.config.methods().values())
        cell = (arm.primer and arm.primer.key, arm.target.key, methods)
        if cell in seen:
            raise MetaprimeError(f"{where}: the arms {seen[cell]!r} and {name!r} are equal: leave out one of them")
        seen[cell] = name


def _known_keys(place: Sequence[str], values: dict[str, Any]) -> list[str]:
    """Returns the known keys of the section at a path in the file."""
    model = next((NESTED_SECTIONS[part] for part in reversed(place) if part in NESTED_SECTIONS), SuiteSection)
    return list(model.model_fields)


def _unknown_name(name: str, known: Iterable[str]) -> str:
    """Returns the end of a message about an unknown name."""
    return f"{name!r} is unknown{nearest(name, known)}"
