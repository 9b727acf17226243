"""The config: one file, one frozen value, and a message with a remedy for every mistake in it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from metaprime.config.loading import load_config
from metaprime.config.presets import EMBEDDED
from metaprime.config.sections import Config
from metaprime.peft import METHODS
from metaprime.types import MetaprimeError

Refused = Callable[..., str]
EVERY_KIND = {
    "run": {"output": "runs/x", "seed": 3},
    "encoder": {"name": "models/mini", "attention": "eager", "pretrain": {"steps": 5}},
    "data": {
        "source": "conll:corpus",
        "languages": ["de", "en"],
        "validation_languages": [],
    },
    "task": {"label_map": {"MISC": "O"}, "shuffle_tags": True},
    "episodes": {"tau": 0.5},
    "peft": {"method": "lora", "rank": 4, "sites": ["query", "ffn_in"]},
    "inner": {"steps": 3, "task_chunk": 2},
    "outer": {"clip": None, "adapter_lr": 1e-4},
    "transfer": {"shots": [5, 10], "lr": [0.1, 0.01], "methods": ["lora", {"method": "lora", "rank": 2}, "full"]},
    "provenance": {"inner.lr": "paper", "peft.rank": "recalled"},
}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("inner.steps=-1", "inner.steps"),
        ("inner.lr=0", "inner.lr"),
        ("inner.lr=-0.1", "inner.lr"),
        ("inner.lr=.nan", "inner.lr"),
        ("inner.task_chunk=0", "inner.task_chunk"),
        ("inner.task_chunk=many", "inner.task_chunk"),
        ("data.encoding=klingon", "data.encoding"),
        ("data.encoding=hex", "data.encoding"),
        ("data.sentences=0", "data.sentences"),
        ("data.sentences=lines", "data.sentences"),
        ("task.words=0", "task.words"),
        ("task.tags=[true]", "task.tags"),
        ("task.tags=''", "task.tags"),
        ("outer.lr=0", "outer.lr"),
        ("outer.steps=0", "outer.steps"),
        ("outer.warmup=1.5", "outer.warmup"),
        ("outer.clip=0", "outer.clip"),
        ("outer.checkpoint_every=0", "outer.checkpoint_every"),
        ("outer.keep_checkpoints=0", "outer.keep_checkpoints"),
        ("outer.validate_every=-1", "outer.validate_every"),
        ("outer.early_stop=0", "outer.early_stop"),
        ("episodes.support=0", "episodes.support"),
        ("episodes.query=0", "episodes.query"),
        ("episodes.per_step=0", "episodes.per_step"),
        ("episodes.tau=-1", "episodes.tau"),
        ("data.max_length=7", "data.max_length"),
        ("run.seed=-1", "run.seed"),
        ("run.threads=0", "run.threads"),
        ("transfer.shots=-1", "transfer.shots.0"),
        ("transfer.lr=[0.1, 0]", "transfer.lr.1"),
        ("transfer.steps=0", "transfer.steps"),
        ("transfer.development_share=1", "transfer.development_share"),
        ("peft.bottleneck=0", "peft.bottleneck"),
    ],
)
def test_zero_and_less_where_they_make_no_sense(refused: Refused, text: str, key: str) -> None:
    assert f"config: {key}: input should be " in refused(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("peft.method=lra", ["'lra' is unknown", "did you mean lora?", *METHODS]),
        ("transfer.methods=[prefx]", ["'prefx' is unknown", "did you mean prefix?"]),
        ("transfer.methods=prefx", ["'prefx' is unknown", "did you mean prefix?"]),
        ("learner.name=peft_mamal", ["'peft_mamal' is unknown", "did you mean peft_maml?", "multitask"]),
        ("learner.backend=higher", ["learner.backend", "'torch' or 'learn2learn'", "'higher'"]),
        ("peft=3", ["peft", "method"]),
    ],
)
def test_an_unknown_method_or_learner_names_the_known(refused: Refused, text: str, words: list[str]) -> None:
    message = refused(text)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.validation_languages=[qaa]"], ["held out", "qaa", "languages"]),
        (["outer.early_stop=2", "outer.validate_every=0"], ["outer.early_stop", "outer.validate_every"]),
        (["outer.early_stop=2", "data.validation_languages=[]"], ["outer.early_stop", "data.validation_languages"]),
        (["data.validation_languages=[qai]"], ["held out", "qai", "target_languages"]),
        (["encoder.pretrain.hidden=30"], ["hidden (30)", "multiple of heads (4)"]),
        (["provenance={inner.stps: paper}"], ["provenance", "unknown key inner.stps"]),
        (["provenance={inner.lr: guessed}"], ["provenance.inner.lr", "'guessed'"]),
    ],
)
def test_what_contradicts_itself(refused: Refused, overrides: list[str], words: list[str]) -> None:
    message = refused(*overrides)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("learner", ["peft_maml", "multitask"])
def test_what_priming_refuses_is_no_mistake_of_a_config_that_may_not_prime(learner: str) -> None:
    config = load_config(None, [f"learner.name={learner}", "inner.steps=0", "peft.method=full"])
    assert (config.inner.steps, config.peft.method) == (0, "full")


def test_transfer_methods_are_names_or_mappings() -> None:
    keys = ("peft={method: pfeiffer, bottleneck: 4}", "transfer.methods=[pfeiffer, lora, {method: lora, rank: 4}]")
    config = load_config(None, keys)
    methods = config.methods()
    assert list(methods) == ["pfeiffer", "lora", "lora-rank4"]
    assert methods["pfeiffer"] == config.peft
    assert methods["lora"] == METHODS["lora"].config()
    assert methods["lora-rank4"] == METHODS["lora"].config(rank=4)
    own = {label: values["peft"] for label, values in config.by_method().items()}
    assert own["lora-rank4"] == methods["lora-rank4"].model_dump(mode="json")
    assert own["lora"] == own["pfeiffer"] == config.peft.model_dump(mode="json")


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ("[peft]", ["transfer.methods.0", "'peft' no longer stands for", "pfeiffer", "{method: lora, rank: 4}"]),
        ("[{method: lra}]", ["transfer.methods.0", "'lra' is unknown", "did you mean lora?"]),
        ("[{method: lora, rnk: 4}]", ["unknown key transfer.methods.0.rnk", "did you mean rank?"]),
        ("[lora, lora]", ["'lora' twice"]),
        ("[{method: lora, rank: 4}, {method: lora, rank: 4}]", ["'lora-rank4' twice"]),
        ("[[3]]", ["transfer.methods.0", "mapping with the key `method`"]),
        ("[3]", ["transfer.methods.0", "method '3' is unknown"]),
    ],
)
def test_a_method_that_is_none_is_refused(refused: Refused, methods: str, words: list[str]) -> None:
    message = refused(f"transfer.methods={methods}")
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("task.name=tagging_", ["task: name", "'tagging_' is unknown", "did you mean tagging?"]),
        ("task.lables=[PER]", ["unknown key task.lables", "did you mean labels?"]),
        ("task=3", ["task", "mapping with the key `name`"]),
    ],
)
def test_an_unknown_task_or_key_of_it_names_the_known(refused: Refused, text: str, words: list[str]) -> None:
    message = refused(text)
    assert all(word in message for word in words), message


def test_what_is_dumped_loads_to_the_same(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    for values in ({}, EVERY_KIND):
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        config = load_config(file)
        file.write_text(config.as_yaml(), encoding="utf-8")
        again = load_config(file)
        assert again == config
        assert again.digest() == config.digest()
    given = {"method": "lora", "rank": 4, "alpha": 16.0, "sites": ("query", "ffn_in"), "dropout": 0.0}
    assert config.peft.model_dump() == given


def test_one_number_where_several_may_stand() -> None:
    config = load_config(None, ["transfer.shots=5", "transfer.lr=1e-3", "transfer.seeds=2", "transfer.methods=lora"])
    settings = config.transfer
    assert (settings.shots, settings.lr, settings.seeds, settings.methods) == ((5,), (1e-3,), (2,), ("lora",))


def test_a_config_cannot_be_changed() -> None:
    config = load_config()
    for section, key in ((config, "inner"), (config.inner, "steps"), (config.peft, "bottleneck")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, key, 1)


@pytest.mark.parametrize("name", METHODS)
def test_each_method_has_its_own_keys(refused: Refused, name: str) -> None:
    assert type(load_config(None, [f"peft.method={name}"]).peft) is METHODS[name].config
    foreign = {key for method in METHODS.values() for key in method.config.model_fields}
    for key in foreign - set(METHODS[name].config.model_fields):
        message = refused(f"peft.method={name}", f"peft.{key}=1")
        assert f"unknown key peft.{key}; " in message
        assert f"did you mean {key}?" not in message


def leaves(values: dict[str, Any], place: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in values.items():
        inside = isinstance(value, dict) and value
        found += leaves(value, (*place, key)) if inside else [(*place, key)]
    return found


def test_the_digest_sees_every_field() -> None:
    config = load_config()
    values = config.model_dump(mode="json")
    paths = leaves(values)
    assert len(paths) > 60
    digests = {config.digest()}
    for path in paths:
        # Past validation on purpose: that the content changed is all that matters here.
        changed: Any = "changed"
        for depth in range(len(path) - 1, 0, -1):
            section: Any = config
            for name in path[:depth]:
                section = getattr(section, name)
            changed = section.model_copy(update={path[depth]: changed})
        with warnings.catch_warnings():
            # pydantic warns that the type is another.
            warnings.simplefilter("ignore", UserWarning)
            digests.add(config.model_copy(update={path[0]: changed}).digest())
    assert len(digests) == len(paths) + 1
    assert load_config().digest() == config.digest()


def test_the_digest_of_some_sections_sees_these_only() -> None:
    one, other = load_config(), load_config(None, ["run.seed=1"])
    assert one.digest() != other.digest()
    assert one.digest("data", "peft") == other.digest("data", "peft")
    assert one.digest("run") != other.digest("run")


def test_a_default_config_is_whole() -> None:
    assert load_config() == Config()


@pytest.mark.parametrize("key", ["methods", "shots", "seeds", "lr"])
def test_an_empty_list_is_an_error(key: str) -> None:
    with pytest.raises(MetaprimeError, match=f"{key} is empty"):
        load_config(None, [f"transfer.{key}=[]"])


def test_targets_are_not_primed_on_unless_their_corpus_is_another() -> None:
    overlap = ["data.languages=[qai,qaa]", "data.target_languages=[qai]"]
    with pytest.raises(MetaprimeError, match=r"target_languages must not be primed on, but \['qai'\]"):
        load_config(None, overlap)
    assert load_config(None, [*overlap, "data.target_source=conll:elsewhere"]).data.target_languages == ("qai",)


def test_the_embedded_encoder_reads_the_languages_it_is_primed_on() -> None:
    with pytest.raises(MetaprimeError, match="has not read the languages of 'synthetic:7'"):
        load_config(None, ["data.source=synthetic:7"])
    assert load_config(None, ["data.source=synthetic:7", "encoder.name=synthetic:7"]).data.source == "synthetic:7"


def test_a_corpus_of_ones_own_has_no_languages_of_the_demonstration() -> None:
    own = load_config(None, ["data.source=conll:mine", "data.languages=[de]"]).data
    assert (own.languages, own.validation_languages, own.target_languages) == (("de",), (), ())
    held_out = load_config(None, ["data.validation_source=conll:mine"]).data
    assert (held_out.validation_languages, held_out.target_languages) == ((), Config().data.target_languages)
    targets = load_config(None, ["data.target_source=hub:x", "data.source=synthetic:"]).data
    assert (targets.languages, targets.target_languages) == (Config().data.languages, ())


@pytest.mark.parametrize("override", ["data.source=conll:mine", "encoder.name=mine"])
def test_a_corpus_or_encoder_of_ones_own_needs_an_output(override: str) -> None:
    with pytest.raises(MetaprimeError, match=r"^run\.output is not given: name the folder .*mine"):
        load_config(None, [override]).recorded()
    assert load_config(None, [override, "run.output=there"]).recorded()[0] == Path("there")
    assert load_config(None, ["data.source=synthetic:7", "encoder.name=synthetic:7"]).output == Path("runs/demo")


def test_rates_that_nobody_asked_for_are_not_chosen_from_without_held_out_languages() -> None:
    bare = load_config(None, ["data.validation_languages=[]"]).at_transfer_rates(EMBEDDED, EMBEDDED).transfer
    usual = load_config().at_transfer_rates(EMBEDDED, EMBEDDED).transfer
    assert len(usual.all_rates[0]) > 1
    assert bare.all_rates == [usual.all_rates[0][:1]]
    given = load_config(None, ["data.validation_languages=[]", "transfer.lr=[0.1, 0.3]"])
    assert given.at_transfer_rates(EMBEDDED, EMBEDDED).transfer.lr == (0.1, 0.3)
