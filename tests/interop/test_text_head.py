"""Classifiers of texts that transformers and peft load have our logits, by architecture, kind of task, method and format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from toy_encoders import scaled

from metaprime.build.data import restored_task
from metaprime.build.model import build_model
from metaprime.interop.classifier import Tuned, linear_head, load_classifier, told_to_loader
from metaprime.interop.formats import FORMATS
from metaprime.interop.hf_peft import load_peft
from metaprime.interop.text_head import let_pass
from metaprime.interop.transformers_folder import load_transformers
from metaprime.models.encoder import load_encoder, save_encoder
from metaprime.models.task_model import assign, partition
from metaprime.peft import METHODS
from metaprime.rng import torch_stream
from metaprime.tasks.choice.settings import ChoiceConfig
from metaprime.tasks.classification.settings import ClassificationConfig
from metaprime.tasks.regression.settings import RegressionConfig
from metaprime.tasks.task import Plain
from metaprime.tasks.texts.settings import TextsConfig
from metaprime.types import MetaprimeError

pytest.importorskip("peft")
# peft's own loader, called as users call it, warns of transformers.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

TASKS: dict[str, tuple[TextsConfig, tuple[str, ...]]] = {
    "text": (ClassificationConfig(labels=("no", "maybe", "yes"), pooling="first"), ("Mali bono da Kiro",)),
    "pair": (
        ClassificationConfig(labels=("no", "yes"), pair="second", pooling="first"),
        ("Mali bono da Kiro", "a shorter one"),
    ),
    "number": (RegressionConfig(range=(0, 5), pooling="first"), ("Mali bono da Kiro",)),
    "choice": (ChoiceConfig(pooling="first"), ("Mali bono da Kiro", "this one", "or that other one")),
}
MEAN = Plain("AutoModelForSequenceClassification", "mean")
FAMILIES = ("bert", "roberta", "distilbert", "electra", "deberta-v2", "eurobert")
LOADED = [
    (form, method, family, kind)
    for form, method in (("transformers", "lora"), ("transformers", "head"), ("peft", "lora"))
    for family in FAMILIES
    for kind in TASKS
    # Nobody has a class for these.
    if kind != "choice" or (form == "transformers" and family != "eurobert")
]


def tuned_text(folder: Path, kind: str, method: str) -> tuple[Tuned, torch.Tensor, dict[str, torch.Tensor]]:
    """A tuned model of a text, its answers, and the inputs of transformers' model."""
    config, texts = TASKS[kind]
    encoder, settings = (
        load_encoder(str(folder)),
        METHODS[method].config(**({"shift_positions": True} if method == "prefix" else {})),
    )
    task = restored_task(config, encoder, settings)
    rows = task.encode([task.example(texts)])
    model, batch = build_model(encoder, task, settings, rows), task.collate(rows)
    state, draw = partition(model), torch_stream(0, "phi and head")
    values = {k: 0.3 * torch.randn(v.shape, generator=draw) for k, v in {**state.adapter, **state.head}.items()}
    assign(model, values)
    assert task.plain is not None
    with torch.no_grad():
        answers = model.head(model.encode(batch)[:, 0]) * task.plain.unit + task.plain.centre
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
    if kind == "choice":
        answers, inputs = answers.T, {name: value[None] for name, value in inputs.items()}
    return Tuned(encoder, settings, task.labels, values, plain=task.plain), answers, inputs


@pytest.mark.parametrize(("form", "method", "family", "kind"), LOADED)
def test_a_loaded_model_has_our_answers(
    toy_encoder: Callable[[str], Path], tmp_path: Path, kind: str, family: str, form: str, method: str
) -> None:
    check(toy_encoder(family), tmp_path, kind, form, method)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_loaded_prefix_has_our_answers(toy_encoder: Callable[[str], Path], tmp_path: Path, family: str) -> None:
    check(toy_encoder(family), tmp_path, "pair", "peft", "prefix")


def check(encoder: Path, saved: Path, kind: str, form: str, method: str) -> None:
    """Checks that a saved model, loaded by its own loader, has our answers."""
    tuned, answers, inputs = tuned_text(encoder, kind, method)
    FORMATS[form].save(tuned, saved)
    if form == "peft":
        found = load_peft(saved, told_to_loader(tuned), auto_class=tuned.plain.auto_class)
    else:
        found = load_transformers(saved, auto_class=tuned.plain.auto_class)
    with torch.no_grad():
        logits = found.eval()(**inputs).logits
    torch.testing.assert_close(logits, answers, rtol=1e-5, atol=1e-5)


def test_the_scale_of_features_is_in_the_weights(toy_bert: Path, tmp_path: Path) -> None:
    small = scaled(load_encoder(str(toy_bert)), 0.1)
    save_encoder(small.module, small.tokenizer, tmp_path)
    tuned, _, inputs = tuned_text(tmp_path, "text", "head")
    assert tuned.encoder.scale == 0.0625
    model = load_classifier(tuned).eval()
    let_pass(model, linear_head(tuned))
    states = tuned.encoder.module(**inputs).last_hidden_state[:, 0]
    expected = states / 0.0625 @ tuned.values["head.weight"].T + tuned.values["head.bias"]
    torch.testing.assert_close(model(**inputs).logits, expected, rtol=1e-5, atol=1e-5)


def test_a_mean_is_exported_where_a_class_computes_it(toy_encoder: Callable[[str], Path], tmp_path: Path) -> None:
    tuned, _, inputs = tuned_text(toy_encoder("eurobert"), "text", "head")
    mean = Tuned(tuned.encoder, tuned.method, tuned.labels, tuned.values, plain=MEAN)
    FORMATS["transformers"].save(mean, tmp_path)
    found = load_transformers(tmp_path, auto_class=mean.plain.auto_class).eval()
    states = tuned.encoder.module(**inputs).last_hidden_state.mean(1)
    expected = states / tuned.encoder.scale @ tuned.values["head.weight"].T + tuned.values["head.bias"]
    torch.testing.assert_close(found(**inputs).logits, expected, rtol=1e-5, atol=1e-5)
    tuned, *_ = tuned_text(toy_encoder("bert"), "text", "head")
    with pytest.raises(
        MetaprimeError, match="reads the first sub-word of a text, and this head the mean of all: tune with"
    ):
        load_classifier(Tuned(tuned.encoder, tuned.method, tuned.labels, tuned.values, plain=MEAN))


@pytest.mark.parametrize(
    ("family", "kind", "form", "method", "told"),
    [
        ("modernbert", "text", "transformers", "head", "puts other layers on its encoder than a square one and a head"),
        ("bert", "choice", "peft", "lora", "peft has no loader for MultipleChoice"),
        ("bert", "text", "adapterhub", "pfeiffer", "metaprime writes only heads over words for AdapterHub"),
        (
            "eurobert",
            "choice",
            "transformers",
            "head",
            "by AutoModelForMultipleChoice: Unrecognized configuration class",
        ),
    ],
)
def test_what_no_plain_model_computes_is_refused(
    toy_encoder: Callable[[str], Path], tmp_path: Path, family: str, kind: str, form: str, method: str, told: str
) -> None:
    tuned, *_ = tuned_text(toy_encoder(family), kind, method)
    with pytest.raises(MetaprimeError, match=told):
        FORMATS[form].save(tuned, tmp_path)
    assert not list(tmp_path.iterdir())
