"""The command line. Heavy imports stand inside the commands, so that `--help` answers at once.

Exit codes: 0 done; 2 a mistake the user can mend (one message on stderr, no traceback); 143 and 130 stopped in order by
SIGTERM and SIGINT; 75 stopped in order because the time of `--max-time` was up.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from metaprime.types import MetaprimeError

app = typer.Typer(
    help="Prime a multilingual encoder for parameter-efficient fine-tuning, then fine-tune and score it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value ...]", help="For example inner.steps=1 outer.lr=5e-5")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in run.output.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what run.output holds.")]
MaxTime = Annotated[
    str | None,
    typer.Option(
        "--max-time",
        metavar="MINUTES",
        show_default=False,
        help="Stop in order within so many minutes (or 90m, 2h, 1h30m) and end with exit code 75, as SIGTERM (143) does.",
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run Python files that come with the encoder: only those you have read."),
]


@app.command()
def prime(
    config: ConfigFile,
    overrides: Overrides = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --resume: although config, data, encoder or versions changed.")
    ] = False,
    max_time: MaxTime = None,
) -> None:
    """Move the backbone so that fine-tuning adapters on it works better; save it as a plain Hugging Face model."""
    from metaprime.config import load_config
    from metaprime.loops.prime import prime as run
    from metaprime.loops.stopping import seconds_of

    loaded, seconds = load_config(config, overrides or []), seconds_of(max_time)
    folder = run(loaded, resume=resume, overwrite=overwrite, force=force, max_seconds=seconds)
    _say(f"primed encoder: {folder}")


@app.command()
def transfer(
    config: ConfigFile,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    force: Annotated[
        bool, typer.Option("--force", help="Keep finished cells although settings, data, encoder or versions changed.")
    ] = False,
    max_time: MaxTime = None,
) -> None:
    """Fine-tune the frozen encoder on K sentences of each target language and score it on the test split."""
    from rich.console import Console

    from metaprime.config import load_config
    from metaprime.evaluation.tables import TRANSFER_HEADER, terminal, transfer_rows
    from metaprime.loops.stopping import seconds_of
    from metaprime.loops.transfer import transfer as run

    loaded, seconds = load_config(config, overrides or []), seconds_of(max_time)
    records = run(loaded, overwrite=overwrite, force=force, max_seconds=seconds)
    if _first_process():
        Console().print(terminal(f"{loaded.transfer.encoder}: F1", TRANSFER_HEADER, transfer_rows(records)))
        _say(f"records: {Path(loaded.run.output) / 'transfer'}")


@app.command()
def predict(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A transfer cell's folder, or a primed folder.")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="One sentence.")],
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Tag one sentence: a line `word<TAB>tag` for each word."""
    from metaprime.loops.predict import predict as run

    for word, tag in run(folder, text, trust_remote_code):
        typer.echo(f"{word}\t{tag}")


@app.command()
def demo(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG.yaml]", show_default=False)] = None,
    overrides: Overrides = None,
    arms: Annotated[str, typer.Option(help="Arms, separated by commas, or `all`.")] = "none,multitask,shuffled,meta",
    seeds: Annotated[str, typer.Option(help="Priming seeds, FIRST-LAST.")] = "0-4",
    jobs: Annotated[int, typer.Option(help="Processes at once.", min=1)] = 2,
    overwrite: Overwrite = False,
) -> None:
    """Synthetic languages, no priming against three ways of priming, transfer to languages never primed on, a table."""
    from metaprime.config import load_config
    from metaprime.loops.demo import ARMS
    from metaprime.loops.demo import demo as run

    chosen = list(ARMS) if arms == "all" else arms.split(",")
    run(load_config(config, overrides or []), arms=chosen, seeds=_seeds(seeds), jobs=jobs, overwrite=overwrite)


