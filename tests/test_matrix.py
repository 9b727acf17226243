"""Every method on every architecture with every attention: connected, deaf to padding, batched as looped, saved whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from batches import batch_of
from inner_loops import changed
from torch.func import functional_call
from transformers import AutoModel

from metaprime import packing
from metaprime.build.model import build_model
from metaprime.data.readers import synthetic
from metaprime.data.rows import Lengths, Row
from metaprime.data.subwords import Subwords
from metaprime.meta import LEARNERS, InnerLoop, Way
from metaprime.models.encoder import Encoder, load_encoder, save_encoder
from metaprime.models.injection_check import check_injection, probe
from metaprime.models.sites import LAYOUTS, resolve
from metaprime.models.task_model import TaskModel, functional_loss, partition
from metaprime.nn import Adapter
from metaprime.packing import positions
from metaprime.peft import METHODS
from metaprime.priming.starts import Starts
from metaprime.rng import torch_stream
from metaprime.tasks import TASKS
from metaprime.tasks.tagging.task import TaggingConfig
from metaprime.tasks.task import Task, Text
from metaprime.types import Batch, Episodes, Params, trainable

ATTENTION = ("eager", "sdpa")
WITHOUT_BIASES = {("modernbert", "bitfit"), ("eurobert", "bitfit")}
"""Refused, see tests/peft/test_bitfit.py."""
CELLS = [
    (architecture, attention, method)
    for architecture in LAYOUTS
    for attention in ATTENTION
    for method in METHODS
    if (architecture, method) not in WITHOUT_BIASES
]
IN_THE_WEIGHTS = {"random_mask", "magnitude", "sam", "fisher", "child_pruning", "diff_pruning", "mixout"}
ON_A_TABLE_OF_POSITIONS = {"lora", "ia3", "bitfit"} | IN_THE_WEIGHTS
"""DeBERTa's projections, and so what modifies them, work on one too, which belongs to no episode."""
PICKED_LIKE_SAM = {"random_mask", "magnitude", "fisher", "child_pruning", "mixout"}
APART_FROM_ATTENTION = {
    "houlsby",
    "parallel",
    "scaled_parallel",
    "parallel_attention",
    "ffn_lora",
    "prompt",
    "ia3",
    "bitfit",
    "bottleneck",
    "hf",
} | IN_THE_WEIGHTS
T = 2
SETTINGS = InnerLoop(lr=0.1, outer=("backbone", "adapter", "head"), carry=True)


@dataclass(frozen=True)
class Bench:
    """One cell of the matrix: the encoder as it came, and a model of it as the loops make it."""

    encoder: Encoder
    task: Task
    rows: list[Row]
    method: str
    model: TaskModel

    def random(self) -> Params:
        """Values for phi and head, none at a special point such as zero."""
        state, draw = partition(self.model), torch_stream(0, "random")
        values = trainable({**state.adapter, **state.head})
        size = 0.1 if self.method in IN_THE_WEIGHTS else 0.3  # of every weight at once it is much
        return {k: size * torch.randn(v.shape, generator=draw) for k, v in values.items()}


@pytest.fixture(scope="module")
def loaded(toy_encoder: Callable[[str], Path]) -> Callable[[str, str], tuple[Encoder, Task, list[Row]]]:
    made: dict[tuple[str, str], tuple[Encoder, Task, list[Row]]] = {}

    def load(architecture: str, attention: str) -> tuple[Encoder, Task, list[Row]]:
        if (architecture, attention) not in made:
            # Tolerances are those of logits at the encoder's own scale.
            encoder = replace(load_encoder(str(toy_encoder(architecture)), attention), scale=1.0)
            text = Text(Subwords(encoder.tokenizer), Lengths(64))
            task = TASKS["tagging"].build(TaggingConfig(labels=("PER", "ORG", "LOC")), text)
            made[architecture, attention] = encoder, task, task.encode(synthetic.read("", "qaa", "train")[:12])
        return made[architecture, attention]

    return load


def cell(architecture: str, attention: str, method: str) -> Any:
    """A parameter of the matrix. `make test` leaves to `make test-all` what differs from a cell of its own by eager attention,
    which these methods do not come near, or by which weights a method picks, on another architecture than the first.
    """
    late = attention == "eager" and method in APART_FROM_ATTENTION
    late = late or (architecture != "bert" and method in PICKED_LIKE_SAM)
    name = "-".join((architecture, attention, method))
    return pytest.param((architecture, attention, method), id=name, marks=[pytest.mark.slow] if late else [])


