"""(IA)3 against its formula, and against Hugging Face's peft."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from dense_bert import Changes, bert, hidden, randomised
from transformers import AutoModel

from metaprime.models.encoder import load_encoder
from metaprime.models.sites import resolve
from metaprime.peft import ia3


def test_it_multiplies_keys_values_and_activations(toy_bert: Path) -> None:
    encoder = load_encoder(str(toy_bert))
    modules = randomised(ia3.inject(resolve(encoder.module, encoder.layout), ia3.Ia3Config())).double()

    def times(module: torch.nn.Module) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        return lambda h, x: h * module.factors.data

    changes = [
        Changes(key=times(layer["key_factors"]), value=times(layer["value_factors"]), inner=times(layer["ffn_factors"]))
        for layer in modules.values()
    ]
    expected = bert(AutoModel.from_pretrained(toy_bert).double().eval(), changes)
    torch.testing.assert_close(hidden(encoder.module.double()), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("model_type", ["bert", "modernbert", "deberta-v2", "distilbert", "eurobert"])
def test_on_every_architecture_it_is_the_weights_times_the_factors(
    toy_encoder: Callable[[str], Path], model_type: str
) -> None:
    """Rows of keys and values, columns of the feed-forward block's second projection. In DeBERTa: in both uses."""
    folder = str(toy_encoder(model_type))
    encoder, merged = load_encoder(folder), load_encoder(folder)
    modules = randomised(ia3.inject(resolve(encoder.module, encoder.layout), ia3.Ia3Config()))
    for index, layer in enumerate(resolve(merged.module, merged.layout).layers):
        factors = {name: module.factors.data for name, module in modules[str(index)].items()}
        for name, projection in (("key", layer.key), ("value", layer.value)):
            third = {"key": slice(32, 64), "value": slice(64, 96)}[name] if layer.key is layer.query else slice(None)
            projection.weight.data[third] *= factors[f"{name}_factors"][:, None]
            if projection.bias is not None:
                projection.bias.data[third] *= factors[f"{name}_factors"]
        layer.ffn_out.weight.data *= factors["ffn_factors"]
    torch.testing.assert_close(hidden(encoder.module), hidden(merged.module), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_it_is_the_ia3_of_hugging_face_peft(toy_bert: Path) -> None:
    peft = pytest.importorskip("peft")
    encoder = load_encoder(str(toy_bert))
    modules = randomised(ia3.inject(resolve(encoder.module, encoder.layout), ia3.Ia3Config()))
    ffn = r"encoder\.layer\.\d+\.output\.dense"
    config = peft.IA3Config(
        target_modules=rf"({ffn})|(.*\.(key|value))", feedforward_modules=rf"{ffn}", task_type="FEATURE_EXTRACTION"
    )
    theirs = peft.get_peft_model(AutoModel.from_pretrained(toy_bert), config).eval()
    for index, layer in enumerate(theirs.get_base_model().encoder.layer):
        own = modules[str(index)]
        for module, name in (
            (layer.attention.self.key, "key_factors"),
            (layer.attention.self.value, "value_factors"),
            (layer.output.dense, "ffn_factors"),
        ):
            weight = module.ia3_l["default"]
            weight.data = own[name].factors.data.clone().view(weight.shape)
    torch.testing.assert_close(hidden(encoder.module), hidden(theirs), rtol=0, atol=1e-5)
    ours = sum(parameter.numel() for parameter in modules.parameters())
    assert sum(parameter.numel() for parameter in theirs.parameters() if parameter.requires_grad) == ours
