"""The multi-head parallel adapter against its formula, head by head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from dense_bert import Changes, bert, hidden, randomised
from transformers import AutoModel

from metaprime.models.encoder import load_encoder
from metaprime.models.sites import resolve
from metaprime.peft import multihead


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_each_head_has_its_own_keys_and_values(toy_bert: Path, attention: str) -> None:
    encoder = load_encoder(str(toy_bert), attention)
    config = multihead.MultiheadParallelConfig(length=5, scale=2.0)
    modules = randomised(multihead.inject(resolve(encoder.module, encoder.layout), config)).double()

    def beside(module: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        def each(q_BHLd: torch.Tensor) -> torch.Tensor:
            weights = [torch.relu(q_BHLd[:, i] @ module.keys[i].T / 8**0.5) for i in range(4)]
            return 2.0 * torch.stack([weight @ module.values[i] for i, weight in enumerate(weights)], dim=1)

        return each

    stock = AutoModel.from_pretrained(toy_bert).double().eval()
    expected = bert(stock, [Changes(beside=beside(module)) for module in modules.values()])
    torch.testing.assert_close(hidden(encoder.module.double()), expected, rtol=0, atol=1e-10)
    assert (expected - hidden(stock)).abs().max() > 0.05


def test_with_shared_keys_there_is_one_for_every_head_of_the_queries(toy_encoder: Callable[[str], Path]) -> None:
    encoder = load_encoder(str(toy_encoder("eurobert")))
    modules = multihead.inject(resolve(encoder.module, encoder.layout), multihead.MultiheadParallelConfig(length=5))
    assert modules["0"].keys.shape == (4, 5, 8)  # of which two and two share the keys of the text
