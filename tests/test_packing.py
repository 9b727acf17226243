"""A row of sub-words: where each stands, whose it is, and that windows of one row do not see each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from metaprime import packing
from metaprime.build.model import build_model
from metaprime.data.readers import synthetic
from metaprime.data.rows import Lengths
from metaprime.data.subwords import Subwords
from metaprime.meta import Execution, Way
from metaprime.meta.execution import vmapped
from metaprime.models.encoder import load_encoder
from metaprime.models.task_model import TaskModel, functional_loss, partition
from metaprime.nn import broadcast_like, linear, rows
from metaprime.packing import NEARLY_FULL, Packing, current, padded_calls, positions
from metaprime.peft import METHODS
from metaprime.rng import torch_stream
from metaprime.tasks import TASKS
from metaprime.tasks.tagging.task import TaggingConfig
from metaprime.tasks.task import Text
from metaprime.types import Batch

LENGTHS = (3, 7, 1, 5)
PACKING_ARCHITECTURES = ("bert", "xlm-roberta", "camembert", "electra", "distilbert", "modernbert", "eurobert")


def mask(*lengths: int, padding: int = 0) -> torch.Tensor:
    return (torch.arange(max(lengths) + padding) < torch.tensor(lengths)[:, None]).long()


def model_of(folder: Path, method: str = "lora") -> TaskModel:
    encoder = load_encoder(str(folder))
    task = TASKS["tagging"].build(
        TaggingConfig(labels=("PER", "ORG", "LOC")), Text(Subwords(encoder.tokenizer), Lengths(64))
    )
    return build_model(encoder, task, METHODS[method].config(), task.encode(synthetic.read("", "qaa", "train")[:4]))


def batch(*lengths: int) -> Batch:
    mask_BL = mask(*lengths)
    ids_BL = torch.randint(5, 60, mask_BL.shape, generator=torch_stream(0, "ids"))
    return {"input_ids": ids_BL * mask_BL, "attention_mask": mask_BL, "labels": mask_BL - 1}


def test_packing_and_padding_are_inverse() -> None:
    row = Packing.of(mask(*LENGTHS, padding=2))
    assert row.lengths == list(LENGTHS)
    assert row.positions.tolist() == [[place for length in LENGTHS for place in range(length)]]
    padded = torch.randn(4, 9, 6, generator=torch_stream(0, "padded"))
    packed = row.pack(padded)
    assert packed.shape == (1, 16, 6)
    assert torch.equal(packed[0], torch.cat([padded[at, :length] for at, length in enumerate(LENGTHS)]))
    again = row.pad(packed)
    assert torch.equal(again, padded * row.mask[..., None])
    assert torch.equal(row.pack(again), packed)


def test_gradients_of_packing_and_padding_of_both_orders() -> None:
    row = Packing.of(mask(3, 1, 2))
    padded = torch.randn(3, 3, 2, dtype=torch.double, generator=torch_stream(0, "padded"), requires_grad=True)
    packed = torch.randn(1, 6, 2, dtype=torch.double, generator=torch_stream(0, "packed"), requires_grad=True)
    for function, value in ((row.pack, padded), (row.pad, packed)):
        assert torch.autograd.gradcheck(lambda x, function=function: function(x).sin(), value)
        assert torch.autograd.gradgradcheck(lambda x, function=function: function(x).sin(), value)


def test_each_episode_has_its_segment() -> None:
    row = Packing.of(mask(*LENGTHS))
    assert row.segments(1) == [16]
    assert row.segments(2) == [10, 6]
    assert row.segments(4) == list(LENGTHS)


@pytest.mark.parametrize("episodes", [1, 2, 4])
def test_layers_give_each_segment_its_episodes_weights(episodes: int) -> None:
    """The padded rows of the same episodes are the reference."""
    draw = torch_stream(0, "weights")
    row, ids_BL = Packing.of(mask(*LENGTHS)), torch.randint(0, 9, (4, 7), generator=draw)
    x_BLi = torch.randn(4, 7, 3, generator=draw)
    weight, bias = torch.randn(episodes, 5, 3, generator=draw), torch.randn(episodes, 5, generator=draw)
    table, factors = torch.randn(episodes, 9, 3, generator=draw), torch.randn(episodes, 3, generator=draw)
    layers: list[tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]] = [
        (lambda x: linear(x, weight, bias), x_BLi),
        (lambda x: linear(x, weight), x_BLi),
        (lambda x: x * broadcast_like(factors, x), x_BLi),
        (lambda ids: rows(table, ids), ids_BL),
    ]
    for layer, padded in layers:
        expected = row.pack(layer(padded))
        token = packing._ROW.set(row)
        found = layer(row.pack(padded))
        packing._ROW.reset(token)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.fixture(params=[True, False], ids=["window by window", "padded for attention"])
def attention_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Packing, "window_by_window", lambda self, query: request.param)


@pytest.mark.usefixtures("attention_path")
@pytest.mark.parametrize("architecture", PACKING_ARCHITECTURES)
def test_windows_of_a_row_do_not_see_each_other(toy_encoder: Callable[[str], Path], architecture: str) -> None:
    """Other sub-words in one window leave all others as they are, to the bit; and change their own."""
    model, one = model_of(toy_encoder(architecture)), batch(9, 20, 4)
    other = {**one, "input_ids": one["input_ids"].clone()}
    other["input_ids"][1, 5] = 70
    with torch.no_grad():
        first, second = model(one), model(other)
    for window, length in ((0, 9), (2, 4)):
        assert torch.equal(first[window, :length], second[window, :length])
    assert (first[1, :20] - second[1, :20]).abs().max() > 1e-4


@pytest.mark.usefixtures("attention_path")
def test_without_its_limits_windows_do_see_each_other(toy_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above holds on to: a row that is taken for one window changes the states of all."""
    model, inputs = model_of(toy_bert), batch(9, 20, 4)
    with torch.no_grad():
        expected = model(inputs)
        monkeypatch.setattr(Packing, "lengths", property(lambda self: [33]))
        monkeypatch.setattr(Packing, "window_by_window", lambda self, query: True)
        found = model(inputs)
    assert (found - expected)[0, :9].abs().max() > 1e-4


