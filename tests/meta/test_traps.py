"""Ways to a wrong meta-gradient that look right. Each test shows that the trap is there, and that we do not fall into it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from inner_loops import changed
from torch import nn
from torch.func import grad, vmap
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from metaprime.build.model import build_model
from metaprime.config.loading import load_config
from metaprime.config.sections import Config
from metaprime.data.episodes import EpisodeSampler, EpisodeShape
from metaprime.data.readers import synthetic
from metaprime.data.rows import Lengths
from metaprime.data.subwords import Subwords
from metaprime.interop import learn2learn
from metaprime.meta import LEARNERS, InnerLoop, Way
from metaprime.meta.learner import GROUPS
from metaprime.meta.maml import adapt
from metaprime.models.encoder import load_encoder
from metaprime.models.task_model import TaskModel, functional_loss, partition
from metaprime.peft import METHODS
from metaprime.priming.batching import SILENTLY_WRONG
from metaprime.priming.prime import prime
from metaprime.priming.setup import set_up
from metaprime.priming.starts import Starts
from metaprime.rng import torch_stream
from metaprime.tasks import TASKS
from metaprime.tasks.tagging.task import TaggingConfig
from metaprime.tasks.task import Text
from metaprime.types import IGNORE, Batch, Episodes, Loss, MetaprimeError, Params

T = 2
SETTINGS = InnerLoop(lr=0.5, second_order=True, outer=GROUPS)
TINY = (
    "data.languages=[qaa, qaf]",
    "data.validation_languages=[qac]",
    "data.target_languages=[qai]",
    "episodes.per_step=2",
    "episodes.support=2",
    "episodes.query=2",
    "inner.steps=2",
    "outer.steps=2",
    "outer.validate_every=2",
    "peft.bottleneck=4",
    "transfer.shots=8",
    "transfer.steps=2",
    "transfer.test_sentences=8",
)

Bench = tuple[TaskModel, Loss, Params, Params, Episodes]


def bench(folder: Path, attention: str = "eager", padded: str = "") -> Bench:
    """A primable model in float64, its loss, theta, T random starts, and a meta-batch with three inner steps."""
    encoder = load_encoder(str(folder), attention)
    text = Text(Subwords(encoder.tokenizer), Lengths(64))
    task = TASKS["tagging"].build(TaggingConfig(labels=("PER", "ORG", "LOC")), text)
    pools = {name: task.encode(synthetic.read("", name, "train")[:30]) for name in ("qaa", "qaf")}
    model = build_model(encoder, task, METHODS["pfeiffer"].config(), pools["qaa"]).variant(padded=padded).double()
    shape = EpisodeShape(episodes=T, support=2, steps=3, query=3, tau=0)
    batch = EpisodeSampler(pools, shape, seed=1).meta_batch(0, range(T), task.collate)
    state = partition(model, encoder.layout.unused)
    drawn = Starts(model, state, {"adapter": "reset", "head": "reset"}, seed=0).values(0, range(T))
    draw = torch_stream(0, "start")
    start = {name: (value + 0.2 * torch.randn(value.shape, generator=draw)).double() for name, value in drawn.items()}
    return model, functional_loss(model, task.loss), state.backbone, start, batch


def step(parts: Bench, learner: str = "peft_maml", **changes: Any) -> Params:
    _, loss, backbone, start, batch = parts
    settings = changed(SETTINGS, moves=LEARNERS[learner].inner, **changes)
    return LEARNERS[learner].step(loss, backbone, start, batch, settings).gradients


def tiny(folder: Path, output: Path, *overrides: str) -> Config:
    return load_config(None, [*TINY, f"encoder.name={folder}", f"run.output={output}", *overrides])


def distance(one: Params, other: Params) -> float:
    """Relative, over all tensors."""
    assert one.keys() == other.keys()
    flat = [torch.cat([values[name].flatten() for name in other]) for values in (one, other)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


def at(values: Params, place: int) -> Params:
    return {name: value[place] for name, value in values.items()}


# Fused attention has no double backward, and only dropout hides it.


def naive_second_order(parts: Bench) -> Params:
    """Two gradients, one inside the other, of the first episode; no attention kernel is chosen."""
    _, loss, backbone, start, batch = parts
    theta = {name: value.detach().requires_grad_() for name, value in backbone.items()}
    fast = {name: value.requires_grad_() for name, value in at(start, 0).items()}
    found = torch.autograd.grad(loss(theta, fast, at(batch.support[0], 0)), list(fast.values()), create_graph=True)
    fast = {name: value - 0.5 * change for (name, value), change in zip(fast.items(), found, strict=True)}
    query = loss(theta, fast, at(batch.query, 0))
    return dict(zip(theta, torch.autograd.grad(query, list(theta.values())), strict=True))


def test_fused_attention_raises_without_dropout_and_we_pick_the_plain_kernel(toy_bert: Path) -> None:
    fused, plain = bench(toy_bert, "sdpa"), bench(toy_bert, "eager")
    with pytest.raises(RuntimeError, match=r"derivative for .*flash_attention.*backward.* is not implemented"):
        naive_second_order(fused)
    fused[0].train()  # with dropout in the attention the kernel steps aside, and nothing raises
    assert naive_second_order(fused)
    fused[0].eval()
    for way in (Way.VMAP, Way.LOOP):
        assert distance(step(fused, way=way), step(plain, way=way)) < 1e-10


# Gradient checkpointing runs a layer again when its own weights are back in place of the values given to it.


@pytest.fixture
def still(changed_toy: Callable[..., Path]) -> Path:
    """A toy whose dropout is zero, so that training mode, which checkpointing asks for, changes nothing else."""
    return changed_toy("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def checkpointed(backbone: nn.Module) -> None:
    """Switches it on, under the name that this version of transformers has for it."""
    for name in ("activation_checkpointing_enable", "gradient_checkpointing_enable"):
        if hasattr(backbone, name):
            return getattr(backbone, name)()
    raise AssertionError("transformers has renamed gradient checkpointing")


@pytest.mark.parametrize("second_order", [False, True])
def test_checkpointed_layers_give_wrong_gradients_without_an_error(still: Path, second_order: bool) -> None:
    model, loss, backbone, start, batch = bench(still, padded="by this test")
    model.train()

    def maml() -> Params:
        """`functional_call` and `autograd.grad`, as most people write it: three large steps of everything."""
        fast = {**backbone, **at(start, 0)}
        first = fast = {name: value.detach().requires_grad_() for name, value in fast.items()}
        for support in batch.support:
            found = torch.autograd.grad(loss({}, fast, at(support, 0)), list(fast.values()), create_graph=second_order)
            fast = {name: value - 0.5 * change for (name, value), change in zip(fast.items(), found, strict=True)}
        last = first if second_order else fast
        return dict(
            zip(last, torch.autograd.grad(loss({}, fast, at(batch.query, 0)), list(last.values())), strict=True)
        )

    right = maml()
    assert distance(maml(), right) == 0
    checkpointed(model.backbone)
    assert distance(maml(), right) > 0.1


def test_a_checkpointed_encoder_is_refused(still: Path) -> None:
    model = bench(still)[0]
    checkpointed(model.backbone)
    for build in (
        lambda: functional_loss(model, F.cross_entropy),
        lambda: TaskModel(model.backbone, model.adapter, model.head),
    ):
        with pytest.raises(
            MetaprimeError, match=r"BertModel has gradient checkpointing .*: remove .* from the encoder's config"
        ):
            build()


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated:FutureWarning")
def test_a_config_that_switches_it_on_is_refused_before_anything_is_written(still: Path, tmp_path: Path) -> None:
    file = still / "config.json"
    file.write_text(file.read_text("utf-8").replace("{", '{\n  "gradient_checkpointing": true,', 1), encoding="utf-8")
    with pytest.raises(MetaprimeError, match="gradient checkpointing"):
        prime(tiny(still, tmp_path / "run"))
    assert not (tmp_path / "run" / "config.yaml").exists()


# Dropout: batched and looped episodes draw different masks.


def test_two_dropouts_differ_and_ours_is_off(toy_bert: Path) -> None:
    model, loss, backbone, start, batch = bench(toy_bert, padded="by this test")

    def losses(way: Way) -> torch.Tensor:
        torch.manual_seed(0)
        if way is Way.VMAP:
            run = vmap(lambda fast, query: loss(backbone, fast, query), randomness="different")
            return run(start, batch.query)
        return torch.stack([loss(backbone, at(start, place), at(batch.query, place)) for place in range(T)])

    torch.testing.assert_close(losses(Way.VMAP), losses(Way.LOOP), rtol=1e-12, atol=0)
    model.train()
    assert (losses(Way.VMAP) - losses(Way.LOOP)).abs().min() > 1e-3
    with pytest.raises(RuntimeError, match="random operation"):  # so ours never runs into it unseen
        step((model, loss, backbone, start, batch))


@pytest.fixture
def modes() -> Iterator[dict[str, set[bool]]]:
    """Of each kind of module that runs, whether it was in training mode; of `random`, whether a forward pass drew anything."""
    seen: dict[str, set[bool]] = {"random": set()}
    states: list[torch.Tensor] = []

    def enter(module: nn.Module, _: object) -> None:
        seen.setdefault(type(module).__name__, set()).add(module.training)
        states.append(torch.get_rng_state())

    def leave(module: nn.Module, *_: object) -> None:
        seen["random"].add(not torch.equal(states.pop(), torch.get_rng_state()))

    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
    yield seen
    for handle in handles:
        handle.remove()


def test_the_watch_sees_dropout(toy_bert: Path, modes: dict[str, set[bool]]) -> None:
    model, loss, backbone, start, batch = bench(toy_bert)
    model.train()
    loss(backbone, at(start, 0), at(batch.query, 0))
    assert modes["random"] == modes["Dropout"] == {False, True}  # False: `bench` checks the injection


@pytest.mark.parametrize("way", [Way.VMAP, Way.LOOP])
def test_nothing_is_dropped_while_priming(
    toy_bert: Path, tmp_path: Path, modes: dict[str, set[bool]], way: Way
) -> None:
    encoder = load_encoder(str(toy_bert)).module
    assert encoder.config.hidden_dropout_prob == encoder.config.attention_probs_dropout_prob == 0.1
    prime(tiny(toy_bert, tmp_path / "run", f"inner.batched={'false' if way is Way.LOOP else 'true'}"))
    assert {"TaskModel", "BertModel", "Dropout"} < set(modes)
    assert set.union(*modes.values()) == {False}


# Under vmap the second derivative of a layer norm whose weights differ between episodes leaves terms out.


def adapted_norm(vmapped: bool) -> Params:
    """Gradient, at T weights of a layer norm and what is before it, of the loss after one step of both."""
    draw = torch_stream(0, "norm")
    x_TBD, y_TBD = torch.randn(2, 3, 5, 4, generator=draw, dtype=torch.float64)
    start = {
        "scale": torch.randn(3, 4, generator=draw, dtype=torch.float64).requires_grad_(),
        "norm": torch.randn(3, 4, generator=draw, dtype=torch.float64).requires_grad_(),
    }

    def loss(values: Params, x_BD: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x_BD * values["scale"], (4,), values["norm"]).pow(3).sum()

    if vmapped:
        change = vmap(grad(loss))(start, x_TBD)
    else:
        found = [grad(loss)(at(start, place), x_TBD[place]) for place in range(3)]
        change = {name: torch.stack([one[name] for one in found]) for name in start}
    fast = {name: value - 0.01 * change[name] for name, value in start.items()}
    total = torch.stack([loss(at(fast, place), y_TBD[place]) for place in range(3)]).sum()
    return dict(zip(start, torch.autograd.grad(total, list(start.values())), strict=True))


def test_vmapped_layer_norm_is_silently_wrong(toy_bert: Path) -> None:
    assert distance(adapted_norm(True), adapted_norm(False)) > 1e-3
    parts = bench(toy_bert)
    assert distance(step(parts, "maml", way=Way.VMAP), step(parts, "maml", way=Way.LOOP)) > 1e-3
    for learner in ("peft_maml", "inner_peft", "anil"):  # whose layer norms stay where they are
        assert distance(step(parts, learner, way=Way.VMAP), step(parts, learner, way=Way.LOOP)) < 1e-10
    first = {"second_order": False}
    assert distance(step(parts, "maml", way=Way.VMAP, **first), step(parts, "maml", way=Way.LOOP, **first)) < 1e-10


@pytest.mark.parametrize(
    ("learner", "order", "looped"),
    [("maml", "second", True), ("maml", "first", False), ("peft_maml", "second", False), ("anil", "second", False)],
)
def test_priming_loops_where_a_layer_norm_moves(
    toy_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, learner: str, order: str, looped: bool
) -> None:
    config = tiny(toy_bert, tmp_path / "run", f"learner.name={learner}", f"inner.order={order}", "encoder.packed=false")
    run = set_up(config, Accelerator())
    assert (run.inner.execution.way is Way.LOOP) == looped
    assert (SILENTLY_WRONG in caplog.text) == looped


# learn2learn's class adapts everything that requires a gradient, theta too: the method cannot be said in its words.


@pytest.fixture
def their_maml() -> type[nn.Module]:
    """`learn2learn.algorithms.MAML`, or a skip with its reason; where METAPRIME_REQUIRE_LEARN2LEARN is set, a failure."""
    if not learn2learn.installed():
        if os.environ.get("METAPRIME_REQUIRE_LEARN2LEARN"):
            pytest.fail("learn2learn is required here and not installed: run `make learn2learn`")
        pytest.skip("learn2learn is not installed (`make learn2learn` installs it)")
    _, maml_update = learn2learn._functions()
    return maml_update.__globals__["MAML"]  # of the same module, which is out of `sys.modules` again


def test_their_adapt_moves_the_backbone(toy_bert: Path, their_maml: type[nn.Module]) -> None:
    model, loss, backbone, start, batch = bench(toy_bert)
    theirs = their_maml(_Tagger(model), lr=0.5, first_order=True, allow_unused=True).clone()
    theirs.adapt(theirs(at(batch.support[0], 0)))
    moved = dict(zip((name for name, _ in model.named_parameters()), theirs.module.parameters(), strict=True))
    name = "backbone.encoder.layer.0.attention.self.value.weight"
    assert (moved[name] - backbone[name]).detach().abs().max() > 1e-2
    settings = changed(SETTINGS, moves=LEARNERS["peft_maml"].inner, second_order=False)
    fast, _ = adapt(loss, backbone, start, batch.support[:1], settings)
    assert fast.keys() == start.keys()  # ours moves these and nothing else


class _Tagger(nn.Module):
    """A model whose forward pass is its loss, so that their class can wrap it."""

    def __init__(self, model: TaskModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> torch.Tensor:
        logits_BLC = self.model(batch)
        return F.cross_entropy(logits_BLC.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORE)
