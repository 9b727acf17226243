"""What is written for Hugging Face's peft gives our logits in a model that peft loads."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch.func import functional_call
from toy_config import started_at
from toy_tuned import ALBERT, EVERY_SITE, INPUTS, logits, made, tagging
from transformers import AutoModelForTokenClassification

from metaprime.config.sections import InnerConfig, LearnerConfig, OuterConfig, TransferConfig
from metaprime.interop.classifier import Tuned
from metaprime.interop.hf_peft import PLANS, load_peft, save_as_peft
from metaprime.meta import LEARNERS, InnerLoop, Way
from metaprime.models.encoder import label_names
from metaprime.models.task_model import TaskModel, functional_loss, initial_values, partition
from metaprime.peft import METHODS
from metaprime.peft.settings import why_not
from metaprime.priming.settings import Sections, check_sections
from metaprime.rng import torch_stream
from metaprime.tasks.task import Task
from metaprime.transfers.finetune import fine_tune
from metaprime.transfers.start import context_over
from metaprime.types import Batch, Episodes, MetaprimeError, Params

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def theirs(folder: Path, saved: Path) -> torch.Tensor:
    config = json.loads((saved / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(folder)
    base = AutoModelForTokenClassification.from_pretrained(folder, num_labels=7)
    loaded = peft.PeftModel.from_pretrained(base, saved).eval()
    with torch.no_grad():
        found: torch.Tensor = loaded(**INPUTS).logits
    return found[INPUTS["attention_mask"].bool()]


@pytest.mark.parametrize(
    ("method", "settings"),
    [("lora", {"rank": 3}), ("lora", {"rank": 4, "alpha": 3.0, "sites": EVERY_SITE}), ("ffn_lora", {}), ("ia3", {})],
    ids=str,
)
@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta", "distilbert", "electra", "deberta-v2", "eurobert"])
def test_the_logits_are_ours(
    toy_encoder: Callable[[str], Path], tmp_path: Path, model_type: str, method: str, settings: dict[str, Any]
) -> None:
    folder = toy_encoder(model_type)
    encoder, labels, model, values = made(folder, METHODS[method].config(**settings))
    save_as_peft(Tuned(encoder, METHODS[method].config(**settings), labels, values), tmp_path)
    expected = logits(model, values)
    torch.testing.assert_close(theirs(folder, tmp_path), expected, rtol=0, atol=1e-5)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert sum(value.numel() for value in stored.values()) == sum(value.numel() for value in values.values())


NARROW: dict[str, dict[str, Any]] = {
    "C3A": {"block_size": 8},
    "MISS": {"r": 4},
    "ROAD": {"group_size": 8},
    "SHIRA": {"r": 2},
    "WAVEFT": {"n_frequency": 20},
}
"""Settings of methods whose defaults are for wider encoders."""


def primed_once(model: TaskModel, task: Task, batch: Batch, fast: Params, unused: tuple[str, ...]) -> None:
    """Asserts that a meta-step moves the adapter, and gives theta the slope of its loss."""
    one, loss = {name: value[None] for name, value in batch.items()}, functional_loss(model, task.loss)
    episodes = Episodes(("qaa",), (0,), 1, (one,), one)
    inner = InnerLoop(lr=0.3, carry=True).executed(way=Way.LOOP)
    theta, start = partition(model, unused).backbone, {name: value[None] for name, value in fast.items()}
    outcome = LEARNERS["peft_maml"].step(loss, theta, start, episodes, inner)
    assert any(not torch.equal(outcome.mean_fast[name], fast[name]) for name in fast if name.startswith("adapter."))

    # Some layers of peft round to float32 inside, so that the differences are coarse.
    draw = torch_stream(0, "direction")
    way = {
        n: torch.randn(v.shape, generator=draw) for n, v in theta.items() if "query.weight" in n or "value.weight" in n
    }
    slope = sum((outcome.gradients[name] * value).sum().item() for name, value in way.items())
    up, down = (
        loss(
            {**theta, **{name: theta[name] + size * value for name, value in way.items()}}, outcome.mean_fast, batch
        ).item()
        for size in (1e-3, -1e-3)
    )
    assert (up - down) / 2e-3 == pytest.approx(slope, rel=0.05, abs=5e-3)


# Some layers of peft warn of a missing compiler, of norms, or of hooks, which are ours.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", [kind.value for kind in peft.PeftType])
def test_every_type_of_peft_is_primed_tuned_and_exported_or_refused(toy_bert: Path, tmp_path: Path, kind: str) -> None:
    settings = {"peft_type": kind, **NARROW.get(kind, {})}
    if reason := why_not(kind):
        with pytest.raises(ValidationError, match=re.escape(f"config.peft_type {kind} {reason}")):
            METHODS["hf"].config(config=settings)
        return
    method = METHODS["hf"].config(config=settings)
    encoder, labels, model, _ = made(toy_bert, method)
    task, rows = tagging(encoder)
    start = {group: initial_values(model, group, torch_stream(0, group)) for group in ("adapter", "head")}
    fast = {**start["adapter"], **start["head"]}
    batch = task.collate(rows)

    # One meta-step of priming: theta learns through an adapter that moves, by the slope of its loss.
    sections = Sections(LearnerConfig(), InnerConfig(), OuterConfig(), method)
    if method.tuning_only:
        with pytest.raises(MetaprimeError, match=f"peft_type {kind} .* no gradient in priming: prime with another"):
            check_sections(sections)
    else:
        check_sections(sections)
        primed_once(model, task, batch, fast, encoder.layout.unused)

    # A transfer, whose result peft's own loader reads.
    context = context_over(model, task, method, TransferConfig(steps=3, batch=2, clip=None), {})
    tuned = fine_tune(context, started_at(fast, rows), 0.05)
    assert any(not torch.equal(tuned.values[name], fast[name]) for name in start["adapter"])
    save_as_peft(Tuned(encoder, method, labels, tuned.values), tmp_path)
    with torch.no_grad():
        found = load_peft(tmp_path, label_names(labels)).eval()(**INPUTS).logits[INPUTS["attention_mask"].bool()]
    torch.testing.assert_close(found, logits(model, tuned.values), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": "all-linear"},
        {"target_modules": "all-linear", "use_dora": True},
        {"target_modules": r".*\.(query|output\.dense)"},
        {"layers_to_transform": [1]},
        {"target_modules": ["dense"], "exclude_modules": ["intermediate.dense"]},
    ],
    ids=str,
)
def test_a_pattern_finds_the_same_modules_again(toy_bert: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    method = METHODS["hf"].config(config={"peft_type": "LORA", "r": 2, **settings})
    encoder, labels, model, values = made(toy_bert, method)
    assert not any("pooler" in name for name in values)
    save_as_peft(Tuned(encoder, method, labels, values), tmp_path)
    with torch.no_grad():
        found = load_peft(tmp_path, label_names(labels)).eval()(**INPUTS).logits[INPUTS["attention_mask"].bool()]
    torch.testing.assert_close(found, logits(model, values), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["lora", "ffn_lora", "ia3", "prompt", "hf"])
def test_layers_that_share_weights_are_written_once(
    toy_encoder: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    folder, method = toy_encoder("albert"), METHODS[name].config()
    encoder, labels, model, values = made(folder, method, ALBERT)
    save_as_peft(Tuned(encoder, method, labels, values), tmp_path)
    base = AutoModelForTokenClassification.from_pretrained(folder, num_labels=7)
    with torch.no_grad():
        found = peft.PeftModel.from_pretrained(base, tmp_path).eval()(**INPUTS).logits[:, -9:]
    torch.testing.assert_close(found[INPUTS["attention_mask"].bool()], logits(model, values), rtol=0, atol=1e-5)


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta", "electra", "eurobert"])
def test_a_prompt_is_ours_behind_its_own_positions(
    toy_encoder: Callable[[str], Path], tmp_path: Path, model_type: str
) -> None:
    folder, method = toy_encoder(model_type), METHODS["prompt"].config(length=5)
    encoder, labels, model, values = made(folder, method)
    save_as_peft(Tuned(encoder, method, labels, values), tmp_path)
    base = AutoModelForTokenClassification.from_pretrained(folder, num_labels=7)
    with torch.no_grad():
        found = peft.PeftModel.from_pretrained(base, tmp_path).eval()(**INPUTS).logits
    assert found.shape == (2, 5 + 9, 7)
    mask = INPUTS["attention_mask"].bool()
    torch.testing.assert_close(found[:, 5:][mask], logits(model, values), rtol=0, atol=1e-5)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlm-roberta", "electra"])
def test_a_prefix_that_shifts_positions_is_ours(
    toy_encoder: Callable[[str], Path], tmp_path: Path, model_type: str
) -> None:
    folder, method = toy_encoder(model_type), METHODS["prefix"].config(length=5, shift_positions=True)
    encoder, labels, model, values = made(folder, method)
    save_as_peft(Tuned(encoder, method, labels, values), tmp_path)
    expected = logits(model, values)
    torch.testing.assert_close(theirs(folder, tmp_path), expected, rtol=0, atol=1e-5)
    plain = made(folder, METHODS["prefix"].config(length=5))[2]
    assert (logits(plain, values) - expected).abs().max() > 1e-3  # the positions do matter


@pytest.mark.parametrize(
    "config",
    [
        {"peft_type": "LORA", "r": 3},
        {"peft_type": "LOHA", "r": 2},
        {"peft_type": "OFT", "target_modules": ["value"], "oft_block_size": 8},
    ],
    ids=str,
)
def test_a_config_of_their_own_goes_back_to_them(toy_bert: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    method = METHODS["hf"].config(config=config)
    encoder, labels, model, values = made(toy_bert, method)
    save_as_peft(Tuned(encoder, method, labels, values), tmp_path)
    torch.testing.assert_close(theirs(toy_bert, tmp_path), logits(model, values), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("lora", {}),
        ("ffn_lora", {}),
        ("ia3", {}),
        ("prompt", {"length": 5}),
        ("prefix", {"length": 5, "shift_positions": True}),
    ],
    ids=str,
)
@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta"])
def test_the_gradients_are_ours(
    toy_encoder: Callable[[str], Path], model_type: str, method: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    folder, config = toy_encoder(model_type), METHODS[method].config(**settings)
    encoder, labels, model, values = made(folder, config)
    values = {name: value.requires_grad_() for name, value in values.items()}
    mask = INPUTS["attention_mask"].bool()
    functional_call(model, values, (INPUTS,))[mask].square().sum().backward()
    save_as_peft(Tuned(encoder, config, labels, {k: v.detach() for k, v in values.items()}), tmp_path)
    base = AutoModelForTokenClassification.from_pretrained(folder, num_labels=7)
    loaded = peft.PeftModel.from_pretrained(base, tmp_path).eval().requires_grad_()
    loaded(**INPUTS).logits[:, -9:][mask].square().sum().backward()
    plan = next(plan for kind, plan in PLANS.items() if isinstance(config, kind))
    layers = [f"{base.base_model_prefix}.encoder.layer.{index}" for index in range(2)]
    gradients = {name: value.grad for name, value in values.items() if value.grad is not None}
    pairs = list(plan(peft, config, encoder.layout, encoder)[1](loaded, layers, gradients))
    assert sum(ours.numel() for _, ours in pairs) == sum(v.numel() for k, v in gradients.items() if "adapter" in k)
    for theirs_, ours in pairs:
        assert theirs_.grad.any()
        torch.testing.assert_close(theirs_.grad, ours.reshape(theirs_.shape), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["lora", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ia3", "prefix", "prompt"))]
)
def test_a_fresh_process_needs_nothing_of_ours(toy_bert: Path, tmp_path: Path, name: str) -> None:
    method = METHODS[name].config(**({"shift_positions": True} if name == "prefix" else {}))
    encoder, labels, model, values = made(toy_bert, method)
    save_as_peft(Tuned(encoder, method, labels, values), tmp_path / "saved")
    save_file(INPUTS, tmp_path / "inputs.safetensors")
    code = f"""