@pytest.fixture(scope="module", params=[cell(*names) for names in CELLS])
def bench(loaded: Callable[[str, str], tuple[Encoder, Task, list[Row]]], request: pytest.FixtureRequest) -> Bench:
    architecture, attention, method = request.param
    encoder, task, rows = loaded(architecture, attention)
    return Bench(
        encoder, task, rows, method, build_model(encoder, task, METHODS[method].config(), rows)
    )  # self-checked


def test_the_matrix_is_whole() -> None:
    assert len(CELLS) == len(set(CELLS)) == 9 * 2 * 24 - 4
    assert {"bert", "xlm-roberta", "distilbert", "modernbert", "deberta-v2", "eurobert", "electra"} < set(LAYOUTS)
    assert {"pfeiffer", "prefix", "lora", "head", "full", "houlsby", "mam", "ia3", "bitfit"} < set(METHODS)


def test_it_starts_as_the_bare_encoder_where_promised_and_nowhere_else(bench: Bench) -> None:
    config, batch = METHODS[bench.method].config(), bench.task.collate(bench.rows)
    bare = probe(
        TaskModel(
            bench.encoder.module, Adapter(), bench.task.new_head(resolve(bench.encoder.module, bench.encoder.layout))
        ).eval(),
        batch,
    )
    check_injection(bench.model, batch, bare, config.identity)
    assert torch.equal(probe(bench.model, batch), bare) == config.identity
    assert bench.model.backbone.state_dict().keys() == bench.encoder.module.state_dict().keys()


def test_padding_does_not_leak(bench: Bench) -> None:
    """A sentence's logits are the same alone and beside longer ones, with more or less padding."""
    lengths, pad = (3, 20, 9), bench.encoder.tokenizer.pad_token_id
    ids = torch.randint(5, 60, (3, 20), generator=torch_stream(0, "ids"))
    mask = (torch.arange(20) < torch.tensor(lengths)[:, None]).long()
    ids, values = torch.where(mask.bool(), ids, pad), bench.random()
    with torch.no_grad():
        alone = [
            functional_call(bench.model, values, (batch_of(ids[i : i + 1, :n], mask[i : i + 1, :n]),))[0]
            for i, n in enumerate(lengths)
        ]
        for padding in (0, 11):
            inputs = batch_of(F.pad(ids, (0, padding), value=pad), F.pad(mask, (0, padding)))
            for logits_LC, expected_LC in zip(functional_call(bench.model, values, (inputs,)), alone, strict=True):
                torch.testing.assert_close(logits_LC[: len(expected_LC)], expected_LC, rtol=0, atol=1e-5)
        unmasked = functional_call(bench.model, values, (batch_of(ids),))[0, :3]
    assert (unmasked - alone[0]).abs().max() > 1e-3  # the mask does matter


def test_every_word_sees_those_after_it(bench: Bench) -> None:
    ids = torch.randint(5, 60, (1, 4), generator=torch_stream(0, "ids"))
    other = torch.cat([ids[:, :-1], 60 + ids[:, -1:]], dim=1)
    with torch.no_grad():
        one, two = (functional_call(bench.model, bench.random(), (batch_of(x),)) for x in (ids, other))
    assert (one - two)[0, 0].abs().max() > 1e-4


@pytest.fixture
def in_doubles(bench: Bench) -> Iterator[Bench]:
    """What two inner steps make of float32's rounding says nothing of how they were carried out."""
    bench.model.double()
    yield bench
    bench.model.float()  # to the bit what it was


