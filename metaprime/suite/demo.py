"""Runs the embedded demonstration on synthetic languages: does priming help, and is it the meta-learning that helps?

It is a suite that is written here instead of in a file. Downstream learning rates are chosen per arm and method on
held-out languages; target languages are scored once, at the end. The replicate is the priming seed.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from metaprime.build.encoder import open_encoder
from metaprime.config.sections import Config
from metaprime.runs.folder import PRIMED, Claim, check_output, open_output
from metaprime.runs.lock import locked
from metaprime.runs.log import METRICS_FILE
from metaprime.runs.stopping import Stopping
from metaprime.suite.ablate import carry_out
from metaprime.suite.spec import ArmSection, SuiteSection, make_plan
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
"""Same episodes, same number of sentence passes at most, each stopped where the held-out languages are served best.
Ordinary training wants a smaller outer rate than meta-training: half did best, for both on the synthetic languages qae, qaj
and qas, which appear in no table.
"""

DEFAULT = ("none", "multitask", "shuffled", "meta")
"""The arms of a demonstration that keeps to minutes. The others start transfer from what priming left of adapter and head."""

PUT_FIRST = "meta"
"""The arm whose encoder, that of the first seed, is put at `primed/`."""

CONTRASTS = (
    ("meta", "none"),
    ("meta", "shuffled"),
    ("meta", "multitask"),
    ("meta_start", "multitask_start"),
    ("multitask", "none"),
    ("shuffled", "none"),
)


def demo(
    config: Config,
    *,
    arms: Sequence[str] = DEFAULT,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    jobs: int = 2,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Runs each of the arms for every priming seed; what is finished already is not repeated.

    Leaves in `run.output`: `base/`, `primed/` (the first seed's meta-primed encoder), `metrics.jsonl` of its priming,
    `results.json` and `table.md`.

    Args:
        config: what the arms are overrides of.
        arms: names in ARMS.
        seeds: of priming.
        jobs: processes at a time.
        overwrite: whether what is in `run.output` is replaced.
        quiet: whether to show neither progress nor tables.

    Returns:
        The content of `results.json`.

    Raises:
        MetaprimeError: bad config; an output directory that holds another run; a cell that failed, after all others.

    Example:
        >>> config = metaprime.override(config, f"run.output={folder / 'demo'}")
        >>> results = metaprime.demo(config, arms=["none"], seeds=[0], jobs=1, quiet=True)
        >>> len(results["records"]), results["failed"]
        (1, [])
    """
    if len(config.transfer.shots) != 1:
        raise MetaprimeError(f"transfer.shots {list(config.transfer.shots)}: the demonstration is for one K")
    if unknown := [name for name in arms if name not in ARMS]:
        raise MetaprimeError(f"--arms: {unknown[0]!r} is unknown (known: {', '.join(ARMS)})")
    chosen = tuple(ARMS[name] for name in arms)
    pairs = tuple(pair for pair in CONTRASTS if set(pair) <= set(arms))
    plan = make_plan(SuiteSection(name="demo", arms=chosen, contrasts=pairs, seeds=tuple(seeds)), config, "demo")
    claim = Claim(*config.recorded())
    check_output(claim, resume=not overwrite, overwrite=overwrite)
    output = claim.output
    with Stopping(None, "the same command goes on with the demonstration"), locked(output):
        # The embedded one is pre-trained here, once; a bad one is refused here.
        encoder = open_encoder(config.encoder, output, config.run.threads)
        open_output(claim, overwrite)
        with workers(jobs) as pool:
            results = carry_out(plan, output, encoder, pool, quiet)
        if folder := results["primings"].get(PUT_FIRST, {}).get(str(seeds[0])):
            shutil.rmtree(output / PRIMED, ignore_errors=True)
            shutil.copytree(output / folder / PRIMED, output / PRIMED)
            shutil.copy(output / folder / METRICS_FILE, output / METRICS_FILE)
    if failed := results["failed"]:
        raise MetaprimeError("\n".join(f"arm {one['arm']}, seed {one['seed']}: {one['error']}" for one in failed))
    return results
