"""Defines the command-line interface. Commands import heavy packages themselves, so that `--help` is fast.

Exit codes: 0 success; 1 failed checks or cells; 2 a mistake of the user (a message on stderr without
a traceback); 75 stopped by `--max-time`; 128 + the signal's number:
stopped by SIGHUP (129), SIGINT (130), SIGUSR1 (138), SIGUSR2 (140) or SIGTERM (143).
"""

from __future__ import annotations

import gc
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaprime.cli import inspect
from metaprime.cli.options import (
    Code,
    ConfigFile,
    MaxTime,
    Overrides,
    Overwrite,
    Resume,
    TrustRemoteCode,
    check_folder,
    first_process,
    print_versions,
    read_config,
    say,
    without_file,
)
from metaprime.types import MetaprimeError

if TYPE_CHECKING:
    from metaprime.suite.spec import SuitePlan

GARBAGE = (100_000, 50, 100)
"""Thresholds of Python's search for garbage in cycles. At its own, 700 new objects, it takes a sixth of a start: most
objects come from imports and from reading a corpus, and stay."""

app = typer.Typer(
    help="Prime a multilingual encoder for parameter-efficient fine-tuning, then fine-tune and score it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=print_versions, is_eager=True, help="Show versions and exit.")
    ] = False,
) -> None:
    """Declares the options that stand before a command."""


@app.command()
def prime(
    config: ConfigFile,
    overrides: Overrides = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --resume: resume even if config, data, encoder or versions changed.")
    ] = False,
    max_time: MaxTime = None,
) -> None:
    """Train the encoder so that adapters fine-tune better on it; save it as a plain Hugging Face model."""
    from metaprime.preflight.early import Early
    from metaprime.runs.stopping import seconds_of

    loaded, seconds = read_config(config, overrides), seconds_of(max_time)
    Early(loaded).prime(resume, overwrite, force)
    from metaprime.priming.prime import prime as run

    encoder = run(loaded, resume=resume, overwrite=overwrite, force=force, max_seconds=seconds)
    say(f"primed encoder: {encoder.path}")


@app.command()
def transfer(
    config: ConfigFile,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    force: Annotated[
        bool, typer.Option("--force", help="Keep finished cells even if settings, data, encoder or versions changed.")
    ] = False,
    max_time: MaxTime = None,
) -> None:
    """Fine-tune the frozen encoder on K sentences of each target language and score it on the test split."""
    from metaprime.config.loading import load_config
    from metaprime.preflight.early import Early
    from metaprime.runs.stopping import seconds_of

    # The defaults are another task than that which primed: a transfer needs the run's own file.
    loaded, seconds = load_config(config, overrides or []), seconds_of(max_time)
    Early(loaded).transfer()
    from rich.console import Console

    from metaprime.reports.wording import beside_trivial, terminal, transfer_table
    from metaprime.tasks import task_kind
    from metaprime.transfers.transfer import transfer as run

    results = run(loaded, overwrite=overwrite, force=force, max_seconds=seconds)
    if first_process():
        kind = task_kind(loaded.task)
        header, rows = transfer_table([result.record for result in results], kind.listed)
        Console().print(terminal(f"{loaded.transfer.encoder}: {kind.metric.label}", header, rows))
        records = [result.record for result in results]
        for line in beside_trivial(records, kind, [record["cell"]["method"] for record in records]):
            say(line)
        say(f"records: {Path(loaded.run.output) / 'transfer'}")


