"""Hooks against sums written down, on two projections one after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from metaprime.models.encoder import load_encoder
from metaprime.models.sites import LAYOUTS, resolve
from metaprime.peft.injection import add_between, add_to_output, rows_of
from metaprime.rng import torch_stream
from metaprime.types import LayerSites


class Block(nn.Module):
    """Two projections with a nonlinearity between them; may fail in between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 5)
        self.fails = False

    def forward(self, x_BI: torch.Tensor) -> torch.Tensor:
        between = torch.tanh(self.first(x_BI))
        if self.fails:
            raise ValueError("in between")
        return self.second(between)


class Pair(nn.Module):
    """Returns its input with a mark beside it, as layers of some architectures do."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, str]:
        return x, "mark"


@pytest.fixture
def block() -> Block:
    draw = torch_stream(0, "block")
    module = Block().double()
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
    return module


@pytest.fixture
def x_BI() -> torch.Tensor:
    return torch.randn(2, 3, generator=torch_stream(0, "x"), dtype=torch.float64)


def linear(size_in: int, size_out: int) -> nn.Linear:
    module = nn.Linear(size_in, size_out).double()
    draw = torch_stream(0, f"{size_in} {size_out}")
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
    return module


def twice_the_first_less_the_second(h: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    return 2 * h - change


def layer_with(query: nn.Linear, key: nn.Linear) -> LayerSites:
    other = nn.Linear(6, 6)
    return LayerSites(query, key, key, other, other, other, other, None, other)


def test_a_site_has_all_rows_of_its_projection() -> None:
    layer = layer_with(nn.Linear(6, 6), nn.Linear(6, 4))
    assert rows_of(layer, "query") == range(6)
    assert rows_of(layer, "key") == range(4)


def test_a_fused_projection_is_query_then_key_then_value() -> None:
    fused = nn.Linear(6, 18)
    layer = layer_with(fused, fused)
    assert [rows_of(layer, name) for name in ("query", "key", "value")] == [range(6), range(6, 12), range(12, 18)]
    assert rows_of(layer, "ffn_out") == range(6)


@pytest.mark.parametrize("model_type", LAYOUTS)
def test_rows_of_every_architecture_are_as_wide_as_the_heads(
    toy_encoder: Callable[[str], Path], model_type: str
) -> None:
    encoder = load_encoder(str(toy_encoder(model_type)))
    sites = resolve(encoder.module, encoder.layout)
    for layer in sites.layers:
        assert len(rows_of(layer, "query")) == layer.attention_out.in_features
        assert len(rows_of(layer, "key")) == len(rows_of(layer, "value")) == sites.heads * sites.head_width


@pytest.mark.parametrize("of_output", [False, True])
def test_a_change_of_input_or_output_is_added_to_the_output(block: Block, x_BI: torch.Tensor, of_output: bool) -> None:
    plain = block.first(x_BI)
    delta = linear(4, 4) if of_output else linear(3, 4)
    add_to_output(block.first, delta, of_output=of_output)
    torch.testing.assert_close(block.first(x_BI), plain + delta(plain if of_output else x_BI), rtol=0, atol=1e-14)


def test_changes_of_one_site_add_up_in_their_order(block: Block, x_BI: torch.Tensor) -> None:
    plain, deltas = block.first(x_BI), (linear(4, 4), linear(3, 4))
    add_to_output(block.first, deltas[0], of_output=True)
    add_to_output(block.first, deltas[1], of_output=False, compose=twice_the_first_less_the_second)
    expected = 2 * (plain + deltas[0](plain)) - deltas[1](x_BI)
    torch.testing.assert_close(block.first(x_BI), expected, rtol=0, atol=1e-14)


def test_of_several_outputs_the_first_is_changed(x_BI: torch.Tensor) -> None:
    module, delta = Pair(), linear(3, 3)
    add_to_output(module, delta, of_output=True)
    changed, mark = module(x_BI)
    assert mark == "mark"
    torch.testing.assert_close(changed, x_BI + delta(x_BI), rtol=0, atol=1e-14)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("compose", [torch.add, twice_the_first_less_the_second])
def test_a_change_tapped_at_one_site_meets_another(
    block: Block, x_BI: torch.Tensor, before: bool, compose: Any
) -> None:
    delta = linear(3, 4 if before else 5)
    between = torch.tanh(block.first(x_BI))
    change = delta(x_BI)
    expected = block.second(compose(between, change)) if before else compose(block.second(between), change)
    add_between(block.first, delta, block.second, before=before, compose=compose)
    torch.testing.assert_close(block(x_BI), expected, rtol=0, atol=1e-14)


def test_a_pass_that_failed_leaves_nothing_for_the_next(block: Block, x_BI: torch.Tensor) -> None:
    delta = linear(3, 5)
    expected = block(x_BI) + delta(x_BI)
    add_between(block.first, delta, block.second, before=False)
    block.fails = True
    with pytest.raises(ValueError, match="in between"):
        block(10 * x_BI)
    block.fails = False
    for _ in range(2):
        torch.testing.assert_close(block(x_BI), expected, rtol=0, atol=1e-14)


def test_the_change_is_used_once(block: Block, x_BI: torch.Tensor) -> None:
    add_between(block.first, linear(3, 5), block.second, before=False)
    block(x_BI)
    with pytest.raises(IndexError):
        block.second(torch.zeros(2, 4, dtype=torch.float64))