@app.command()
def doctor(
    config: ConfigFile,
    overrides: Overrides = None,
    gradients: Annotated[
        bool, typer.Option("--gradients", help="Meta-gradients against differences, torch.optim, learn2learn.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout and nothing else.")] = False,
) -> None:
    """Prove the gradients of a config on its own encoder and a few of its sentences. Exit code 1: something is wrong."""
    import json

    from metaprime.config import load_config

    if not gradients:
        raise MetaprimeError("metaprime doctor: say what to examine: --gradients")
    from metaprime.loops.doctor import HEADER, examine_gradients, table_rows

    report = examine_gradients(load_config(config, overrides or []))
    if as_json:
        typer.echo(json.dumps(report.as_json(), ensure_ascii=False, indent=2))
    else:
        from rich.console import Console

        from metaprime.evaluation.tables import terminal

        Console().print(terminal(f"gradients of {report.learner}", HEADER, table_rows(report)))
        for line in (report.encoder, report.setting, report.precision):
            typer.echo(line)
    raise typer.Exit(0 if report.passed else 1)


@app.command()
def estimate(
    config: ConfigFile,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout and nothing else.")] = False,
) -> None:
    """Say what priming would take of time and memory here, from a few of its meta-steps; only an embedded encoder is kept."""
    import json

    from metaprime.config import load_config
    from metaprime.loops.estimate import estimate as run

    found = run(load_config(config, overrides or []))
    for line in [json.dumps(found.as_json(), indent=2)] if as_json else found.lines():
        _say(line)


@app.command()
def ablate(
    suite: Annotated[Path, typer.Argument(metavar="SUITE.yaml", show_default=False)],
    overrides: Overrides = None,
    setting: Annotated[
        str | None, typer.Option(help="One of the suite's settings; the first, if not given.", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, and for how long; run nothing.")
    ] = False,
    jobs: Annotated[int, typer.Option(help="Processes at once.", min=1)] = 2,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Although a suite of this name was begun otherwise. Cells are kept.")
    ] = False,
) -> None:
    """Run a suite of arms: prime each with each seed, transfer, compare. Exit code 1: cells failed, the others are done."""
    from metaprime.loops.ablate import ablate as run
    from metaprime.loops.forecast import forecast

    changes = overrides or []
    if dry_run:
        for line in forecast(suite, changes, setting=setting, jobs=jobs, overwrite=overwrite).lines(jobs):
            typer.echo(line)
        return
    results = run(suite, changes, setting=setting, jobs=jobs, overwrite=overwrite)
    _say(f"results: {Path(results['config']['run']['output']) / results['name']}")
    for failure in results["failed"]:
        typer.echo(f"failed: arm {failure['arm']}, seed {failure['seed']}: {failure['error']}", err=True)
    raise typer.Exit(1 if results["failed"] else 0)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `metaprime ablate` left: holds results.json.")],
    out: Annotated[Path | None, typer.Option(help="Where to write; DIR, if not given.", show_default=False)] = None,
) -> None:
    """Write a suite's report.html, .md, .tex and .csv: scores, contrasts, curves, errors, and what is missing."""
    from metaprime.evaluation.pages import write_report

    for file in write_report(folder, out):
        _say(str(file))


data = typer.Typer(help="Look at corpora before they are used.", no_args_is_help=True)
app.add_typer(data, name="data")


@data.command()
def check(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="For example conll:DIR, or a CONFIG.yaml.")],
    overrides: Overrides = None,
    encoder: Annotated[str | None, typer.Option(help="Folder or hub id whose tokenizer cuts the words.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout and nothing else.")] = False,
) -> None:
    """Count and compare every split of a source, or every split a config reads. Exit code 1: there are problems."""
    import json

    from metaprime.loops.check_data import HEADER, check_data, finding_lines, table_rows

    report = check_data(source, overrides or [], encoder=encoder)
    if as_json:
        typer.echo(json.dumps(report.as_json(), ensure_ascii=False, indent=2))
    else:
        from rich.console import Console

        from metaprime.evaluation.tables import terminal

        Console().print(terminal(source, HEADER, table_rows(report)))
        for line in finding_lines(report):
            typer.echo(line)
    raise typer.Exit(0 if report.clean else 1)


