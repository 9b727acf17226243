"""Where transfers start: the encoder, the model over it, and fresh or primed values of adapter and head."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toy_config import MakeConfig, Parts
from toy_transfers import elsewhere, transferred

from metaprime.config.loading import override
from metaprime.config.sections import Config, TransferConfig
from metaprime.models.encoder import load_encoder
from metaprime.peft import METHODS
from metaprime.priming.prime import prime
from metaprime.transfers import stacked
from metaprime.transfers import start as module
from metaprime.transfers.predict import predict
from metaprime.transfers.shots import set_aside
from metaprime.transfers.start import (
    KShotRun,
    Source,
    TransferContext,
    check_start,
    k_shot_run,
    make_context,
    open_source,
    start_values,
)
from metaprime.transfers.transfer import transfer
from metaprime.types import Batch, MetaprimeError, Params


def context_for(parts: Parts, method: str, settings: TransferConfig, primed: Params | None = None) -> TransferContext:
    """The context of a method over the toy encoder."""
    source = Source(load_encoder(parts.config.encoder.name), None)
    context = make_context(
        source, parts.task, METHODS[method].config(), settings, parts.rows[:8], parts.state.head["head.bias"].device
    )
    return replace(context, primed=primed or {})


def test_the_base_encoder_comes_without_adapter_and_head(parts: Parts, tmp_path: Path) -> None:
    config = parts.config
    source = open_source(config.encoder, TransferConfig(encoder="base"), tmp_path)
    assert source.encoder.weights == load_encoder(config.encoder.name).weights
    assert (source.artifact, source.primed, source.priming_seed) == (None, {}, None)
    # A folder that is named is read as a plain encoder if metaprime did not write it.
    named = open_source(config.encoder, TransferConfig(encoder=config.encoder.name), tmp_path)
    assert (named.artifact, named.encoder.weights) == (None, source.encoder.weights)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("named", [False, True])
def test_a_primed_encoder_comes_with_adapter_head_and_seed(primed_run: Config, tmp_path: Path, named: bool) -> None:
    output = Path(primed_run.run.output)
    folder = output / "primed"
    name, where = (str(folder), tmp_path) if named else ("primed", output)
    source = open_source(primed_run.encoder, TransferConfig(encoder=name), where)
    stored = load_file(folder / "metaprime.safetensors")
    assert source.primed.keys() == stored.keys()
    assert all(torch.equal(source.primed[name], value) for name, value in stored.items())
    assert source.priming_seed == primed_run.run.seed == 0
    assert source.encoder.weights == load_encoder(str(folder)).weights != load_encoder(primed_run.encoder.name).weights


@pytest.mark.parametrize("encoder", ["base", "primed"])
def test_every_encoder_is_read_in_the_precision_of_the_config(primed_run: Config, encoder: str) -> None:
    output, settings = Path(primed_run.run.output), TransferConfig(encoder=encoder)
    for precision in ("float32", "bfloat16"):
        section = primed_run.encoder.model_copy(update={"precision": precision})
        assert open_source(section, settings, output).encoder.autocast == (precision == "bfloat16")


def test_an_encoder_without_an_artifact_fits_every_fresh_start(parts: Parts) -> None:
    source = Source(load_encoder(parts.config.encoder.name), None)
    check_start(source, TransferConfig(), [METHODS[name].config() for name in ("lora", "full")], parts.task)


def test_a_context_works_on_a_copy_of_the_encoder(parts: Parts) -> None:
    source = Source(load_encoder(parts.config.encoder.name), None)
    before = {name: value.clone() for name, value in source.encoder.module.state_dict().items()}
    device = torch.device("cpu")
    for method, moves in (("full", True), ("head", False), ("lora", False)):
        settings = METHODS[method].config()
        context = make_context(source, parts.task, settings, TransferConfig(), parts.rows[:8], device)
        assert (context.moves_backbone, context.method, context.device) == (moves, settings, device)
        with torch.no_grad():
            for value in context.backbone.values():
                value.add_(1.0)
    assert all(torch.equal(value, before[name]) for name, value in source.encoder.module.state_dict().items())


@pytest.mark.parametrize("method", ["full", "pfeiffer"])
def test_a_run_starts_with_theta_only_if_the_method_moves_it(parts: Parts, method: str) -> None:
    context = context_for(parts, method, TransferConfig())
    run = k_shot_run(context, parts.rows[:8], 5, "qaf")
    assert (run.rows, run.seed, run.language) == (parts.rows[:8], 5, "qaf")
    values, drawn = run.start(), start_values(context, parts.rows[:8], 5, "qaf")
    assert values.keys() - drawn.keys() == (context.backbone.keys() if method == "full" else set())
    assert all(torch.equal(values[name], value) for name, value in drawn.items())
    assert all(values[name] is value for name, value in context.backbone.items() if name in values)


def test_a_sparse_adapter_is_selected_on_the_training_rows_alone(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TransferConfig(batch=4, stop="development", development_share=0.25)
    context = context_for(parts, "sam", settings)
    selecting: list[Batch] = []
    honest = module.backbone_gradients

    def watched(loss: Any, backbone: Params, values: Params, batches: list[Batch]) -> Any:
        selecting.extend(batches)
        return honest(loss, backbone, values, batches)

    monkeypatch.setattr(module, "backbone_gradients", watched)
    rows = parts.rows[:8]
    fresh = start_values(context, rows, 2, "qaa")
    train, aside = set_aside(rows, settings, 2, "qaa")
    assert (len(train), len(aside)) == (6, 2)
    expected = [context.task.collate(part)["input_ids"] for part in (train[:4], train[4:])]
    assert len(selecting) == 2
    assert all(torch.equal(batch["input_ids"], ids) for batch, ids in zip(selecting, expected, strict=True))
    # A primed adapter has its selection already.
    primed = {name: value.clone() for name, value in fresh.items()}
    selecting.clear()
    again = start_values(context_for(parts, "sam", TransferConfig(start_adapter="primed"), primed), rows, 3, "qaf")
    assert not selecting
    assert all(torch.equal(again[name], value) for name, value in primed.items() if name.startswith("adapter."))


def test_the_base_encoder_needs_no_priming(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", "transfer.encoder=base", "transfer.methods=[head]")
    (record,) = transferred(config)
    assert record["cell"]["encoder"] == "base"
    assert record["cell"]["priming_seed"] is None


def start_of(config: Config, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The values fine-tuning starts from, caught on their way in."""
    caught: list[Params] = []
    honest = stacked.fine_tune

    def watched(context: TransferContext, run: KShotRun, *rest: Any, **named: Any) -> Any:
        caught.append({name: value.clone() for name, value in run.start().items()})
        return honest(context, run, *rest, **named)

    monkeypatch.setattr(stacked, "fine_tune", watched)
    transferred(config)
    monkeypatch.setattr(stacked, "fine_tune", honest)
    return caught[0]


