"""FLOPs against reckoning by hand, and what a run comes to from the steps of it that were counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from torch.func import grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from metaprime.runs.flops import FlopMeter, Spent, counted, estimated_flops

B, D, C = 5, 3, 4


def train(inputs_BD: torch.Tensor, weights_CD: torch.Tensor) -> torch.Tensor:
    """Forward and backward of one linear layer."""
    loss = torch.nn.functional.linear(inputs_BD, weights_CD).tanh().mean()
    loss.backward()
    return loss.detach()


def values(*shape: int, learned: bool = True) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).requires_grad_(learned)


@pytest.mark.parametrize(("inputs_learn", "products"), [(False, 2), (True, 3)])
@pytest.mark.parametrize("batch", [B, 2 * B])
def test_a_linear_layer_costs_what_it_does_by_hand(inputs_learn: bool, products: int, batch: int) -> None:
    inputs, weights = values(batch, D, learned=inputs_learn), values(C, D)
    _, flops = counted(True, train, inputs, weights)
    # The layer, the gradient of its weights, and that of its inputs.
    assert flops == products * 2 * batch * D * C


def test_what_is_not_asked_for_is_not_counted() -> None:
    assert counted(False, train, values(B, D), values(C, D))[1] is None


def test_counting_changes_no_bit() -> None:
    found = []
    for wanted in (True, False):
        inputs, weights = values(B, D), values(C, D)
        loss, _ = counted(wanted, train, inputs, weights)
        found.append((loss, inputs.grad, weights.grad))
    for one, other in zip(*found, strict=True):
        assert isinstance(one, torch.Tensor)
        assert isinstance(other, torch.Tensor)
        assert torch.equal(one, other)


def test_a_parameter_can_be_what_a_module_takes_in() -> None:
    """As a prefix is; its gradient is taken by `torch.autograd.grad`."""
    layer, prefix = torch.nn.Linear(D, C), values(B, D)
    (gradient,), flops = counted(True, lambda: torch.autograd.grad(layer(prefix).sum(), [prefix]))
    assert torch.allclose(gradient, layer.weight.sum(0).expand(B, D))
    assert flops == 2 * 2 * B * D * C


def attend(query: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(query, query, query).square().mean()


@pytest.mark.parametrize(
    ("kernel", "products"),
    # A fused one works its scores out again.
    [(SDPBackend.MATH, 2 + 4), (SDPBackend.FLASH_ATTENTION, 2 + 5)],
)
def test_attention_is_seen_whichever_kernel_runs(kernel: SDPBackend, products: int) -> None:
    batch, heads, length, width = 2, 4, 6, 8
    query = values(batch, heads, length, width)

    def work() -> None:
        with sdpa_kernel(kernel):
            attend(query).backward()

    assert counted(True, work)[1] == products * 2 * batch * heads * length * length * width


def test_episodes_together_cost_what_they_cost_one_by_one() -> None:
    episodes, shared = values(3, 2, 4, 5, 8, learned=False), values(8, 8, learned=False)
    each = values(3, 8, 8, learned=False)

    def loss(own: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        return attend(inputs @ shared @ own)

    gradient = grad_and_value(loss)

    def together() -> None:
        vmap(gradient)(each, episodes)

    def one_by_one() -> None:
        for own, inputs in zip(each, episodes, strict=True):
            gradient(own, inputs)

    with sdpa_kernel(SDPBackend.MATH):
        batched, looped = counted(True, together)[1], counted(True, one_by_one)[1]
    positions = 3 * 2 * 4 * 5
    # Through the shared weights, through the own ones and back to them; attention has no gradient to spare: six products.
    assert batched == looped == 3 * 2 * positions * 8 * 8 + 6 * 2 * positions * 5 * 8


def test_the_meter_counts_the_next_call_alone() -> None:
    meter = FlopMeter()
    work = meter.watch(train, train)
    found = []
    for asked in (False, True, False):
        if asked:
            meter.count_next()
        work(values(B, D), values(C, D))
        found.append(meter.flops)
    assert found == [None, 3 * 2 * B * D * C, None]


def test_a_compiled_function_is_run_and_what_it_was_compiled_from_is_counted() -> None:
    def compiled(inputs_BD: torch.Tensor, weights_CD: torch.Tensor) -> torch.Tensor:
        return torch.tensor(42.0)

    meter = FlopMeter()
    meter.count_next()
    assert meter.watch(compiled, train)(values(B, D), values(C, D)) == 42
    assert meter.flops == 3 * 2 * B * D * C


def test_the_processes_add_up() -> None:
    other = torch.tensor([30, 500])
    two = SimpleNamespace(num_processes=2, device="cpu", reduce=lambda mine, reduction: mine + other)
    assert Spent(10, 200).over_processes(cast(Accelerator, two)) == Spent(40, 700)
    assert Spent(10, None).over_processes(cast(Accelerator, two)) == Spent(40, None)
    alone: Any = SimpleNamespace(num_processes=1)
    assert Spent(10, None).over_processes(alone) == Spent(10, None)


@pytest.mark.parametrize(
    ("steps", "first", "flops"),
    [
        ([Spent(10, 200), Spent(30, None), Spent(20, None)], None, 1200.0),
        ([Spent(10, 200), Spent(30, None), Spent(20, None)], 2, 800.0),
        ([Spent(10, 200), Spent(30, None)], 0, 0.0),
        # The run was resumed after the first step.
        ([Spent(10, 200), Spent(30, 999), Spent(20, None)], None, 1200.0),
        ([Spent(10, None), Spent(30, 600)], 1, 200.0),
        ([Spent(10, None)], None, None),
        ([], None, None),
    ],
)
def test_what_was_not_counted_costs_by_its_sub_words(
    steps: list[Spent], first: int | None, flops: float | None
) -> None:
    assert estimated_flops(steps, first) == flops