peft = typer.Typer(help="Look at the methods of parameter-efficient fine-tuning.", no_args_is_help=True)
app.add_typer(peft, name="peft")


@peft.command("list")
def list_methods(
    encoder: Annotated[str | None, typer.Option(help="Folder or hub id: count parameters on it.")] = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array on stdout and nothing else.")] = False,
) -> None:
    """Every method: name, formula, source; with an encoder, how many parameters it trains and stores, and the tag head's."""
    import json

    from metaprime.loops.methods import COUNTS, HEADER, list_rows

    header, rows = (*HEADER, *(COUNTS if encoder else ())), list_rows(encoder, trust_remote_code)
    if as_json:
        named = [dict(zip(header, row, strict=True)) for row in rows]
        typer.echo(json.dumps(named, ensure_ascii=False, indent=2))
        return
    from rich.console import Console

    from metaprime.evaluation.tables import terminal

    Console().print(terminal("", header, rows, left=len(HEADER)))


@peft.command("show")
def show_method(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A method of `metaprime peft list`.")],
    overrides: Overrides = None,
    encoder: Annotated[str, typer.Option(help="Folder or hub id.", show_default=False)] = "",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Where a method sits in an encoder: put in, self-checked, and each of its modules with the encoder's that calls it."""
    from rich.console import Console

    from metaprime.config import load_config
    from metaprime.evaluation.tables import terminal
    from metaprime.loops.methods import show

    if not encoder:
        raise MetaprimeError("metaprime peft show: say in which encoder: --encoder DIR")
    keys = [f"encoder.name={encoder}", f"encoder.trust_remote_code={trust_remote_code}", "learner.name=multitask"]
    size, modules = show(load_config(None, [*keys, f"peft.method={name}", *(overrides or [])]))
    rows = [[m.path, m.site, " ".join(f"{part} {tuple(shape)}" for part, shape in m.shapes.items())] for m in modules]
    Console().print(terminal("", ("module", "called by", "parameters"), rows, left=3))
    typer.echo(f"{size.trained:,} parameters trained, {size.stored:,} stored, and {size.head:,} of the tag head")
    typer.echo("self-check passed: every module called once by its site, every parameter reached by a gradient")


@peft.command("export")
def export_method(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A transfer cell's folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that does not exist.")],
    form: Annotated[str, typer.Option("--format", help="peft or adapterhub.")] = "peft",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Write adapter and head as others keep them: lora, ffn_lora, ia3 or prompt for Hugging Face's peft; houlsby, pfeiffer,
    parallel, scaled_parallel, prefix, lora, ffn_lora or mam for AdapterHub.
    """
    from metaprime.loops.export import export as run

    _say(f"adapter and head for {form}: {run(folder, out, form, trust_remote_code)}")


def main() -> None:
    """Entry point: runs the command, turns a user's mistake into a message and exit code 2."""
    level = logging.WARNING if _first_process() else logging.ERROR  # of a launch the first process speaks for all
    logging.basicConfig(format="notice: %(message)s", level=level, stream=sys.stderr)
    try:
        app(standalone_mode=True)
    except MetaprimeError as error:
        for line in str(error).splitlines():
            typer.echo(f"error: {line}", err=True)
        _end(2)
    except SystemExit as stop:
        _end(stop.code)


def _end(code: int | str | None) -> None:
    """Under `accelerate launch` the process group is closed first: left open, it aborts at interpreter exit."""
    if "torch.distributed" in sys.modules:
        import torch.distributed

        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    sys.exit(code)


def _first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _say(text: str) -> None:
    if _first_process():
        typer.echo(text)


def _seeds(text: str) -> tuple[int, ...]:
    first, _, last = text.partition("-")
    try:
        seeds = tuple(range(int(first), int(last or first) + 1))
    except ValueError:
        seeds = ()
    if not seeds:
        raise MetaprimeError(f"--seeds {text!r} must read FIRST-LAST, for example 0-4")
    return seeds
