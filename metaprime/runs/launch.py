"""Refuses a launch whose processes found no group, so that each would do the whole run alone."""

from __future__ import annotations

import os

from metaprime.types import MetaprimeError


def check_launch(processes: int) -> None:
    """Validates that this process sees all those that it was launched with. Writes nothing.

    Args:
        processes: number of processes in the group of this one, `Accelerator().num_processes`.

    Raises:
        MetaprimeError: the launcher's variables name more processes than the group has.

    Example: `check_launch(Accelerator().num_processes)`
    """
    variable, launched = _launched()
    if launched > processes:
        raise MetaprimeError(
            f"{variable} says that {launched} processes were launched, but this one is in a group of {processes}, and each would "
            "do the whole run: on a CPU set ACCELERATE_USE_CPU=1 for torchrun, or for accelerate launch --multi_gpu (--cpu "
            f"starts one process); for runs that are independent, unset {variable}"
        )


def check_no_launch() -> None:
    """Validates that a command which starts its own processes was not launched in several.

    Raises:
        MetaprimeError: a launcher started more than one process.

    Example: `check_no_launch()`
    """
    variable, launched = _launched()
    if launched > 1:
        raise MetaprimeError(
            f"{variable} says that {launched} processes were launched, but a suite starts its own: run it without a launcher and "
            f"set their number with --jobs; for suites that are independent, unset {variable}"
        )


def _launched() -> tuple[str, int]:
    """Returns the variable that tells how many processes were launched, and their number; 1 without one."""
    # A batch script has SLURM_NTASKS too, with one process: only a step that `srun` starts has its own number.
    for variable in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        text = os.environ.get(variable, "")
        if text.isdecimal() and int(text) > 1:
            return variable, int(text)
    return "", 1
