"""The embedded demonstration: does priming help, and is it the meta-learning that helps? On synthetic languages.

Arms differ by overrides of one config. Downstream learning rates are chosen per arm and method on held-out languages;
the target languages are looked at once, at the end. The replicate is the priming seed.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console

from metaprime.config import Config, override
from metaprime.evaluation.records import Record, by_seed, select
from metaprime.evaluation.statistics import Interval, paired_contrast, t_interval
from metaprime.evaluation.tables import markdown, spread, terminal, with_interval
from metaprime.files import write_json
from metaprime.loops.assemble import open_encoder
from metaprime.loops.build import build_task
from metaprime.loops.lock import locked
from metaprime.loops.metrics_log import Display
from metaprime.loops.prime import prime
from metaprime.loops.run_directory import check_output, open_output, versions
from metaprime.loops.transfer import choose_rates, open_source, transfer
from metaprime.types import MetaprimeError


@dataclass(frozen=True)
class Arm:
    """One way to prepare the encoder: which priming run (none: the base encoder), and how transfer starts from it."""

    title: str
    priming: str | None
    transfer: tuple[str, ...] = ()


@dataclass(frozen=True)
class Priming:
    """One way to prime: overrides of the config, and the outer rate as a multiple of the config's."""

    changes: tuple[str, ...] = ()
    rate: float = 1.0


PRIMINGS = {
    "multitask": Priming(("learner.name=multitask",), rate=0.5),
    "meta": Priming(),
    "shuffled": Priming(("data.shuffle_tags=true",)),
}
"""Priming runs by name: same episodes, same number of sentence passes at most, each stopped where the held-out languages
are served best. Ordinary training wants a smaller outer rate than meta-training: half did best, for both on the synthetic
languages qae, qaj and qas, which appear in no table.
"""

SHOWN = "meta"
"""The priming run whose encoder, that of the first seed, is put at `primed/`."""

