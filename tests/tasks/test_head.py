"""The linear output layer: its draw, and one weight for each episode."""

from __future__ import annotations

import torch

from metaprime.rng import torch_stream
from metaprime.tasks.head import LinearHead


def test_it_maps_states_of_words_and_of_texts() -> None:
    head = LinearHead(8, 3)
    hidden = torch.randn(2, 5, 8)
    torch.testing.assert_close(head(hidden)[:, 0], head(hidden[:, 0]))


def test_each_episode_has_its_own_weight() -> None:
    values = [LinearHead(8, 3).initial(torch_stream(seed, "head")) for seed in range(2)]
    stacked = {name: torch.stack([one[name] for one in values]) for name in values[0]}
    states = torch.randn(6, 8)
    found = torch.func.functional_call(LinearHead(8, 3), stacked, (states,))
    for number, one in enumerate(values):
        alone = torch.func.functional_call(LinearHead(8, 3), one, (states[3 * number : 3 * number + 3],))
        torch.testing.assert_close(found[3 * number : 3 * number + 3], alone)


def test_it_is_drawn_as_transformers_draws_classifiers() -> None:
    drawn = LinearHead(1000, 20).initial(torch_stream(0, "head"))
    assert abs(float(drawn["weight"].std()) - 0.02) < 0.001
    assert not drawn["bias"].any()


def test_one_without_a_bias_draws_none() -> None:
    head = LinearHead(8, 1, bias=False)
    drawn = head.initial(torch_stream(0, "head"))
    assert drawn.keys() == {"weight"} == dict(head.named_parameters()).keys()
    states = torch.randn(3, 8)
    torch.testing.assert_close(torch.func.functional_call(head, drawn, (states,)), states @ drawn["weight"].T)
