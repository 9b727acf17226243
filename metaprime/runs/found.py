"""Finds transfers and priming runs below a folder, whatever commands left them, and lists them as results.

These cells were not asked for together: an arm is an encoder or a priming run, and no cell is missing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metaprime.config.older import upgraded
from metaprime.files import LEFT
from metaprime.runs.folder import RUN_RECORD, TRANSFERS
from metaprime.runs.log import METRICS_FILE
from metaprime.runs.records import RECORD, Record, read_record
from metaprime.runs.results import RESULTS, Arm, Entry, Failure, Results
from metaprime.types import MetaprimeError

SHOWN_SETTINGS = ("learner.name", "peft.method", "outer.steps")
"""Keys of a priming run's config that its arm holds."""

FIRST_TASK = "tagging"
"""Task of records that are too old to name one."""


def find(folder: Path) -> Results:
    """Lists the transfers and priming runs in a folder and below it.

    Args:
        folder: a run's output folder, one of its folders of transfers, or a folder above several.

    Returns:
        The results, with `asked` False and paths relative to `folder`. Records of a rarer task than the
        commonest one, and damaged records, are among `failed`.

    Raises:
        MetaprimeError: there is nothing; the message says what was looked for.

    Example:
        results = find(Path("runs/smoke"))
    """
    failed: list[Failure] = []
    records = dict(_records(folder, failed))
    primings = dict(_primings(folder, failed))
    if not (records or primings or failed):
        raise MetaprimeError(_nothing(folder))

    # Scores of several tasks have no common table: the commonest task is shown.
    tasks = Counter(map(_task, records.values()))
    task = tasks.most_common(1)[0][0] if tasks else FIRST_TASK
    others = [entry for entry, record in records.items() if _task(record) != task]
    failed += [Failure(arm=entry.arm, seed=entry.seed, error=_other_task(folder / entry.path)) for entry in others]
    shown = {entry: record for entry, record in records.items() if _task(record) == task}

    arms = {name: arm for name, (arm, _) in primings.items()}
    arms |= {name: Arm(title=name) for name in sorted({entry.arm for entry in shown} - arms.keys())}
    return Results(
        name=folder.resolve().name,
        seeds=tuple(sorted({entry.seed for entry in shown})),
        versions=_versions(shown.values()),
        task=task,
        methods=tuple(sorted({entry.method for entry in shown})),
        languages=tuple(sorted({entry.language for entry in shown})),
        shots=tuple(sorted({entry.shots for entry in shown})),
        arms=arms,
        records=tuple(shown),
        primings={name: runs for name, (_, runs) in primings.items() if runs},
        failed=tuple(failed),
        asked=False,
    )


def suites_below(folder: Path) -> list[Path]:
    """Lists the folders below a folder that hold results of a suite: `suites_below(Path("runs"))`."""
    return [file.parent for file in _files(folder, RESULTS) if file.parent != folder]


def _files(folder: Path, name: str) -> list[Path]:
    """Lists the files of a name in a folder and below it, without those that a killed process left."""
    found = sorted(folder.rglob(name))
    return [file for file in found if not any(map(LEFT.fullmatch, file.relative_to(folder).parts))]


def _records(folder: Path, failed: list[Failure]) -> Iterator[tuple[Entry, Record]]:
    """Yields each transfer with its record; adds those that cannot be read to `failed`."""
    for file in _files(folder, RECORD):
        path = file.relative_to(folder)
        encoder = "/".join(part for part in path.parts[:-2] if part != TRANSFERS)
        try:
            record = read_record(file)
            cell = record["cell"]
            values = {key: cell[key] for key in ("language", "method", "shots")}
            arm = encoder or cell.get("encoder") or "encoder"
            entry = Entry(arm=arm, seed=cell["transfer_seed"], path=path.as_posix(), **values)
            yield entry, record
        except MetaprimeError as error:
            failed.append(Failure(arm=encoder, error=str(error)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            failed.append(Failure(arm=encoder, error=f"record {file} is no transfer's ({error!r}): remove it"))


def _primings(folder: Path, failed: list[Failure]) -> Iterator[tuple[str, tuple[Arm, dict[int, str]]]]:
    """Yields name, arm, and seed -> path of each priming run, none before its first line of metrics."""
    owned = {file.parent for name in (RUN_RECORD, METRICS_FILE) for file in _files(folder, name)}
    for run in sorted(owned):
        # The demonstration's folder has copies of one of its runs.
        if (run / RESULTS).is_file():
            continue
        path = run.relative_to(folder).as_posix()
        name = folder.resolve().name if path == "." else path
        try:
            config = upgraded(json.loads((run / RUN_RECORD).read_text(encoding="utf-8"))["config"])
            seed = int(config["run"]["seed"])
            settings = {key: config[key.split(".")[0]][key.split(".")[1]] for key in SHOWN_SETTINGS}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            failed.append(Failure(arm=name, error=f"{run / RUN_RECORD} cannot be read ({error!r})"))
            continue
        metrics = {seed: path} if (run / METRICS_FILE).is_file() else {}
        yield name, (Arm(title=name, set=settings, priming=path), metrics)


def _task(record: Record) -> str:
    """Returns the name of a record's task."""
    task: dict[str, Any] = upgraded(record.get("config", {})).get("task", {})
    return str(task.get("name", FIRST_TASK))


def _other_task(file: Path) -> str:
    """Returns the message about a record whose task is not the one shown."""
    return f"record {file} is of another task than most here: metaprime report {file.parent.parent} shows it"


def _versions(records: Any) -> dict[str, str]:
    """Returns package -> its versions in all records."""
    seen: dict[str, set[str]] = {}
    for record in records:
        for name, version in record.get("versions", {}).items():
            seen.setdefault(name, set()).add(str(version))
    return {name: ", ".join(sorted(versions)) for name, versions in seen.items()}


def _nothing(folder: Path) -> str:
    """Returns the message about a folder without anything."""
    if not folder.is_dir():
        return f"{folder} is no folder: give the run.output of a command"
    return (
        f"{folder} holds nothing to report: neither in it nor below it are {RESULTS} (of `metaprime ablate` or `metaprime "
        f"demo`), {RECORD} (of `metaprime transfer`) or {RUN_RECORD} (of `metaprime prime`): give the run.output of a command"
    )