def calls_of(model: TaskModel) -> list[tuple[int, ...]]:
    """Shapes in which the first layer's query projection is called from now on."""
    seen: list[tuple[int, ...]] = []
    query = model.backbone.get_submodule("encoder.layer.0.attention.self.query")
    query.register_forward_hook(lambda module, inputs, output: seen.append(tuple(inputs[0].shape[:2])))
    return seen


def test_only_what_has_padding_is_packed(toy_bert: Path) -> None:
    model, inputs = model_of(toy_bert), batch(9, 20, 4)
    seen = calls_of(model)
    model(inputs)
    model.variant(padded="by this test")(inputs)
    model(batch(20, 20, 20))
    with padded_calls():
        model(inputs)
    assert seen == [(1, 33), (3, 20), (3, 20), (3, 20)]
    assert positions(inputs, packed=True) == 33
    assert positions(inputs, packed=False) == positions(batch(20, 20, 20), packed=True) == 60
    full = batch(20, 20, round(20 * (3 * NEARLY_FULL - 2)))
    assert positions(full, packed=True) == 60


def test_an_error_in_a_packed_call_leaves_no_row_behind(toy_bert: Path) -> None:
    model, inputs = model_of(toy_bert), batch(9, 20, 4)
    layer = model.backbone.get_submodule("encoder.layer.1")

    def fail(module: nn.Module, args: object) -> None:
        assert current() is not None
        raise ValueError("from inside")

    handle = layer.register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match="from inside"):
        model(inputs)
    handle.remove()
    assert current() is None
    assert model(inputs).shape == (3, 20, 7)


def test_vmap_pads_by_itself(toy_bert: Path) -> None:
    """It cannot read the lengths that a row needs; one episode packed is the reference."""
    model, inputs = model_of(toy_bert), batch(9, 20, 4)
    values = {**partition(model).adapter, **partition(model).head}
    loss = functional_loss(model, lambda logits, batch: logits[batch["attention_mask"].bool()].square().mean())
    padded = functional_loss(
        model, lambda logits, batch: (logits.square().mean(-1) * batch["attention_mask"]).sum() / 33
    )
    twice = [{name: torch.stack([value, value]) for name, value in given.items()} for given in (values, inputs)]
    with sdpa_kernel(SDPBackend.MATH):
        found = vmapped(padded).losses(partition(model).backbone, *twice)
    expected = loss(partition(model).backbone, values, inputs)
    torch.testing.assert_close(found, torch.stack([expected, expected]))
    assert not Execution(way=Way.VMAP, packed=True).packs


def test_prefixes_of_episodes_stay_with_their_windows(toy_bert: Path) -> None:
    """Two episodes with prefixes of their own in one row."""
    model, inputs = model_of(toy_bert, "prefix"), batch(9, 20, 4, 11)
    draw = torch_stream(0, "values")
    own = {**partition(model).adapter, **partition(model).head}
    each = [{name: torch.randn(value.shape, generator=draw) for name, value in own.items()} for _ in range(2)]
    halves = [{name: tensor[at : at + 2] for name, tensor in inputs.items()} for at in (0, 2)]
    with torch.no_grad():
        together = functional_call(model, {name: torch.stack([one[name] for one in each]) for name in own}, (inputs,))
        alone = [functional_call(model, *pair) for pair in zip(each, [(half,) for half in halves], strict=True)]
    for at, expected in enumerate(torch.cat([torch.nn.functional.pad(a, (0, 0, 0, 20 - a.shape[1])) for a in alone])):
        length = (9, 20, 4, 11)[at]
        torch.testing.assert_close(together[at, :length], expected[:length], rtol=0, atol=1e-5)
