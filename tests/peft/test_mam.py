"""The mix-and-match adapter against both of its formulas at once, and how its config is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from dense_bert import Changes, bert, hidden, randomised
from transformers import AutoModel

from metaprime.config.loading import load_config
from metaprime.models.encoder import load_encoder
from metaprime.models.sites import resolve
from metaprime.peft import METHODS, mam


def test_it_is_a_prefix_and_a_scaled_parallel_adapter(toy_bert: Path) -> None:
    encoder = load_encoder(str(toy_bert))
    config = mam.MamConfig(prefix={"length": 3}, scaled_parallel={"bottleneck": 5})
    modules = randomised(METHODS["mam"].inject(resolve(encoder.module, encoder.layout), config)).double()

    def beside(adapter: torch.nn.Module) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        phi = {name: value.data for name, value in adapter.named_parameters()}
        return lambda h, x: (
            h + 2.0 * (torch.relu(x @ phi["down_weight"].T + phi["down_bias"]) @ phi["up_weight"].T + phi["up_bias"])
        )

    changes = [
        Changes(
            prefix=(modules["prefix"][index].keys.data, modules["prefix"][index].values.data),
            ffn=beside(modules["scaled_parallel"][index]["ffn"]),
        )
        for index in ("0", "1")
    ]
    expected = bert(AutoModel.from_pretrained(toy_bert).double().eval(), changes)
    torch.testing.assert_close(hidden(encoder.module.double()), expected, rtol=0, atol=1e-10)


def test_a_key_that_is_not_given_is_the_compositions() -> None:
    """A scaled parallel adapter by itself is wider, and stronger."""
    config = load_config(None, ["peft.method=mam", "peft.scaled_parallel.scale=3"]).peft
    assert isinstance(config, mam.MamConfig)
    assert (config.scaled_parallel.bottleneck, config.scaled_parallel.scale, config.prefix.length) == (16, 3.0, 16)
    assert not config.identity
