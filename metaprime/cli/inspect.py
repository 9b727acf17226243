"""Defines the commands that examine something before a run: doctor, estimate, data and peft."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaprime.cli.options import Code, ConfigFile, Overrides, TrustRemoteCode, read_config, say
from metaprime.types import MetaprimeError


def doctor(
    config: ConfigFile,
    overrides: Overrides = None,
    gradients: Annotated[
        bool,
        typer.Option("--gradients", help="Check meta-gradients by central differences, torch.optim and learn2learn."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout and nothing else.")] = False,
) -> None:
    """Check the gradients of a config on its own encoder and a few of its sentences. Exit code 1: a check failed."""
    import json

    from metaprime.preflight.early import Early

    if not gradients:
        raise MetaprimeError("metaprime doctor: nothing to examine: add --gradients")
    loaded = read_config(config, overrides)
    Early(loaded).priming(validates=False)
    from metaprime.preflight.gradients import examine_gradients

    report = examine_gradients(loaded)
    if as_json:
        typer.echo(json.dumps(report.as_json(), ensure_ascii=False, indent=2))
    else:
        from rich.console import Console

        from metaprime.reports.wording import terminal

        Console().print(terminal(f"gradients of {report.learner}", report.header, report.rows()))
        for line in (report.encoder, report.setting, report.precision):
            typer.echo(line)
    raise typer.Exit(0 if report.passed else 1)


def validate(config: ConfigFile, overrides: Overrides = None) -> None:
    """Make every check that prime and transfer would make, and train nothing. Exit code 2: they would refuse the config."""
    from metaprime.preflight.early import Early

    loaded = read_config(config, overrides)
    refused = Early(loaded).refusals()
    if not refused:
        from metaprime.preflight.dry_run import DryRun

        refused = DryRun(loaded).refusals()
    if refused:
        raise MetaprimeError("\n".join(refused))
    say("prime and transfer would begin; `metaprime estimate` measures time and memory")


def estimate(
    config: ConfigFile,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout and nothing else.")] = False,
) -> None:
    """Estimate time and memory of priming from a few meta-steps; nothing is kept but an embedded encoder."""
    import json

    from metaprime.preflight.early import Early

    loaded = read_config(config, overrides)
    Early(loaded).priming()
    from metaprime.preflight.cost import estimate as run

    needs = run(loaded)
    for line in [json.dumps(needs.as_json(), indent=2)] if as_json else needs.lines():
        say(line)


data = typer.Typer(help="Examine corpora before a run.", no_args_is_help=True)


@data.command()
def check(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A URI such as conll:DIR, or a CONFIG.yaml.")],
    overrides: Overrides = None,
    encoder: Annotated[str | None, typer.Option(help="Folder or hub id of an encoder: count its sub-words.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout and nothing else.")] = False,
) -> None:
    """Count and compare all splits of a source, or those that a config reads. Exit code 1: there are problems."""
    import json

    from metaprime.preflight.corpus import check_data

    report = check_data(source, overrides or [], encoder=encoder, progress=lambda line: typer.echo(line, err=True))
    if as_json:
        typer.echo(json.dumps(report.as_json(), ensure_ascii=False, indent=2))
    else:
        from rich.console import Console

        from metaprime.reports.wording import terminal

        Console().print(terminal(source, report.header, report.rows()))
        for line in report.lines():
            typer.echo(line)
    raise typer.Exit(0 if report.clean else 1)


peft = typer.Typer(help="Examine the methods of parameter-efficient fine-tuning.", no_args_is_help=True)


@peft.command("list")
def list_methods(
    encoder: Annotated[str | None, typer.Option(help="Folder or hub id of an encoder: count parameters on it.")] = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array on stdout and nothing else.")] = False,
) -> None:
    """List all methods: name, formula, source; with an encoder, the parameters trained, stored and in the head."""
    import json

    from metaprime.models.folder import refuse_bad_encoder

    if encoder:
        refuse_bad_encoder(encoder)
    from metaprime.preflight.methods import COUNTS, METHOD_HEADER, list_rows

    header, rows = (*METHOD_HEADER, *(COUNTS if encoder else ())), list_rows(encoder, trust_remote_code)
    if as_json:
        named = [dict(zip(header, row, strict=True)) for row in rows]
        typer.echo(json.dumps(named, ensure_ascii=False, indent=2))
        return
    from rich.console import Console

    from metaprime.reports.wording import terminal

    # The reason is that of the encoder, one line below the table.
    reasons = {row[-1] for row in rows if row[-1].startswith("padded: ")} if encoder else set()
    short = [[*row[:-1], row[-1].split(":")[0]] for row in rows] if encoder else rows
    Console().print(terminal("", header, short, left=len(METHOD_HEADER)))
    for reason in sorted(reasons):
        typer.echo(f"batches {reason}")


@peft.command("show")
def show_method(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a method in `metaprime peft list`.")],
    overrides: Overrides = None,
    encoder: Annotated[str, typer.Option(help="Folder or hub id of an encoder.", show_default=False)] = "",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Show the places of a method's modules in an encoder, after a self-check that each is called and trained."""
    from metaprime.config.loading import load_config
    from metaprime.models.folder import refuse_bad_encoder

    if not encoder:
        raise MetaprimeError("metaprime peft show: the encoder is missing: add --encoder DIR")
    keys = [f"encoder.name={encoder}", f"encoder.trust_remote_code={trust_remote_code}"]
    loaded = load_config(None, [*keys, f"peft.method={name}", *(overrides or [])])
    refuse_bad_encoder(encoder)
    from rich.console import Console

    from metaprime.preflight.methods import show
    from metaprime.reports.wording import terminal

    size, modules = show(loaded)
    rows = [
        [module.path, module.site, " ".join(f"{part} {tuple(shape)}" for part, shape in module.shapes.items())]
        for module in modules
    ]
    Console().print(terminal("", ("module", "called by", "parameters"), rows, left=3))
    typer.echo(f"{size.trained:,} parameters trained, {size.stored:,} stored, and {size.head:,} of the head")
    typer.echo("self-check passed: every module called once by its site, every parameter reached by a gradient")


@peft.command("export")
def export_method(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a transfer cell.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; it must not exist.")],
    form: Annotated[
        str, typer.Option("--format", help="Format of the files: peft, adapterhub or transformers.")
    ] = "peft",
    trust_remote_code: TrustRemoteCode = False,
    code: Code = None,
) -> None:
    """Write a tuned model for other packages: Hugging Face's peft, AdapterHub, or transformers alone, as an ordinary token
    classifier with the adapter merged into its weights. docs/methods.md lists which method has which format.
    """
    from metaprime.config.code import load_code
    from metaprime.runs.artifact import check_card
    from metaprime.transfers.export import export as run

    check_card(folder)
    load_code(code or [])
    say(f"exported for {form}: {run(folder, out, form, trust_remote_code)}")
