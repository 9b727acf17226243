"""An encoder runs, and a word in it sees those behind it, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

from metaprime.models.encoder import load_encoder
from metaprime.models.sites import BERT, LAYOUTS, Layout
from metaprime.types import MetaprimeError

DECODERS: dict[str, tuple[dict[str, Any], Layout]] = {
    "qwen3": ({"num_key_value_heads": 2, "head_dim": 8}, LAYOUTS["eurobert"]),
    "llama": ({"num_key_value_heads": 2}, LAYOUTS["eurobert"]),
    "modernbert-decoder": (
        {"local_attention": 8, "bos_token_id": 2, "cls_token_id": 2, "sep_token_id": 3, "eos_token_id": 3},
        LAYOUTS["modernbert"].model_copy(update={"query": "attn.q_proj", "key": "attn.k_proj", "value": "attn.v_proj"}),
    ),
}
"""Those whose config says nothing of is_decoder."""

Make = Callable[..., Path]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", DECODERS)
def test_a_decoder_is_refused_by_what_it_does(changed_toy: Make, architecture: str, attention: str) -> None:
    changes, layout = DECODERS[architecture]
    folder = changed_toy(architecture, **changes)
    assert not json.loads((folder / "config.json").read_text()).get("is_decoder")
    with pytest.raises(
        MetaprimeError, match=r"no word sees those behind it, as in a decoder.*encoder\.direction: causal"
    ):
        load_encoder(str(folder), attention, layout)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_on_request_it_is_taken_as_it_is(changed_toy: Make, attention: str) -> None:
    changes, layout = DECODERS["qwen3"]
    folder = changed_toy("qwen3", **changes)
    ours = load_encoder(str(folder), attention, layout, direction="causal").module
    ids, mask = torch.randint(5, 60, (2, 9), generator=torch.Generator().manual_seed(0)), torch.ones(2, 9).long()
    mask[1, 6:] = 0
    with torch.no_grad():
        expected = AutoModel.from_pretrained(folder).eval()(input_ids=ids, attention_mask=mask).last_hidden_state
        found = ours(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], rtol=0, atol=1e-5)


@pytest.mark.parametrize("direction", ["both", "causal"])
def test_a_bert_that_is_a_decoder_by_its_config(changed_toy: Make, direction: str) -> None:
    folder = changed_toy("bert", is_decoder=True)
    if direction == "both":
        with pytest.raises(MetaprimeError, match=r"config\.json says is_decoder.*encoder\.direction: causal"):
            load_encoder(str(folder), direction=direction)
    else:
        assert load_encoder(str(folder), direction=direction).module.config.is_decoder


def test_an_encoder_that_does_not_run_is_told_with_its_error(toy_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: object, **inputs: torch.Tensor) -> None:
        raise ValueError("a second image is needed\nwith details")

    monkeypatch.setattr("transformers.models.bert.modeling_bert.BertModel.forward", forward)
    with pytest.raises(
        MetaprimeError, match=r"this BertModel does not run on 9 .*: ValueError: a second image is needed\. "
    ):
        load_encoder(str(toy_bert), layout=BERT)


def test_adapters_of_languages_need_one_that_is_chosen(changed_toy: Make) -> None:
    folder = changed_toy("xmod", languages=["en_XX", "nl_XX"])
    with pytest.raises(
        MetaprimeError, match=r"\(en_XX, nl_XX\), and its config\.json chooses none: set default_language"
    ):
        load_encoder(str(folder), "eager", BERT)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"default_language": "nl_XX"}))
    assert load_encoder(str(folder), "eager", BERT).module.config.default_language == "nl_XX"


def test_what_an_attention_would_drop_is_refused(changed_toy: Make) -> None:
    folder = changed_toy("gemma2", num_key_value_heads=2, head_dim=8)
    with pytest.raises(
        MetaprimeError, match="Gemma2Attention gives its attention a softcap, which metaprime's attention"
    ):
        load_encoder(str(folder), "eager", LAYOUTS["eurobert"], direction="causal")
