"""LoRA against weights with the term merged in, and against Hugging Face's peft."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel

from metaprime.models.encoder import load_encoder
from metaprime.models.sites import BERT, LAYOUTS, Layout, resolve
from metaprime.peft import lora
from metaprime.rng import torch_stream

EVERY_SITE = ("query", "key", "value", "attention_out", "ffn_in", "ffn_out")
PATHS = {name: getattr(BERT, name) for name in EVERY_SITE}


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(5, 60, (2, 8), generator=torch_stream(0, "ids"))


def stock(folder: Path) -> PreTrainedModel:
    return AutoModel.from_pretrained(folder).eval()


def injected(folder: Path, config: lora.LoraConfig, layout: Layout = BERT) -> tuple[PreTrainedModel, nn.ModuleDict]:
    encoder = stock(folder)
    modules = lora.inject(resolve(encoder, layout), config)
    draw = torch_stream(0, "random phi")
    for parameter in modules.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=draw)
    return encoder, modules


@torch.no_grad()
def hidden(encoder: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    return encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state


@pytest.mark.parametrize("sites", [("query", "value"), EVERY_SITE, *((site,) for site in EVERY_SITE)])
def test_it_is_the_merged_weights(toy_bert: Path, ids: torch.Tensor, sites: tuple[str, ...]) -> None:
    config = lora.LoraConfig(rank=3, alpha=5.0, sites=sites)
    encoder, modules = injected(toy_bert, config)
    merged = stock(toy_bert)
    for index, layer in enumerate(merged.encoder.layer):
        for site in sites:
            term = modules[str(index)][site]
            layer.get_submodule(PATHS[site]).weight.data += 5.0 / 3 * term.lora_B @ term.lora_A
    found = hidden(encoder, ids)
    torch.testing.assert_close(found, hidden(merged, ids), rtol=0, atol=1e-5)
    assert (found - hidden(stock(toy_bert), ids)).abs().max() > 1e-2


@pytest.mark.parametrize("sites", [("query", "value"), ("key",), EVERY_SITE])
@pytest.mark.parametrize("model_type", LAYOUTS)
def test_on_every_architecture_it_is_the_merged_weights(
    toy_encoder: Callable[[str], Path], ids: torch.Tensor, model_type: str, sites: tuple[str, ...]
) -> None:
    """In a fused projection: in its third of the rows. In DeBERTa: also where the projection reads the positions."""
    folder = str(toy_encoder(model_type))
    encoder, merged, bare = (load_encoder(folder) for _ in range(3))
    modules = lora.inject(resolve(encoder.module, encoder.layout), lora.LoraConfig(rank=3, alpha=5.0, sites=sites))
    draw = torch_stream(0, "random phi")
    for parameter in modules.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=draw)
    for index, layer in enumerate(resolve(merged.module, merged.layout).layers):
        for site in sites:
            term = modules[str(index)][site]
            weight = getattr(layer, site).weight.data
            if model_type == "modernbert" and site in ("query", "key", "value"):
                weight = weight.view(3, 32, 32)[("query", "key", "value").index(site)]
            weight += 5.0 / 3 * term.lora_B @ term.lora_A
    found = hidden(encoder.module, ids)
    torch.testing.assert_close(found, hidden(merged.module, ids), rtol=0, atol=1e-5)
    assert (found - hidden(bare.module, ids)).abs().max() > 1e-2


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("model_type", ["bert", "deberta-v2"])
def test_it_is_the_lora_of_hugging_face_peft(
    toy_encoder: Callable[[str], Path], ids: torch.Tensor, model_type: str
) -> None:
    peft = pytest.importorskip("peft")
    folder, layout = toy_encoder(model_type), LAYOUTS[model_type]
    encoder, modules = injected(folder, lora.LoraConfig(rank=4, alpha=16.0), layout)
    names = [path.rpartition(".")[2] for path in (layout.query, layout.value)]
    theirs = peft.get_peft_model(
        stock(folder), peft.LoraConfig(r=4, lora_alpha=16, target_modules=names, lora_dropout=0.0)
    ).eval()
    layers = theirs.get_base_model().encoder.layer
    for index in range(len(layers)):
        for site, terms in modules[str(index)].items():
            projection = layers[index].get_submodule(getattr(layout, site))
            projection.lora_A["default"].weight.data = terms.lora_A.data.clone()
            projection.lora_B["default"].weight.data = terms.lora_B.data.clone()
    torch.testing.assert_close(hidden(encoder, ids), hidden(theirs, ids), rtol=0, atol=1e-5)
    ours = sum(parameter.numel() for parameter in modules.parameters())
    assert sum(parameter.numel() for parameter in theirs.parameters() if parameter.requires_grad) == ours


def test_it_starts_with_a_zero_product() -> None:
    term = lora.LowRank(nn.Linear(400, 30), lora.LoraConfig(rank=50))
    drawn = term.initial(torch_stream(0, "start"))
    assert drawn["lora_A"].shape == (50, 400)
    assert drawn["lora_B"].shape == (30, 50)
    assert not drawn["lora_B"].any()
    assert 0.99 / 20 < float(drawn["lora_A"].abs().max()) <= 1 / 20
    assert float(drawn["lora_A"].std()) == pytest.approx(1 / 20 / 3**0.5, rel=0.02)


def test_without_sites_it_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 item"):
        lora.LoraConfig(sites=())
    with pytest.raises(ValueError, match="Input should be 'query'"):
        lora.LoraConfig(sites=("pooler",))


def test_a_fused_projection_gets_as_many_parameters_as_three(toy_encoder: Callable[[str], Path]) -> None:
    count = {}
    for model_type in ("bert", "modernbert"):
        encoder = load_encoder(str(toy_encoder(model_type)))
        modules = lora.inject(
            resolve(encoder.module, encoder.layout), lora.LoraConfig(rank=4, sites=("query", "value"))
        )
        count[model_type] = {name: tuple(p.shape) for name, p in modules.named_parameters()}
    assert count["bert"] == count["modernbert"]
