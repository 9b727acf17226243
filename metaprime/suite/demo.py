"""Runs the embedded demonstration: the gain of priming and meta-learning on synthetic languages.

The demonstration is a suite that this file defines. Held-out languages select the downstream rate of
each arm and method; target languages are scored once, at the end. The replicate is the priming seed.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from metaprime.build.kind import kinds_of
from metaprime.config.sections import Config
from metaprime.runs.folder import PRIMED, Claim, check_output, open_output
from metaprime.runs.lock import locked
from metaprime.runs.log import METRICS_FILE
from metaprime.runs.stopping import Stopping
from metaprime.suite.recorded import against_recorded
from metaprime.suite.spec import ArmSection, SuitePlan, SuiteSection, make_plan
from metaprime.suite.workers import workers
from metaprime.types import MetaprimeError

MULTITASK = ("learner.name=multitask",)
PRIMED_START = ("transfer.start_adapter=primed", "transfer.start_head=primed")
_ARMS = (
    ArmSection(name="none", title="no priming", priming=None),
    ArmSection(name="multitask", title="multi-task full fine-tuning", set=MULTITASK, rate=0.5),
    ArmSection(
        name="multitask_start", title="multi-task, its head kept", set=MULTITASK, rate=0.5, transfer=PRIMED_START[1:]
    ),
    ArmSection(name="shuffled", title="meta-priming on shuffled tags", set=("task.shuffle_tags=true",)),
    ArmSection(name="meta", title="meta-priming"),
    ArmSection(name="meta_start", title="meta-priming, its adapter and head kept", transfer=PRIMED_START),
)
ARMS = {arm.name: arm for arm in _ARMS}
"""Arms with the same episodes and at most as many sentence passes, each stopped at its best held-out score.

Multi-task training takes half the outer rate of meta-training: the best rates of the two on the
synthetic languages qae, qaj and qas, which appear in no table.
"""

DEFAULT = ("none", "multitask", "shuffled", "meta")
"""Default arms, which take minutes; the others start transfer from the primed adapter or head."""

PUT_FIRST = "meta"
"""The arm whose first seed's encoder is copied to `primed/`."""

CONTRASTS = (
    ("meta", "none"),
    ("meta", "shuffled"),
    ("meta", "multitask"),
    ("meta_start", "multitask_start"),
    ("multitask", "none"),
    ("shuffled", "none"),
)


@dataclass(frozen=True)
class Demonstration:
    """The demonstration that a command asks for, before it runs.

    Attributes:
        config: base config, at the rates of its encoder.
        arms: names in ARMS.
        seeds: seeds of priming.
    """

    config: Config
    arms: tuple[str, ...]
    seeds: tuple[int, ...]

    def plan(self) -> SuitePlan:
        """Returns the demonstration as a suite.

        Raises:
            MetaprimeError: an arm is unknown, there is more than one K, or the config is invalid.

        Example: `Demonstration(Config(), ("none",), (0,)).plan().arms`.
        """
        if len(self.config.transfer.shots) != 1:
            raise MetaprimeError(
                f"transfer.shots {list(self.config.transfer.shots)}: the demonstration is for one K: give one number"
            )
        if unknown := [name for name in self.arms if name not in ARMS]:
            raise MetaprimeError(f"--arms: {unknown[0]!r} is unknown (known: {', '.join(ARMS)})")
        chosen = tuple(ARMS[name] for name in self.arms)
        pairs = tuple(pair for pair in CONTRASTS if set(pair) <= set(self.arms))
        suite = SuiteSection(name="demo", arms=chosen, contrasts=pairs, seeds=self.seeds)
        return make_plan(suite, self.config, "demo")

    def claim(self, overwrite: bool) -> Claim:
        """Returns the request for the output folder: `Demonstration(Config(), ("none",), (0,)).claim(False)`.

        Args:
            overwrite: whether the contents of the folder are to be replaced.

        Raises:
            MetaprimeError: the folder holds another run or other files.
        """
        claim = Claim(*self.config.recorded())
        check_output(claim, resume=not overwrite, overwrite=overwrite)
        return claim


def demo(
    config: Config,
    *,
    arms: Sequence[str] = DEFAULT,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    jobs: int = 2,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Runs the demonstration's arms with each priming seed; finished cells are not repeated.

    Writes to `run.output`: `base/`, `primed/` (the first seed's meta-primed encoder), `metrics.jsonl` of
    its priming, `results.json` and `table.md`; unless `quiet`, `example.tsv` and `report.*` too.

    Args:
        config: base config, which the arms override.
        arms: names in ARMS.
        seeds: seeds of priming.
        jobs: number of processes that run in parallel.
        overwrite: True replaces the contents of `run.output`.
        quiet: True shows neither progress nor tables.

    Returns:
        The content of `results.json`.

    Raises:
        MetaprimeError: the config is invalid, the output folder holds another run, or a cell failed, which
            is raised after all others have run.
        Stopped: a signal arrived; the same command resumes the demonstration.

    Example:
        >>> config = metaprime.override(config, f"run.output={folder / 'demo'}")
        >>> results = metaprime.demo(config, arms=["none"], seeds=[0], jobs=1, quiet=True)
        >>> len(results["records"]), results["failed"]
        (1, [])
    """
    asked = Demonstration(config.at_rates(*kinds_of(config.encoder, config.transfer)), tuple(arms), tuple(seeds))
    plan = asked.plan()
    claim = asked.claim(overwrite)
    # Imported here: a mistake is refused before torch is loaded.
    from metaprime.build.encoder import open_encoder
    from metaprime.suite.ablate import carry_out
    from metaprime.suite.checks import check_plan
    from metaprime.suite.closing import closing

    check_plan(plan)
    config = asked.config
    output = claim.output

    with Stopping(None, "the same command resumes the demonstration"), locked(output):
        # An embedded encoder is pre-trained here, once; an unusable one is refused.
        encoder = open_encoder(config.encoder, output, config.run.threads)
        open_output(claim, overwrite)
        with workers(jobs) as pool:
            results = carry_out(plan, output, encoder, pool, quiet)
        if not quiet:
            print(*against_recorded(config.facts(), seeds, output), sep="\n")
        # The folder shows one priming run: encoder and metrics.
        if folder := results["primings"].get(PUT_FIRST, {}).get(str(seeds[0])):
            shutil.rmtree(output / PRIMED, ignore_errors=True)
            shutil.copytree(output / folder / PRIMED, output / PRIMED)
            shutil.copy(output / folder / METRICS_FILE, output / METRICS_FILE)
        if not quiet and results["records"] and not results["failed"]:
            print(*closing(results, output, PUT_FIRST), sep="\n")
    if failed := results["failed"]:
        raise MetaprimeError("\n".join(f"arm {cell['arm']}, seed {cell['seed']}: {cell['error']}" for cell in failed))
    return results