import sys
sys.modules["metaprime"] = None
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForTokenClassification
base = AutoModelForTokenClassification.from_pretrained({str(toy_bert)!r}, num_labels=7)
model = PeftModel.from_pretrained(base, {str(tmp_path / "saved")!r}).eval()
save_file({{"logits": model(**load_file({str(tmp_path / "inputs.safetensors")!r})).logits.detach()}}, {str(tmp_path / "out")!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    found = load_file(tmp_path / "out")["logits"][:, -9:][INPUTS["attention_mask"].bool()]
    torch.testing.assert_close(found, logits(model, values), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "method", "told"),
    [
        ("bert", "pfeiffer", "'pfeiffer' has no equivalent in Hugging Face's peft"),
        ("bert", "head", "'head' has no equivalent in Hugging Face's peft"),
        ("modernbert", "lora", "are one projection"),
        ("bert", "prefix", "positions begin after the prefix, here they did not"),
    ],
)
def test_what_peft_cannot_is_said(
    toy_encoder: Callable[[str], Path], tmp_path: Path, model_type: str, method: str, told: str
) -> None:
    config = METHODS[method].config()
    encoder, labels, _, values = made(toy_encoder(model_type), config)
    with pytest.raises(MetaprimeError, match=told):
        save_as_peft(Tuned(encoder, config, labels, values), tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_peft_it_is_named(toy_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, labels, _, values = made(toy_bert, METHODS["lora"].config())
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MetaprimeError, match="pip install peft"):
        save_as_peft(Tuned(encoder, METHODS["lora"].config(), labels, values), tmp_path)
