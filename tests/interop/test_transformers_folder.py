"""An ordinary token classifier with everything in its weights gives our logits, by architecture and method."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_tuned import ALBERT, EVERY_SITE, INPUTS, logits, made
from transformers import AutoTokenizer

from metaprime.interop.classifier import Tuned
from metaprime.interop.transformers_folder import (
    MERGES,
    load_transformers,
    merged_classifier,
    save_as_transformers,
)
from metaprime.models.task_model import assign
from metaprime.peft import METHODS
from metaprime.rng import torch_stream
from metaprime.types import MetaprimeError

SETTINGS: dict[str, dict[str, Any]] = {"lora": {"rank": 4, "alpha": 3.0, "sites": EVERY_SITE}}
MERGEABLE = [name for name, method in METHODS.items() if issubclass(method.config, (*MERGES,)) or name == "hf"]


def same(toy: Path, saved: Path, method: str) -> None:
    config = METHODS[method].config(**SETTINGS.get(method, {}))
    encoder, labels, model, values = made(toy, config, ALBERT if toy.name.startswith("albert") else None)
    if "adapter.change.indices" in dict(model.adapter.named_buffers("adapter")):
        drawn = model.adapter.get_submodule("change").initial(torch_stream(0, "places"))  # type: ignore[operator]
        values |= {"adapter.change.indices": drawn["indices"]}
    assign(model, values)
    save_as_transformers(Tuned(encoder, config, labels, values), saved)
    found = load_transformers(saved).eval()
    with torch.no_grad():
        theirs = found(**INPUTS).logits[INPUTS["attention_mask"].bool()]
    torch.testing.assert_close(theirs, logits(model, values), rtol=1e-5, atol=1e-4)
    assert tuple(found.config.id2label.values()) == labels
    assert len(AutoTokenizer.from_pretrained(saved)) == len(encoder.tokenizer)


@pytest.mark.parametrize("method", MERGEABLE)
def test_every_mergeable_method_has_our_logits(toy_bert: Path, tmp_path: Path, method: str) -> None:
    same(toy_bert, tmp_path, method)


@pytest.mark.parametrize("method", ["lora", "ia3", "head"])
@pytest.mark.parametrize("model_type", ["distilbert", "deberta-v2", "eurobert", "albert"])
def test_every_architecture_has_our_logits(
    toy_encoder: Callable[[str], Path], tmp_path: Path, model_type: str, method: str
) -> None:
    same(toy_encoder(model_type), tmp_path, method)


def test_theta_is_left_as_it_was(toy_bert: Path) -> None:
    config = METHODS["lora"].config()
    encoder, labels, _, values = made(toy_bert, config)
    before = copy.deepcopy(encoder.module.state_dict())
    model = merged_classifier(Tuned(encoder, config, labels, values))
    assert all(torch.equal(value, before[name]) for name, value in encoder.module.state_dict().items())
    name = "encoder.layer.1.attention.self.value.weight"
    changed = model.get_parameter(f"bert.{name}") - before[name]
    expected = 16 / 8 * values["adapter.1.value.lora_B"] @ values["adapter.1.value.lora_A"]
    torch.testing.assert_close(changed, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "method", "told"),
    [
        ("bert", "pfeiffer", "'pfeiffer' cannot be merged into the"),
        ("bert", "prefix", "'prefix' cannot be merged into the"),
        ("modernbert", "full", "puts more than a linear layer on the encoder"),
    ],
)
def test_what_no_plain_model_computes_is_refused(
    toy_encoder: Callable[[str], Path], tmp_path: Path, model_type: str, method: str, told: str
) -> None:
    config = METHODS[method].config()
    encoder, labels, _, values = made(toy_encoder(model_type), config)
    with pytest.raises(MetaprimeError, match=told):
        save_as_transformers(Tuned(encoder, config, labels, values), tmp_path)
    assert not list(tmp_path.iterdir())