@app.command()
def predict(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a transfer cell or of a primed encoder.")],
    text: Annotated[str, typer.Argument(metavar="TEXT|FILE|-", help="One sentence, a file, or - for standard input.")],
    tokens: Annotated[
        bool, typer.Option("--tokens", help="The text is cut into words: cut it at white space alone.")
    ] = False,
    form: Annotated[
        str | None,
        typer.Option(
            "--format", help="Form of a file: text (a sentence on each line), conll or jsonl.", show_default=False
        ),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    code: Code = None,
) -> None:
    """Predict sentences. Of text, tagging prints `word<TAB>tag`; CoNLL gets a column, JSON lines a key `predicted`."""
    from metaprime.config.code import load_code
    from metaprime.runs.artifact import check_artifact, check_card
    from metaprime.transfers.predict import check_predicts, load
    from metaprime.transfers.texts import read_input

    check_card(folder)
    load_code(code or [])
    check_predicts(folder)
    given = read_input(text, form, tokens, check_artifact(folder).task)
    for line in given.written(load(folder, trust_remote_code).predict(given.sentences, given.places)):
        typer.echo(line)


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a transfer cell or of a primed encoder.")],
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Corpus, a URI such as conll:DIR.")],
    languages: Annotated[list[str], typer.Argument(metavar="LANGUAGE...", help="Languages of the corpus.")],
    split: Annotated[str, typer.Option(help="Split of each language to score.")] = "test",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout and nothing else.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Score a saved model on labelled sentences of any language, without training."""
    import json

    from metaprime.data.sources import check_split
    from metaprime.transfers.predict import check_predicts, load

    check_predicts(folder)
    # What the corpus lacks is refused before the model is loaded.
    for language in languages:
        check_split(source, language, split)
    from rich.console import Console

    from metaprime.reports.wording import terminal

    predictor = load(folder, trust_remote_code)
    scores = predictor.scores(source, languages, split)
    if as_json:
        typer.echo(json.dumps({name: found.details for name, found in scores.items()}, ensure_ascii=False, indent=2))
        return
    metrics = predictor.task.kind.listed
    header = ("language", *(metric.heading or metric.label for metric in metrics))
    rows = [[name, *(f"{metric.of(found.details):.1f}" for metric in metrics)] for name, found in scores.items()]
    Console().print(terminal(f"{folder.name} on {source}, {split}", header, rows))


@app.command()
def demo(
    config: Annotated[str | None, typer.Argument(metavar="[CONFIG.yaml]", show_default=False)] = None,
    overrides: Overrides = None,
    arms: Annotated[str, typer.Option(help="Arms, separated by commas, or `all`.")] = "none,multitask,shuffled,meta",
    seeds: Annotated[str, typer.Option(help="Seeds of priming: FIRST-LAST or one number.")] = "0-4",
    jobs: Annotated[int, typer.Option(help="Number of processes that run in parallel.", min=1)] = 2,
    overwrite: Overwrite = False,
) -> None:
    """Compare no priming with three ways of priming on synthetic languages; transfer to unseen languages; print a table."""
    from metaprime.build.kind import kinds_of
    from metaprime.config.loading import load_config
    from metaprime.suite.demo import ARMS, Demonstration
    from metaprime.suite.demo import demo as run
    from metaprime.suite.recorded import SHORTENED

    file, changes = without_file(config, overrides or [])
    loaded, numbers = load_config(file, changes if file else [*SHORTENED, *changes]), _seeds(seeds)
    chosen = list(ARMS) if arms == "all" else arms.split(",")
    asked = Demonstration(loaded.at_rates(*kinds_of(loaded.encoder, loaded.transfer)), tuple(chosen), numbers)
    plan = asked.plan()
    asked.claim(overwrite)
    _check_arms(plan)
    run(loaded, arms=chosen, seeds=numbers, jobs=jobs, overwrite=overwrite)


@app.command()
def ablate(
    suite: Annotated[Path, typer.Argument(metavar="SUITE.yaml", show_default=False)],
    overrides: Overrides = None,
    setting: Annotated[
        str | None, typer.Option(help="Name of one of the suite's settings; default: the first.", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run and for how long; run nothing.")
    ] = False,
    jobs: Annotated[int, typer.Option(help="Number of processes that run in parallel.", min=1)] = 2,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the record of another suite of this name; keep finished cells.")
    ] = False,
) -> None:
    """Run a suite: prime each arm with each seed, transfer, compare. Exit code 1: some cells failed, all others are done."""
    from metaprime.runs.folder import check_writable
    from metaprime.suite.record import check_suite
    from metaprime.suite.spec import read_plan

    changes = overrides or []
    # A mistake in the suite is refused before the packages that carry it out are loaded.
    plan = read_plan(suite, changes, setting)
    check_suite(plan, check_writable(plan.base.output) / plan.name, overwrite)
    _check_arms(plan)
    from metaprime.suite.ablate import ablate as run
    from metaprime.suite.forecast import forecast

    if dry_run:
        for line in forecast(suite, changes, setting=setting, jobs=jobs, overwrite=overwrite).lines(jobs):
            typer.echo(line)
        return
    results = run(suite, changes, setting=setting, jobs=jobs, overwrite=overwrite)
    say(f"results: {Path(results['config']['run']['output']) / results['name']}")
    for failure in results["failed"]:
        typer.echo(f"failed: arm {failure['arm']}, seed {failure['seed']}: {failure['error']}", err=True)
    raise typer.Exit(1 if results["failed"] else 0)


@app.command()
def report(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Output folder of `ablate`, `demo`, `prime` or `transfer`, or one above."),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: DIR.", show_default=False)] = None,
    code: Code = None,
) -> None:
    """Write report.html, .md, .tex and .csv of a suite or of plain runs: scores, contrasts, curves, errors, missing cells."""
    check_folder(folder, "give the run.output of a command")
    from metaprime.config.code import load_code

    load_code(code or [])
    from metaprime.reports.write import report as run

    for file in run(folder, out):
        say(str(file))


app.command()(inspect.doctor)
app.command()(inspect.validate)
app.command()(inspect.estimate)
app.add_typer(inspect.data, name="data")
app.add_typer(inspect.peft, name="peft")


def main() -> None:
    """Runs the command; a MetaprimeError becomes a message and exit code 2.

    Example: the console script `metaprime` and `python -m metaprime` both call `main()`.
    """
    # The processes of a launch have the same warnings: only the first one logs them.
    level = logging.WARNING if first_process() else logging.ERROR
    logging.basicConfig(format="notice: %(message)s", level=level, stream=sys.stderr)
    gc.set_threshold(*GARBAGE)
    try:
        app(standalone_mode=True)
    except MetaprimeError as error:
        for line in str(error).splitlines():
            typer.echo(f"error: {line}", err=True)
        _end(2)
    except SystemExit as stop:
        _end(stop.code)


def _end(code: int | str | None) -> None:
    """Exits, after closing torch's process group, which would abort at the interpreter's exit."""
    if "torch.distributed" in sys.modules:
        import torch.distributed

        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    sys.exit(code)


def _check_arms(plan: SuitePlan) -> None:
    """Refuses a suite by what needs no encoder, before torch is loaded; one whose cells are finished is not checked."""
    from metaprime.preflight.early import Early
    from metaprime.suite.early import refuse_arms

    refuse_arms(plan, lambda arm: Early(arm.target.config).arm(Early(arm.primer.config) if arm.primer else None))


def _seeds(text: str) -> tuple[int, ...]:
    """Reads FIRST-LAST, or one number."""
    first, _, last = text.partition("-")
    try:
        seeds = tuple(range(int(first), int(last or first) + 1))
    except ValueError:
        seeds = ()
    if not seeds:
        raise MetaprimeError(f"--seeds {text!r} must read FIRST-LAST, for example 0-4")
    return seeds