@pytest.mark.parametrize("window_cost", [-1, 10**9], ids=["windows one by one", "padded for attention"])
def test_packed_is_padded(in_doubles: Bench, window_cost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = in_doubles
    batch = {name: tensor.flatten(0, 1) for name, tensor in meta_batch(bench).query.items()}
    assert bench.model.packed != bench.encoder.layout.disentangled
    assert positions(batch, packed=True) < batch["input_ids"].numel()
    monkeypatch.setattr(packing, "WINDOW_COST", window_cost)
    models = (bench.model, bench.model.variant(padded="by this test"))
    values = {name: value.double() for name, value in bench.random().items()}
    with torch.no_grad():
        outputs = [functional_call(model, values, (batch,))[batch["attention_mask"].bool()] for model in models]
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("window_cost", [-1, 10**9], ids=["windows one by one", "padded for attention"])
def test_packed_meta_gradients_are_padded_ones(
    in_doubles: Bench, window_cost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both orders."""
    bench, batch = in_doubles, meta_batch(in_doubles)
    if bench.encoder.layout.disentangled:
        pytest.skip("stays padded")
    monkeypatch.setattr(packing, "WINDOW_COST", window_cost)
    state = partition(bench.model, bench.encoder.layout.unused)
    starts = Starts(bench.model, state, {"adapter": "keep", "head": "keep"}, seed=0)
    draw, start = torch_stream(0, "start"), starts.values(step=0, indices=range(T))
    start |= {n: v.double() + 0.2 * torch.randn(v.shape, generator=draw) for n, v in trainable(start).items()}
    way = Way.ONE_PASS if bench.model.supports_one_pass else Way.LOOP
    losses = [functional_loss(bench.model.variant(padded=reason), bench.task.loss) for reason in ("", "by this test")]
    for second_order in (False, True):
        settings = changed(replace(SETTINGS, second_order=second_order), way=way)
        outcomes = [LEARNERS["peft_maml"].step(loss, state.backbone, start, batch, settings) for loss in losses]
        for part in ("gradients", "last_fast", "query_loss", "support_loss"):
            torch.testing.assert_close(*(getattr(one, part) for one in outcomes), rtol=1e-10, atol=1e-12)


def test_batched_is_looped_and_reaches_every_parameter(in_doubles: Bench) -> None:
    bench = in_doubles
    batch = meta_batch(bench)
    state = partition(bench.model, bench.encoder.layout.unused)
    starts = Starts(bench.model, state, {"adapter": "keep", "head": "keep"}, seed=0)
    start = starts.values(step=0, indices=range(T))
    draw = torch_stream(0, "start")
    start |= {n: v.double() + 0.2 * torch.randn(v.shape, generator=draw) for n, v in trainable(start).items()}
    loss, step = functional_loss(bench.model, bench.task.loss), LEARNERS["peft_maml"].step
    looped, vmapped, together = (
        step(loss, state.backbone, start, batch, changed(SETTINGS, way=way))
        for way in (Way.LOOP, Way.VMAP, Way.ONE_PASS if bench.model.supports_one_pass else Way.VMAP)
    )
    on_a_table = bench.encoder.layout.disentangled and bench.method in ON_A_TABLE_OF_POSITIONS
    assert bench.model.supports_one_pass != (on_a_table or bench.method == "hf")
    for part in ("gradients", "last_fast", "mean_fast", "query_loss", "support_loss"):
        for batched in (vmapped, together):
            torch.testing.assert_close(getattr(batched, part), getattr(looped, part), rtol=1e-9, atol=1e-9)
    assert set(looped.gradients) == {*state.backbone, *trainable(start)}
    assert not [name for name, gradient in looped.gradients.items() if not gradient.any()]
    left_out = set(partition(bench.model).backbone) - set(state.backbone)
    assert all(name.startswith("backbone.pooler.") for name in left_out)


def meta_batch(bench: Bench) -> Episodes:
    """T episodes with two inner steps, of sentences of different lengths."""

    def stacked(first: int) -> Batch:
        tensors = bench.task.collate(bench.rows[first : first + 4])
        return {name: tensor.unflatten(0, (T, 2)) for name, tensor in tensors.items()}

    support, query = (stacked(0), stacked(4)), stacked(8)
    assert len({int(n) for tensors in (*support, query) for n in tensors["attention_mask"].sum(-1).flatten()}) > 3
    return Episodes(("qaa",) * T, tuple(range(T)), T, support, query)


def test_it_is_saved_to_the_last_bit(bench: Bench, tmp_path: Path) -> None:
    save_encoder(bench.model.backbone, bench.encoder.tokenizer, tmp_path)
    again = load_encoder(str(tmp_path), "sdpa")
    assert again.weights == bench.encoder.weights
    plain = AutoModel.from_pretrained(tmp_path).state_dict()
    expected = bench.encoder.module.state_dict()
    assert plain.keys() == expected.keys()
    assert all(torch.equal(plain[name], value) for name, value in expected.items())
    assert "metaprime" not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize(("architecture", "attention"), [*itertools.product(LAYOUTS, ATTENTION)])
def test_the_bare_encoder_is_the_stock_one(
    toy_encoder: Callable[[str], Path], architecture: str, attention: str
) -> None:
    """Eager attention as transformers has it is what every architecture offers."""
    folder = toy_encoder(architecture)
    ours = load_encoder(str(folder), attention).module
    stock = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    ids = torch.randint(5, 60, (2, 20), generator=torch_stream(0, "ids"))
    mask = (torch.arange(20) < torch.tensor([[20], [7]])).long()
    with torch.no_grad():
        found, expected = (m(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()] for m in (ours, stock))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
