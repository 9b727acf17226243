"""Encoders that metaprime has not heard of, from the config to a tagged sentence; and those that cannot be batched."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate import Accelerator
from transformers.models.bert.modeling_bert import BertEmbeddings

from metaprime.build import encoder as opening
from metaprime.config.loading import load_config
from metaprime.config.sections import Config
from metaprime.meta import LEARNERS, Way
from metaprime.models.encoder import load_encoder
from metaprime.peft import METHODS
from metaprime.priming import setup
from metaprime.priming.prime import prime
from metaprime.priming.setup import set_up
from metaprime.transfers.predict import predict
from metaprime.transfers.transfer import transfer
from metaprime.types import MetaprimeError

BERT_LIKE = {
    "layers": "encoder.layer",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_out": "attention.output.dense",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
    "attention": "attention.self",
    "ffn_norm": "output.LayerNorm",
    "unused": ["pooler."],
}
ALBERT = {
    # One layer, used twice.
    "layers": "encoder.albert_layer_groups.0.albert_layers",
    **{name: f"attention.{name}" for name in ("query", "key", "value")},
    "attention_out": "attention.dense",
    "ffn_in": "ffn",
    "ffn_out": "ffn_output",
    "attention": "attention",
    "ffn_norm": "full_layer_layer_norm",
    "unused": ["pooler."],
}
MPNET = {
    **BERT_LIKE,
    **{name: f"attention.attn.{name[0]}" for name in ("query", "key", "value")},
    "attention_out": "attention.attn.o",
    "attention": "attention.attn",
    "positions_after_padding": True,
}
BATCHING = "metaprime.priming.batching"
"""Logger of the choice of how episodes share a pass."""

FOREIGN = {"albert": (ALBERT, "sdpa"), "rembert": (BERT_LIKE, "eager"), "mpnet": (MPNET, "eager")}

Make = Callable[..., Config]


@pytest.fixture
def make(toy_encoder: Callable[[str], Path], tmp_path: Path) -> Make:
    """`make("albert", "inner.lr=0.1")`: a config that primes that toy for two steps on two languages."""

    def make(architecture: str, *overrides: str) -> Config:
        sites, attention = FOREIGN.get(architecture, (None, "sdpa"))
        return load_config(
            None,
            [
                f"run.output={tmp_path / 'run'}",
                f"encoder.name={toy_encoder(architecture)}",
                f"encoder.attention={attention}",
                f"encoder.sites={json.dumps(sites)}",
                "data.languages=[qaa, qaf]",
                "data.validation_languages=[]",
                "data.target_languages=[qai]",
                "episodes.per_step=2",
                "episodes.support=2",
                "episodes.query=2",
                "inner.steps=1",
                "outer.steps=2",
                "outer.warmup=0.5",
                "peft.bottleneck=4",
                "transfer.methods=[pfeiffer]",
                "transfer.shots=4",
                "transfer.steps=2",
                "transfer.lr=0.01",
                "transfer.test_sentences=5",
                *overrides,
            ],
        )

    return make


@pytest.mark.parametrize("architecture", FOREIGN)
def test_with_its_sites_in_the_config_an_unknown_one_goes_all_the_way(make: Make, architecture: str) -> None:
    config = make(architecture)
    folder = prime(config, quiet=True).path
    sites, attention = config.encoder.sites, config.encoder.attention
    assert (
        load_encoder(str(folder), attention, sites).weights
        != load_encoder(config.encoder.name, attention, sites).weights
    )
    # The primed folder says itself with which sites it was primed.
    known = make(architecture, "encoder.sites=null")
    assert len(transfer(known, quiet=True)) == 1
    tuned = Path(config.run.output) / "transfer" / "primed" / "qai-pfeiffer-k4-s0"
    words = [word for word, _ in predict(tuned, "Gipipe pala fede .")]
    assert words == ["Gipipe", "pala", "fede", "."]


XLM = {
    "layers": "attentions",
    **{name: f"{name[0]}_lin" for name in ("query", "key", "value")},
    "attention_out": "out_lin",
    "ffn_in": "ffns.*.lin1",
    "ffn_out": "ffns.*.lin2",
    "attention": "attentions.*",
    "ffn_norm": "layer_norm2.*",
}
LONGFORMER = {**BERT_LIKE, "unused": ["pooler.", "encoder.layer.*.attention.self.*_global"]}
XMOD = {**BERT_LIKE, "unused": ["pooler.", "encoder.layer.*.output.adapter_modules.en_XX"]}
STRANGE = {
    # Attention and feed-forward blocks are in lists of their own.
    "xlm": (XLM, {"emb_dim": 32, "n_layers": 2, "n_heads": 4}),
    # No state of a word depends on the projections of global attention.
    "longformer": (LONGFORMER, {"attention_window": 8}),
    # Its table of positions is fixed.
    "roformer": (BERT_LIKE, {"embedding_size": 32}),
    # Its layers are narrower inside than the states of words.
    "mobilebert": (BERT_LIKE, {"hidden_size": 64, "intra_bottleneck_size": 32, "embedding_size": 16}),
    "xmod": (XMOD, {"languages": ["en_XX", "nl_XX"], "default_language": "nl_XX"}),
}


@pytest.mark.parametrize("architecture", STRANGE)
def test_a_strange_one_is_primed_and_transferred(
    make: Make, changed_toy: Callable[..., Path], architecture: str
) -> None:
    sites, changes = STRANGE[architecture]
    folder = changed_toy(architecture, **changes)
    config = make("bert", f"encoder.name={folder}", "encoder.attention=eager", f"encoder.sites={json.dumps(sites)}")
    prime(config, quiet=True)
    assert len(transfer(config, quiet=True)) == 1


def test_what_no_word_depends_on_is_named_with_its_key_once_for_all_layers(
    make: Make, changed_toy: Callable[..., Path]
) -> None:
    folder = changed_toy("longformer", **STRANGE["longformer"][1])
    config = make("bert", f"encoder.name={folder}", "encoder.attention=eager", f"encoder.sites={json.dumps(BERT_LIKE)}")
    with pytest.raises(MetaprimeError) as caught:
        prime(config, quiet=True)
    (names,) = re.findall(r"under encoder\.sites\.unused: \[(.*)\]", str(caught.value))
    given = {**BERT_LIKE, "unused": ["pooler.", *names.split(", ")]}
    assert len(given["unused"]) == 7
    prime(
        make("bert", *(f"encoder.{key}" for key in (f"name={folder}", "attention=eager", f"sites={json.dumps(given)}")))
    )


@pytest.mark.parametrize("architecture", FOREIGN)
def test_without_them_it_is_told_what_to_give(make: Make, architecture: str) -> None:
    with pytest.raises(MetaprimeError, match=rf"'{architecture}' has no row .* under encoder\.sites: layers, query"):
        prime(make(architecture, "encoder.sites=null"), quiet=True)


THROUGH_THE_INTERFACE = ("prefix", "multihead_parallel", "mam")


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if not method.moves_backbone])
@pytest.mark.parametrize("architecture", FOREIGN)
def test_every_method_is_injected_or_refused_with_the_reason(make: Make, architecture: str, method: str) -> None:
    config = make(architecture, f"peft={{method: {method}}}", "outer.adapter=reset")
    if method in THROUGH_THE_INTERFACE and architecture != "albert":
        with pytest.raises(
            MetaprimeError, match=r"0: never; (prefix\.)?1: never.*not go through transformers' attention interface"
        ):
            set_up(config, Accelerator())
    else:
        run = set_up(config, Accelerator())
        # Packed episodes that cannot share one pass go one after another.
        alone = method in ("mixout", "diff_pruning") or (run.model.packed and not run.model.supports_one_pass)
        assert (run.inner.execution.way is Way.LOOP) == alone


def test_the_longest_sentence_is_told_from_the_sites_given(make: Make) -> None:
    run = set_up(make("mpnet", "data.max_length=512"), Accelerator())
    assert run.encoder.layout.positions_after_padding
    long = [["a"] * 300]
    row = run.task.encode([replace(run.sampler.draw(0, 0)[1][0].example, words=tuple(long[0]), gold=("O",) * 300)])[0]
    assert max(len(window.input_ids) for window in row.windows) == 128


def test_sites_that_are_wrong_are_told_before_anything_is_written(make: Make) -> None:
    wrong = {**ALBERT, "ffn_in": "feed_forward"}
    with pytest.raises(MetaprimeError, match="site 'feed_forward' is not in this AlbertModel"):
        prime(make("albert", f"encoder.sites={json.dumps(wrong)}"), quiet=True)
    swapped = {**ALBERT, "layers": "encoder.albert_layer_groups", "query": "albert_layers.0.attention.query"}
    with pytest.raises(MetaprimeError, match="is not in this AlbertModel"):
        prime(make("albert", f"encoder.sites={json.dumps(swapped)}"), quiet=True)
    assert not Path(make("albert").run.output).exists()


def test_the_example_in_the_docs_is_the_one_tested_here() -> None:
    page = (Path(__file__).parents[1] / "docs" / "encoders.md").read_text("utf-8")
    (text,) = [found for found in re.findall(r"```yaml\n(encoder:.*?)```", page, re.DOTALL) if "rembert" in found]
    encoder = yaml.safe_load(text)["encoder"]
    assert (encoder["sites"], encoder["attention"]) == FOREIGN["rembert"]


@pytest.mark.parametrize(
    ("sites", "told"),
    [
        ({**BERT_LIKE, "qery": "x"}, "unknown key encoder.sites.qery; did you mean query?"),
        ({name: path for name, path in BERT_LIKE.items() if name != "value"}, "encoder.sites.value: field required"),
        ({**BERT_LIKE, "value": "a/b"}, "encoder.sites.value: string should match pattern"),
        ("bert", "encoder.sites: "),
    ],
)
def test_sites_are_validated(sites: object, told: str) -> None:
    with pytest.raises(MetaprimeError) as caught:
        load_config(None, [f"encoder.sites={json.dumps(sites)}"])
    assert told in str(caught.value)


def test_sites_of_a_known_architecture_can_be_overridden(make: Make) -> None:
    sites = {**BERT_LIKE, "ffn_norm": None}
    config = make("bert", f"encoder.sites={json.dumps(sites)}")
    assert set_up(config, Accelerator()).encoder.layout.ffn_norm is None


def test_remote_code_is_asked_for_by_its_key(make: Make) -> None:
    assert make("bert").encoder.trust_remote_code is False
    seen = {}

    def spy(*args: Any, **_: Any) -> Any:
        seen["trusted"] = args[-1]
        raise MetaprimeError("seen")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "load_encoder", spy)
        for trusted in ("false", "true"):
            with pytest.raises(MetaprimeError, match="seen"):
                set_up(make("bert", f"encoder.trust_remote_code={trusted}"), Accelerator())
            assert seen["trusted"] is (trusted == "true")


@pytest.fixture(params=["item", "branch", "shape"])
def stubborn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A BERT that asks a tensor for its value in each forward pass, as `torch.func.vmap` cannot."""
    forward, way = BertEmbeddings.forward, request.param

    def asking(self: BertEmbeddings, input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        embedded = forward(self, input_ids=input_ids, **options)
        if way == "item":
            embedded.sum().item()
        elif way == "shape":
            embedded[embedded > 0].sum()
        elif embedded.sum() > 0:
            embedded = embedded * 1
        return embedded

    monkeypatch.setattr(BertEmbeddings, "forward", asking)


@pytest.mark.usefixtures("stubborn")
def test_what_cannot_be_batched_is_looped_with_one_notice(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        folder = prime(make("bert", "learner.name=maml", "encoder.packed=false"), quiet=True).path
    notices = [record.getMessage() for record in caplog.records if record.name == BATCHING]
    assert len(notices) == 1
    assert "BertModel cannot adapt episodes together (" in notices[0]
    assert "as with inner.batched=false" in notices[0]
    found = load_encoder(str(folder)).weights
    caplog.clear()
    keys = ("learner.name=maml", "encoder.packed=false", "inner.batched=false")
    other = make("bert", *keys, f"run.output={folder.parent}-looped")
    assert found == load_encoder(str(prime(other, quiet=True).path)).weights
    assert not [record for record in caplog.records if record.name == BATCHING]


@pytest.mark.usefixtures("stubborn")
def test_what_needs_no_vmap_is_batched_all_the_same(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    run = set_up(make("bert"), Accelerator())
    assert run.inner.execution.way is Way.ONE_PASS
    assert not [record for record in caplog.records if record.name == BATCHING]


@pytest.mark.parametrize("learner", LEARNERS)
def test_what_can_be_batched_is_batched_without_a_notice(
    make: Make, toy_encoder: Callable[..., Path], caplog: pytest.LogCaptureFixture, learner: str
) -> None:
    encoder = f"encoder.name={toy_encoder('bert', speaks=not LEARNERS[learner].reads_labels)}"
    run = set_up(make("bert", encoder, f"learner.name={learner}", "encoder.packed=false"), Accelerator())
    assert run.inner.execution.way is not Way.LOOP
    assert not [record for record in caplog.records if record.name == BATCHING]


def test_other_errors_are_not_taken_for_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(setup, "_backend_step", lambda asked: broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        set_up(make("bert"), Accelerator())
