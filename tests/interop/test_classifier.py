"""The token classifier of an encoder: labels, the place of our head, and addresses that hold anywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_tuned import ALBERT
from transformers import PreTrainedModel

from metaprime.interop.classifier import (
    OF_WORDS,
    Tuned,
    address,
    classifier_path,
    linear_head,
    load_classifier,
    revision,
)
from metaprime.models.encoder import load_encoder
from metaprime.peft import METHODS
from metaprime.tasks.task import Plain
from metaprime.types import MetaprimeError, Params

HEAD = METHODS["head"].config()


def test_the_head_is_weight_and_bias_or_refused(toy_bert: Path) -> None:
    values = {"head.weight": torch.ones(3, 2), "head.bias": torch.zeros(3), "adapter.x": torch.ones(1)}
    encoder = load_encoder(str(toy_bert))

    def tuned(values: Params, plain: Plain = OF_WORDS) -> Tuned:
        """A model of some values."""
        return Tuned(encoder, HEAD, (), values, plain=plain)

    assert set(linear_head(tuned(values))) == {"weight", "bias"}
    with pytest.raises(MetaprimeError, match="holds bias, gate, weight, and other packages have one linear layer"):
        linear_head(tuned(values | {"head.gate": torch.ones(2)}))
    with pytest.raises(MetaprimeError, match="holds nothing"):
        linear_head(tuned({}))
    # A choice's score has no bias; a number is centre + unit times the head's answer.
    assert linear_head(tuned({"head.weight": torch.ones(1, 2)}))["bias"].tolist() == [0.0]
    scaled = linear_head(tuned(values, Plain("AutoModelForSequenceClassification", "first", centre=2.5, unit=2.0)))
    assert scaled["weight"].tolist() == [[2.0, 2.0]] * 3
    assert scaled["bias"].tolist() == [2.5] * 3


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "electra", "deberta-v2", "eurobert", "albert"])
def test_a_linear_head_is_found_with_its_labels(toy_encoder: Callable[[str], Path], model_type: str) -> None:
    layout = ALBERT if model_type == "albert" else None
    encoder = load_encoder(str(toy_encoder(model_type)), layout=layout)
    model = load_classifier(Tuned(encoder, HEAD, ("O", "B-X", "I-X"), {}))
    layer = model.get_submodule(classifier_path(model))
    assert isinstance(layer, nn.Linear)
    assert layer.out_features == 3
    assert model.config.label2id == {"O": 0, "B-X": 1, "I-X": 2}


def test_other_heads_and_missing_classes_are_refused(
    toy_encoder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(str(toy_encoder("modernbert")))
    with pytest.raises(MetaprimeError, match=r"ModernBertForTokenClassification puts more .* \(classifier, head\)"):
        load_classifier(Tuned(encoder, HEAD, ("O", "B-X"), {}))

    def unknown(*parts: object, **named: object) -> PreTrainedModel:
        raise ValueError("Unrecognized configuration class X.\nModel type should be one of many.")

    place = "transformers.AutoModelForTokenClassification.from_pretrained"
    monkeypatch.setattr(place, unknown)
    with pytest.raises(
        MetaprimeError, match=r"by AutoModelForTokenClassification: Unrecognized configuration class X\.$"
    ):
        load_classifier(Tuned(encoder, HEAD, ("O", "B-X"), {}))


def test_an_address_holds_in_every_folder(toy_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy_bert.parent)
    assert address(toy_bert.name) == str(toy_bert)
    assert address("org/name") == "org/name"
    assert revision(toy_bert.name) is None
    assert revision("org/not-in-the-cache") is None