PRIMED_START = ("transfer.start_adapter=primed", "transfer.start_head=primed")
ARMS: dict[str, Arm] = {
    "none": Arm("no priming", None),
    "multitask": Arm("multi-task full fine-tuning", "multitask"),
    "multitask_start": Arm("multi-task, its head kept", "multitask", ("transfer.start_head=primed",)),
    "shuffled": Arm("meta-priming on shuffled tags", "shuffled"),
    "meta": Arm("meta-priming", "meta"),
    "meta_start": Arm("meta-priming, its adapter and head kept", "meta", PRIMED_START),
}
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
    arms: Sequence[str] = tuple(ARMS),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    jobs: int = 2,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Runs every arm for every priming seed, `jobs` processes at a time; what is finished already is not repeated.

    Leaves in `run.output`: `base/`, `primed/` (the first seed's meta-primed encoder), `metrics.jsonl` of its priming,
    `results.json` and `table.md`. Returns the content of `results.json`.

    Raises:
        MetaprimeError: bad config; an output directory that holds another run.
    """
    if len(config.transfer.shots) != 1:
        raise MetaprimeError(f"transfer.shots {list(config.transfer.shots)}: the demonstration is for one K")
    if unknown := [name for name in arms if name not in ARMS]:
        raise MetaprimeError(f"--arms: {unknown[0]!r} is unknown (known: {', '.join(ARMS)})")
    check_output(config, resume=not overwrite, overwrite=overwrite)
    with locked(Path(config.run.output)):
        encoder = open_encoder(config)  # the embedded one is pre-trained here, once; a bad one is refused here
        open_output(config, resume=not overwrite, overwrite=overwrite)
        config = override(config, f"encoder.name={json.dumps(encoder.name)}")
        context = multiprocessing.get_context("spawn")  # fresh processes: each gets one thread, none inherits a lock
        with ProcessPoolExecutor(jobs, mp_context=context) as pool:
            return _run(config, arms, seeds, pool)


def _run(config: Config, arms: Sequence[str], seeds: Sequence[int], pool: Executor) -> dict[str, Any]:
    """Prime, choose rates, transfer, sum up."""
    output = Path(config.run.output)
    wanted = [name for name in PRIMINGS if any(ARMS[arm].priming == name for arm in arms)]
    primings = [(name, seed) for name in wanted for seed in seeds]
    _in_parallel("priming runs", pool, prime_one, [(config, *one) for one in primings])
    tuned = _in_parallel("downstream rates", pool, tune_one, [(config, arm, seeds[0]) for arm in arms])
    rates = dict(zip(arms, tuned, strict=True))
    cells = [(config, arm, seed, rates[arm]) for arm in arms for seed in seeds]
    records = [record for found in _in_parallel("transfers", pool, transfer_one, cells) for record in found]
    results = summary(config, records, rates, seeds)
    write_json(output / "results.json", results)
    table = report(results)
    (output / "table.md").write_text(table, encoding="utf-8")
    first = _priming_output(config, SHOWN, seeds[0])
    if SHOWN in wanted:
        shutil.rmtree(output / "primed", ignore_errors=True)
        shutil.copytree(first / "primed", output / "primed")
        shutil.copy(first / "metrics.jsonl", output / "metrics.jsonl")
    _show(results)
    return results


def prime_one(config: Config, priming: str, seed: int) -> None:
    """One priming run of one seed."""
    where = json.dumps(str(_priming_output(config, priming, seed)))
    prime(override(primed_by(config, priming), f"run.output={where}", f"run.seed={seed}"), resume=True, quiet=True)


def primed_by(config: Config, priming: str) -> Config:
    """The config of a priming run."""
    chosen = PRIMINGS[priming]
    return override(config, *chosen.changes, f"outer.lr={config.outer.lr * chosen.rate}")


def tune_one(config: Config, arm: str, seed: int) -> dict[str, float]:
    """The rate for each method of an arm, chosen on the held-out languages with one seed's encoder, once and for all."""
    torch.set_num_threads(1)
    file = Path(config.run.output) / "rates" / f"{arm}.json"
    if file.is_file():
        known: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
        return known
    settings = _transfer_config(config, arm, seed)
    source = open_source(settings)
    chosen = choose_rates(settings, source, build_task(settings, source.encoder), Accelerator().device)
    rates = {method: rate for (method, _), rate in chosen.items()}
    file.parent.mkdir(exist_ok=True)
    write_json(file, rates)
    return rates


def transfer_one(config: Config, arm: str, seed: int, rates: dict[str, float]) -> list[Record]:
    """All target languages and methods of one arm and one seed pair."""
    records = []
    for method, rate in rates.items():
        settings = override(_transfer_config(config, arm, seed), f"transfer.lr={rate}", f"transfer.methods=[{method}]")
        records += transfer(settings, quiet=True)
    for record in records:
        # Also where nothing was primed, replicates pair up by seed: same K sentences, same order.
        record["cell"] |= {"arm": arm, "priming_seed": seed}
    return records


def summary(
    config: Config, records: list[Record], rates: dict[str, dict[str, float]], seeds: Sequence[int]
) -> dict[str, Any]:
    """Means, deviations and contrasts out of the records, as JSON."""
    methods = config.transfer.methods
    arms: dict[str, Any] = {}
    for name in rates:
        arm = ARMS[name]
        arms[name] = {"title": arm.title, "rates": rates[name], "priming": _priming_facts(config, arm, seeds)}
        for method in methods:
            chosen = select(records, arm=name, method=method)
            arms[name][method] = {
                reading: _numbers(t_interval(list(by_seed(chosen, reading).values())))
                | {"seeds": by_seed(chosen, reading)}
                for reading in ("lenient", "strict")
            }
            arms[name][method]["languages"] = {
                language: _numbers(t_interval(list(by_seed(select(chosen, language=language)).values())))
                for language in config.data.target_languages
            }
    contrasts = {
        method: {
            f"{one} - {other}": _numbers(
                paired_contrast(
                    by_seed(select(records, arm=one, method=method)), by_seed(select(records, arm=other, method=method))
                )
            )
            for one, other in CONTRASTS
            if one in rates and other in rates
        }
        for method in methods
    }
    return {
        "command": shlex.join(["metaprime", *sys.argv[1:]]),
        "seeds": list(seeds),
        "config": config.model_dump(mode="json"),
        "versions": versions(),
        "arms": arms,
        "contrasts": contrasts,
    }


def report(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    arm_header, arm_rows, contrast_header, contrast_rows = _rows(results)
    data, shots = results["config"]["data"], results["config"]["transfer"]["shots"][0]
    facts = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return (
        f"Entity F1 (lenient, micro), mean of {', '.join(data['target_languages'])} after K = {shots} sentences each; mean ± "
        f"standard deviation over {len(results['seeds'])} priming seeds. Sentence passes are those up to the stopping point "
        f"of those allowed.\n\n{markdown(arm_header, arm_rows)}\n"
        f"Differences, paired by seed, with 95 % t-intervals over priming seeds:\n\n"
        f"{markdown(contrast_header, contrast_rows)}\n"
        f"Written by `{results['command']}`, seeds {', '.join(map(str, results['seeds']))}; {facts}.\n"
    )


def _rows(results: dict[str, Any]) -> tuple[list[str], list[list[str]], list[str], list[list[str]]]:
    methods = list(results["contrasts"])
    arm_rows = []
    for arm in results["arms"].values():
        facts = arm["priming"]
        passes = f"{facts['sentence_passes_chosen']:,.0f} of {facts['sentence_passes']:,}" if facts else "0"
        seconds = f"{facts['seconds']:.0f}" if facts else "0"
        arm_rows.append([arm["title"], *(spread(_interval(arm[m]["lenient"])) for m in methods), passes, seconds])
    contrast_rows = [
        [pair, *(with_interval(_interval(results["contrasts"][method][pair])) for method in methods)]
        for pair in results["contrasts"][methods[0]]
    ]
    names = [METHOD_TITLES.get(method, method) for method in methods]
    return ["priming", *names, "sentence passes", "seconds"], arm_rows, ["difference", *names], contrast_rows


METHOD_TITLES = {"pfeiffer": "AT", "head": "HT", "full": "FT"}


def _show(results: dict[str, Any]) -> None:
    arm_header, arm_rows, contrast_header, contrast_rows = _rows(results)
    console = Console()
    console.print(terminal("entity F1, mean ± deviation over priming seeds", arm_header, arm_rows))
    console.print(terminal("paired differences, 95 % t-intervals", contrast_header, contrast_rows))


def _priming_facts(config: Config, arm: Arm, seeds: Sequence[int]) -> dict[str, Any] | None:
    """What priming cost, up to its chosen stopping point and in all; means over seeds."""
    if arm.priming is None:
        return None
    primed = primed_by(config, arm.priming)
    shape = primed.episodes
    per_step = shape.per_step * (shape.support * primed.inner.steps + shape.query)
    chosen, seconds = [], []
    for seed in seeds:
        folder = _priming_output(config, arm.priming, seed)
        provenance = json.loads((folder / "primed" / "metaprime.json").read_text(encoding="utf-8"))["provenance"]
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        chosen.append(provenance["steps"])
        seconds.append(sum(json.loads(line).get("volatile", {"seconds": 0.0})["seconds"] for line in lines))
    return {
        "sentence_passes": per_step * primed.outer.steps,
        "sentence_passes_chosen": per_step * sum(chosen) / len(chosen),
        "steps_chosen": chosen,
        "seconds": sum(seconds) / len(seconds),
    }


def _priming_output(config: Config, priming: str, seed: int) -> Path:
    return Path(config.run.output) / "priming" / priming / f"seed{seed}"


def _transfer_config(config: Config, arm: str, seed: int) -> Config:
    output = Path(config.run.output)
    priming = ARMS[arm].priming
    encoder = str(_priming_output(config, priming, seed) / "primed") if priming else config.encoder.name
    where = json.dumps(str(output / "transfer" / arm / f"seed{seed}"))
    changes = (f"run.output={where}", f"transfer.encoder={json.dumps(encoder)}", f"transfer.seeds=[{seed}]")
    return override(config, *ARMS[arm].transfer, *changes)


def _numbers(interval: Interval) -> dict[str, float | None]:
    """As JSON, which knows no nan."""
    return {name: None if math.isnan(value) else value for name, value in asdict(interval).items()}


def _interval(numbers: dict[str, Any]) -> Interval:
    values: list[Any] = [math.nan if numbers[field.name] is None else numbers[field.name] for field in fields(Interval)]
    return Interval(*values)


def _in_parallel(title: str, pool: Executor, work: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Results in the order of the calls. The first failure, or an interruption, ends what has not begun."""
    futures = [pool.submit(work, *call) for call in calls]
    try:
        with Display(title, len(futures), True) as display:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                display.show(done, "")
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    return [future.result() for future in futures]
