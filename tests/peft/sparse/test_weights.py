"""Methods that choose, constrain or draw, through the loops: what moves, what stays, and that every run is the same again."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from metaprime.build.data import build_task, priming_rows
from metaprime.build.model import build_model
from metaprime.config.loading import override
from metaprime.config.sections import Config, TransferConfig
from metaprime.data.episodes import sample
from metaprime.data.rows import Row
from metaprime.models.encoder import load_encoder
from metaprime.models.task_model import TaskModel, functional_loss, partition
from metaprime.peft import METHODS
from metaprime.priming.prime import prime
from metaprime.priming.setup import set_up
from metaprime.priming.starts import Starts
from metaprime.priming.step import draw
from metaprime.rng import torch_stream
from metaprime.transfers.finetune import fine_tune
from metaprime.transfers.predict import predict
from metaprime.transfers.start import context_over, k_shot_run
from metaprime.transfers.transfer import transfer
from metaprime.types import MetaprimeError, Params

MakeConfig = Any
IN_THE_WEIGHTS = ("random_mask", "magnitude", "sam", "fisher", "child_pruning", "diff_pruning", "mixout")
NOISY = (
    "{method: mixout}",
    "{method: diff_pruning}",
    "{method: pfeiffer, dropout: 0.3}",
    "{method: lora, dropout: 0.3}",
)


def made(tiny: MakeConfig, output: Path, method: str, *overrides: str) -> tuple[Config, Any, TaskModel, list[Row]]:
    config = tiny(output, "peft={method: head}", f"peft={method}", "outer.adapter=reset", *overrides)
    encoder = load_encoder(config.encoder.name)
    task = build_task(config.task, config.data, encoder, config.peft)
    rows = priming_rows(task, config.data, config.run.seed)["qaa"]
    return config, task, build_model(encoder, task, config.peft, rows), rows


def tuned(made: tuple[Config, Any, TaskModel, list[Row]], seed: int = 0, **settings: Any) -> tuple[Params, Params]:
    """Start and end of a fine-tuning."""
    config, task, model, rows = made
    context = context_over(model, task, config.peft, TransferConfig(**{"steps": 6, "batch": 4, **settings}), {})
    run = k_shot_run(context, sample(rows, 8, seed, "qaa"), seed, "qaa")
    return run.start(), fine_tune(context, run, 1e-2).values


def test_what_was_not_chosen_is_bit_equal_after_adamw_with_decay(tiny: MakeConfig, tmp_path: Path) -> None:
    parts = made(tiny, tmp_path, "{method: sam, budget: 0.02}")
    before = {name: value.detach().clone() for name, value in partition(parts[2]).backbone.items()}
    start, end = tuned(parts, weight_decay=0.5)
    chosen = end["adapter.change.indices"]
    assert torch.equal(chosen, start["adapter.change.indices"])
    assert end["adapter.change.delta"].count_nonzero() > 0.9 * len(chosen)
    change = parts[2].adapter["change"]
    flat = torch.cat([before[name].flatten() for name in change.weights.names])
    after = flat.scatter_add(0, chosen, end["adapter.change.delta"])
    same = torch.ones(len(flat), dtype=torch.bool)
    same[chosen] = False
    assert torch.equal(after[same], flat[same])
    assert all(torch.equal(value, before[name]) for name, value in partition(parts[2]).backbone.items())


@pytest.mark.parametrize("method", ["sam", "fisher"])
def test_the_scores_are_gradients_of_the_k_sentences_at_the_start(
    tiny: MakeConfig, tmp_path: Path, method: str
) -> None:
    """Against plain backward passes of the encoder without any method in it."""
    config, task, model, rows = parts = made(tiny, tmp_path, f"{{method: {method}, budget: 0.02}}")
    start, _ = tuned(parts)
    bare = build_model(load_encoder(config.encoder.name), task, METHODS["head"].config(), rows)
    loss, own = functional_loss(bare, task.loss), dict(bare.named_parameters())
    backbone = {name: value for name, value in own.items() if name.startswith("backbone.")}
    shots = sample(rows, 8, 0, "qaa")
    scores: dict[str, torch.Tensor] = {}
    for batch in (task.collate(shots[:4]), task.collate(shots[4:])):
        bare.zero_grad()
        loss(backbone, {k: v for k, v in start.items() if k.startswith("head.")}, batch).backward()
        for name in model.adapter["change"].weights.names:
            gradient = backbone[name].grad
            scores[name] = scores.get(name, 0) + (gradient**2 if method == "fisher" else gradient.clone())
    expected = []
    first = 0
    for name in model.adapter["change"].weights.names:
        ranked = scores[name].abs().flatten().argsort(descending=True)[: int(0.02 * scores[name].numel())]
        expected += [first + int(place) for place in ranked]
        first += scores[name].numel()
    assert start["adapter.change.indices"].tolist() == sorted(expected)


def test_child_pruning_never_moves_more_than_its_budget(tiny: MakeConfig, tmp_path: Path) -> None:
    parts = made(tiny, tmp_path, "{method: child_pruning, budget: 0.02}")
    _, end = tuned(parts)
    sizes = parts[2].adapter["change"].weights.sizes
    delta = end["adapter.change.delta"]
    moved = [int(part.count_nonzero()) for part in delta.split(sizes)]
    assert moved == [int(0.02 * size) for size in sizes]


@pytest.mark.parametrize("method", NOISY)
def test_noise_is_of_the_seed_and_the_step(tiny: MakeConfig, tmp_path: Path, method: str) -> None:
    parts = made(tiny, tmp_path, method)
    (_, one), (_, again) = (tuned(parts) for _ in range(2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    quiet = made(tiny, tmp_path, method.replace("0.3", "0.0")) if "dropout" in method else None
    if quiet:
        _, without = tuned(quiet)
        assert any(not torch.equal(one[name], without[name]) for name in one)
    _, task, model, rows = parts
    # Gates that still move.
    one |= {name: torch.zeros_like(value) for name, value in one.items() if "alpha" in name}
    loss, batch = functional_loss(model, task.loss), task.collate(rows[:4])
    backbone = partition(model).backbone
    keyed = [{**batch, "noise": torch.tensor([key] * 4)} for key in (1, 1, 2)]
    found = [loss(backbone, one, each).item() for each in (batch, batch, *keyed)]
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert len({found[0], found[2], found[4]}) == 3


@pytest.mark.parametrize("method", [*IN_THE_WEIGHTS, "pfeiffer, dropout: 0.3"])
def test_primed_and_transferred_and_predicted(
    tiny: MakeConfig, tmp_path: Path, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny(
        tmp_path / "run",
        "peft={method: head}",
        f"peft={{method: {method}}}",
        "outer.adapter=reset",
        f"transfer.methods=[{method.partition(',')[0]}]",
    )
    name = config.peft.method
    if name in IN_THE_WEIGHTS and name != "mixout":
        config = override(config, "peft.budget=0.02")
    with caplog.at_level(logging.WARNING):
        prime(config)
    looped = name in ("mixout", "diff_pruning", "pfeiffer")
    assert ("draws in training" in caplog.text) == looped
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 4
    result = transfer(config)[0]
    assert result.record["frozen"]["unchanged"]
    folder = tmp_path / "run" / "transfer" / "primed" / f"qai-{name}-k8-s0"
    assert result.path == folder
    stored = load_file(folder / "metaprime.safetensors")
    if name in ("mixout", "pfeiffer"):
        assert "adapter.change.indices" not in stored
    else:
        assert stored["adapter.change.indices"].shape == stored["adapter.change.delta"].shape
        sizes = (build_model(load_encoder(config.encoder.name), *task_and(config)).adapter["change"].weights).sizes
        assert len(stored["adapter.change.delta"]) == sum(int(0.02 * size) for size in sizes)
    words = json.loads((folder / "predictions.jsonl").read_text().splitlines()[0])
    assert [tag for _, tag in predict(folder, " ".join(words["words"]))][: len(words["words"])] == words["predicted"]


def task_and(config: Config) -> tuple[Any, Any, list[Row]]:
    task = build_task(config.task, config.data, load_encoder(config.encoder.name), config.peft)
    return task, config.peft, priming_rows(task, config.data, config.run.seed)["qaa"]


def test_noise_in_priming_is_of_the_episode_and_the_inner_step(tiny: MakeConfig, tmp_path: Path) -> None:
    settings = ("peft={method: head}", "peft={method: mixout}", "outer.adapter=reset", "outer.validate_every=0")
    whole, again = (set_up(tiny(tmp_path / name, *settings), Accelerator()) for name in ("one", "two"))
    one, two = (draw(run, 2).support for run in (whole, again))
    # The process that holds the second episode alone.
    second = replace(
        again, accelerator=cast(Accelerator, SimpleNamespace(process_index=1, num_processes=2, device="cpu"))
    )
    half = draw(second, 2).support
    for s, (a, b, c) in enumerate(zip(one, two, half, strict=True)):
        assert torch.equal(a["noise"], b["noise"]), s
        assert a["noise"][1, 0] == c["noise"][0, 0]
        assert len(set(a["noise"].flatten().tolist())) == a["noise"].numel()


@pytest.mark.parametrize(
    "overrides",
    [
        ("learner.name=anil", "peft={method: child_pruning}"),
        ("learner.name=anil", "peft={method: diff_pruning}"),
        ("learner.name=reptile", "peft={method: mixout}"),
        ("learner.name=maml", "peft={method: sam}"),
        ("inner.learn_rates=true", "peft={method: sam}"),
        ("inner.order=second", "peft={method: child_pruning}"),
        ("inner.micro_batch=1", "peft={method: mixout}"),
        ("peft={method: hf, config: {peft_type: LORA, lora_dropout: 0.2}}",),
    ],
    ids=str,
)
def test_learners_and_loops_go_with_them(tiny: MakeConfig, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    prime(tiny(tmp_path / "run", "peft={method: head}", *overrides, "outer.adapter=reset", "outer.validate_every=0"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len({line["query_loss"] for line in lines}) == 4


@pytest.mark.parametrize("learner", ["peft_maml", "reptile", "anil"])
def test_every_learner_with_an_inner_loop_chooses(tiny: MakeConfig, tmp_path: Path, learner: str) -> None:
    settings = (
        "peft={method: head}",
        "peft={method: sam, budget: 0.02}",
        "outer.adapter=reset",
        f"learner.name={learner}",
    )
    run = set_up(tiny(tmp_path / "run", *settings, "outer.validate_every=0"), Accelerator())
    seen: list[int] = []
    choose = run.inner.select

    def watched(backbone: Params, gradients: Any) -> Params:
        found = choose(backbone, gradients)
        seen.append(hash(tuple(found["adapter.change.indices"].tolist())))
        return found

    starts = Starts(run.model, run.state, {"adapter": "reset", "head": "reset"}, seed=0)
    inner = replace(run.inner, select=watched)
    run.learner.step(run.loss, run.state.backbone, starts.values(0, range(2)), draw(run, 0), inner)
    # Each episode its own.
    assert len(set(seen)) == 2


def test_dropout_of_a_sentence_is_its_own_whatever_stands_beside_it(tiny: MakeConfig, tmp_path: Path) -> None:
    _, task, model, rows = made(tiny, tmp_path, "{method: pfeiffer, dropout: 0.5}")
    draw, state = torch_stream(0, "values"), partition(model)
    values = {k: torch.randn(v.shape, generator=draw) for k, v in {**state.adapter, **state.head}.items()}
    short, long = sorted(rows[:6], key=lambda row: len(row.windows[0].input_ids))[::5]
    alone, both = task.collate([short]), task.collate([short, long])
    assert both["input_ids"].shape[1] > alone["input_ids"].shape[1]
    seen: list[torch.Tensor] = []
    loss = functional_loss(model, lambda logits, labels: seen.append(logits) or logits.sum())
    keys = torch.tensor([5, 6])
    for batch, own in ((alone, keys[:1]), (both, keys), (alone, keys[1:])):
        loss(partition(model).backbone, values, {**batch, "noise": own})
    length = alone["input_ids"].shape[1]
    torch.testing.assert_close(seen[1][:1, :length], seen[0], rtol=0, atol=1e-5)
    assert not torch.allclose(seen[2], seen[0])


def test_what_a_development_split_scored_is_what_is_stored(tiny: MakeConfig, tmp_path: Path) -> None:
    """Gates that are still soft at the best step are fixed before they are scored."""
    parts = made(tiny, tmp_path, "{method: diff_pruning, budget: 0.1, burn_in: 1.0}")
    _, end = tuned(parts, stop="development", evaluate_every=2, development_share=0.5)
    assert set(end["adapter.change.alpha"].abs().unique().tolist()) == {1e4}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("outer.adapter=meta",), r"outer\.adapter meta: with peft\.method sam every episode selects its own weights"),
        (("learner.name=multitask_peft",), r"selects weights by an episode's support sentences, and learner\.name"),
        (
            ("learner.name=multitask_peft", "peft={method: mixout}"),
            r"mixout needs an inner loop, and learner\.name 'multitask_peft' has none",
        ),
        (("outer.adapter=carry_mean", "peft={method: diff_pruning}"), r"an episode ends with fixed gates"),
        (("inner.learn_rates=true", "peft={method: child_pruning}"), r"inner\.learn_rates: peft\.method child_pruning"),
        (("learner.backend=learn2learn",), r"learn2learn (supports plain gradient steps|.* not installed)"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_written(
    tiny: MakeConfig, tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    settings = ("peft={method: head}", "peft={method: sam}", "outer.adapter=reset", *overrides)
    with pytest.raises(MetaprimeError, match=message):
        prime(tiny(tmp_path / "run", *settings))
    assert not (tmp_path / "run").exists()