@pytest.mark.parametrize("adapter", ["fresh", "primed"])
@pytest.mark.parametrize("head", ["fresh", "primed"])
def test_fine_tuning_starts_where_it_is_told(
    primed_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: str, head: str
) -> None:
    wanted = (f"transfer.start_adapter={adapter}", f"transfer.start_head={head}", "transfer.methods=[pfeiffer]")
    start = start_of(elsewhere(primed_run, tmp_path / "run", *wanted), monkeypatch)
    primed = load_file(Path(primed_run.run.output) / "primed" / "metaprime.safetensors")
    assert start.keys() == primed.keys()
    for group, choice in (("adapter", adapter), ("head", head)):
        same = [torch.equal(start[name], primed[name]) for name in primed if name.startswith(group)]
        assert all(same) if choice == "primed" else not any(same) or group == "adapter"
        if choice == "fresh":
            assert not all(same)


def test_a_primed_start_of_another_method_is_refused(primed_run: Config, tmp_path: Path) -> None:
    for wrong in ("transfer.methods=[pfeiffer, lora]", "peft.bottleneck=5"):
        for rates in ("0.01", "[0.01, 0.02]"):
            config = elsewhere(
                primed_run, tmp_path / "run", "transfer.start_adapter=primed", wrong, f"transfer.lr={rates}"
            )
            with pytest.raises(MetaprimeError, match=r"transfer\.start_adapter: the encoder was primed with pfeiffer"):
                transferred(config)
            assert not (tmp_path / "run").exists()
    heads = elsewhere(primed_run, tmp_path / "run", "transfer.start_adapter=primed", "transfer.methods=[head]")
    # Head tuning has no adapter to differ in.
    assert len(transferred(heads)) == 1


def test_a_primed_head_of_other_labels_is_refused(primed_run: Config, tmp_path: Path) -> None:
    config = elsewhere(
        primed_run,
        tmp_path / "run",
        "transfer.start_head=primed",
        "task.labels=[LOC, ORG, PER]",
        "transfer.methods=[head]",
    )
    with pytest.raises(MetaprimeError, match=r"transfer\.start_head: the encoder was primed with the labels O, B-PER"):
        transferred(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("key", ["start_adapter", "start_head"])
def test_a_primed_start_needs_a_primed_encoder(tiny: MakeConfig, tmp_path: Path, key: str) -> None:
    with pytest.raises(MetaprimeError, match="was not primed by metaprime"):
        transferred(tiny(tmp_path / "run", "transfer.encoder=base", f"transfer.{key}=primed"))
    assert not (tmp_path / "run").exists()


def test_nothing_primed_says_what_to_do(tiny: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(MetaprimeError, match="primed does not exist; run `metaprime prime` first, or set"):
        transferred(tiny(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("group", ["adapter", "head"])
@pytest.mark.parametrize("rule", ["reset", "keep"])
def test_a_random_draw_is_no_primed_start(tiny: MakeConfig, tmp_path: Path, group: str, rule: str) -> None:
    config = tiny(tmp_path / "run", "outer.validate_every=0", "outer.steps=2", f"outer.{group}={rule}")
    folder = prime(config).path
    with pytest.raises(MetaprimeError, match=rf"transfer\.start_{group}: .*random draw"):
        transfer(override(config, f"transfer.start_{group}=primed"))
    if group == "head":
        with pytest.raises(MetaprimeError, match="random head"):
            predict(folder, "Gipipe pala")


def test_each_language_and_seed_has_its_own_fresh_start(parts: Parts) -> None:
    primed = parts.start
    context = replace(parts.context(TransferConfig()), primed=primed)
    one, again, other, later = (
        start_values(context, parts.rows[:8], seed, language)
        for seed, language in ((0, "qaa"), (0, "qaa"), (0, "qaf"), (1, "qaa"))
    )
    drawn = [name for name, value in one.items() if value.count_nonzero()]
    for group in ("adapter.", "head."):
        assert [name for name in drawn if name.startswith(group)]
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(
        torch.equal(one[name], unlike[name]) for name in drawn if one[name].dim() > 1 for unlike in (other, later)
    )
    context = replace(context, settings=TransferConfig(start_adapter="primed", start_head="primed"))
    kept = start_values(context, parts.rows[:8], 0, "qaf")
    assert all(torch.equal(kept[name], primed[name]) for name in primed)
