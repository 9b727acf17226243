"""BitFit against an encoder whose biases are moved by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from dense_bert import hidden, randomised

from metaprime.models.encoder import load_encoder
from metaprime.models.sites import LAYOUTS, resolve
from metaprime.peft import bitfit
from metaprime.types import MetaprimeError

WITHOUT = ("modernbert", "eurobert")


@pytest.mark.parametrize("model_type", [name for name in LAYOUTS if name not in WITHOUT])
def test_it_is_the_encoder_with_other_biases(toy_encoder: Callable[[str], Path], model_type: str) -> None:
    encoder, moved = (load_encoder(str(toy_encoder(model_type))) for _ in range(2))
    modules = randomised(bitfit.inject(resolve(encoder.module, encoder.layout), bitfit.BitfitConfig()))
    deltas = {path.replace(":", "."): module.delta.data for path, module in modules.items()}
    for path, delta in deltas.items():
        moved.module.get_submodule(path).bias.data += delta
    torch.testing.assert_close(hidden(encoder.module), hidden(moved.module), rtol=0, atol=1e-5)
    named = {name for name, _ in encoder.module.named_parameters() if name.endswith("bias")}
    assert {f"{path}.bias" for path in deltas} == {name for name in named if not name.startswith("pooler.")}


@pytest.mark.parametrize("model_type", WITHOUT)
def test_an_encoder_without_biases_is_refused(toy_encoder: Callable[[str], Path], model_type: str) -> None:
    encoder = load_encoder(str(toy_encoder(model_type)))
    with pytest.raises(MetaprimeError, match="no module of this encoder has a bias"):
        bitfit.inject(resolve(encoder.module, encoder.layout), bitfit.BitfitConfig())


def test_a_convolution_is_refused(changed_toy: Callable[..., Path]) -> None:
    encoder = load_encoder(str(changed_toy("deberta-v2", conv_kernel_size=3, conv_act="gelu")))
    with pytest.raises(MetaprimeError, match=r"encoder\.conv\.conv is a convolution"):
        bitfit.inject(resolve(encoder.module, encoder.layout), bitfit.BitfitConfig())
