"""Weights that differ between episodes against a loop over episodes."""

from __future__ import annotations

import pytest
import torch

from metaprime.nn import for_each, linear

T, B, L, I, O = 3, 2, 5, 4, 6  # noqa: E741


@pytest.mark.parametrize("shape", [(T * B, L, I), (T * B, I)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_each_episode_meets_its_own_weights(shape: tuple[int, ...], with_bias: bool) -> None:
    x, weight, bias = torch.randn(shape), torch.randn(T, O, I), torch.randn(T, O) if with_bias else None
    found = linear(x, weight, bias)
    for index in range(T):
        own = slice(index * B, (index + 1) * B)
        alone = torch.nn.functional.linear(x[own], weight[index], None if bias is None else bias[index])
        torch.testing.assert_close(found[own], alone)


def test_shared_weights_are_ordinary_ones() -> None:
    x, weight, bias = torch.randn(T * B, L, I), torch.randn(O, I), torch.randn(O)
    assert torch.equal(linear(x, weight, bias), torch.nn.functional.linear(x, weight, bias))


def test_values_go_to_their_episodes_sentences() -> None:
    shared, own = torch.randn(O, I), torch.randn(T, O, I)
    assert all(torch.equal(one, shared) for one in for_each(shared, 2, T * B))
    spread = for_each(own, 2, T * B)
    assert spread.shape == (T * B, O, I)
    assert all(torch.equal(spread[n], own[n // B]) for n in range(T * B))
