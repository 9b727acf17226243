"""Query, key and value are told apart by what a change of each does, not by the names of their modules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from metaprime.models.encoder import load_encoder
from metaprime.models.site_check import checked
from metaprime.models.sites import BERT, LAYOUTS, resolve
from metaprime.peft import METHODS
from metaprime.peft.injection import rows_of
from metaprime.rng import torch_stream
from metaprime.types import Batch, MetaprimeError, Sites

PACKED = BERT.model_copy(update=dict.fromkeys(("query", "key", "value"), "attention.self.in_proj") | {"unused": ()})
"""DeBERTa v1: one projection, whose rows are a head's query, key and value, then the next head's."""

Make = Callable[..., Path]


def batch() -> Batch:
    ids = torch.randint(5, 60, (2, 7), generator=torch_stream(0, "ids"))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def sites_of(folder: Path, layout: Any = None, attention: str = "sdpa") -> Sites:
    encoder = load_encoder(str(folder), attention, layout)
    return checked(resolve(encoder.module, encoder.layout), batch())


def deberta(make: Make) -> Path:
    return make("deberta", relative_attention=True, pos_att_type=["c2p", "p2c"])


@pytest.mark.parametrize("model_type", LAYOUTS)
def test_every_row_of_the_table_passes(toy_encoder: Make, model_type: str) -> None:
    assert all(layer.thirds for layer in sites_of(toy_encoder(model_type)).layers)


def test_small_weights_pass(changed_toy: Make) -> None:
    """Near zero a softmax is nearly in proportion."""
    sites_of(changed_toy("bert", initializer_range=1e-3))


@pytest.mark.parametrize("pair", [("query", "value"), ("key", "value"), ("query", "key")])
def test_names_that_are_exchanged_are_refused(toy_bert: Path, pair: tuple[str, str]) -> None:
    one, other = pair
    exchanged = BERT.model_copy(update={one: getattr(BERT, other), other: getattr(BERT, one)})
    with pytest.raises(
        MetaprimeError, match=rf"encoder\.sites: .*{one}.* of this BertModel do not act as their names say"
    ):
        sites_of(toy_bert, exchanged)


def test_rows_that_are_packed_by_head_are_not_taken_for_thirds(changed_toy: Make) -> None:
    sites = sites_of(deberta(changed_toy), PACKED, "eager")
    assert not any(layer.thirds for layer in sites.layers)
    with pytest.raises(MetaprimeError, match=r"no block of rows is the query: give peft\.sites among attention_out"):
        rows_of(sites.layers[0], "query")
    assert rows_of(sites.layers[0], "ffn_in") == range(64)


@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_methods_that_change_the_three_are_refused_there_and_others_are_not(changed_toy: Make, method: str) -> None:
    sites = sites_of(deberta(changed_toy), PACKED, "eager")
    with pytest.raises(MetaprimeError, match="by one projection, whose rows are not all queries"):
        METHODS[method].inject(sites, METHODS[method].config())
    METHODS["pfeiffer"].inject(sites, METHODS["pfeiffer"].config())
    METHODS["lora"].inject(sites, METHODS["lora"].config(sites=("attention_out",)))


def test_a_sentence_too_short_to_tell_says_nothing(toy_bert: Path) -> None:
    encoder = load_encoder(str(toy_bert))
    sites = resolve(encoder.module, encoder.layout)
    assert checked(sites, {name: tensor[:, :2] for name, tensor in batch().items()}) is sites


def test_it_leaves_no_trace(toy_bert: Path) -> None:
    encoder = load_encoder(str(toy_bert))
    checked(resolve(encoder.module, encoder.layout), batch())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in encoder.module.modules())
