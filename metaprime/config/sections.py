"""Defines the config: one YAML file becomes one frozen value; every key is known, every default is here and nowhere else.

config = load_config("recipes/configs/demo.yaml", ["inner.lr=0.1"])
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    model_validator,
)

from metaprime.config.older import addressed
from metaprime.config.yaml import nearest
from metaprime.meta import LEARNERS, Learner
from metaprime.models.sites import Layout
from metaprime.peft import METHODS, MethodConfig
from metaprime.peft.method import label
from metaprime.tasks import TASKS, TaskConfig
from metaprime.types import Section

Share = Annotated[float, Field(ge=0, le=1)]
Names = tuple[str, ...]
Rule = Literal["reset", "keep", "carry_one", "carry_mean", "meta"]

OUTPUT_KEYS = ("run.output", "run.cache")
"""Keys that say where things are kept; no result depends on them."""


class RunConfig(Section):
    """Where results go, and which seed draws everything."""

    output: str = "runs/demo"
    """Folder of the run."""

    seed: NonNegativeInt = 0
    """Seed of every random draw."""

    threads: PositiveInt = 1
    """CPU threads of a process."""

    cache: bool = True
    """Whether tokenised text is kept in `~/.cache/metaprime`."""


class PretrainConfig(Section):
    """The small BERT that `encoder.name: "synthetic:"` pre-trains on the text of all synthetic languages."""

    layers: PositiveInt = 2
    """Transformer layers."""

    hidden: PositiveInt = 128
    """Width D."""

    heads: PositiveInt = 4
    """Attention heads H; D is a multiple of H."""

    vocabulary: PositiveInt = 3000
    """Sub-words of the vocabulary."""

    steps: PositiveInt = 800
    """Training steps."""

    batch: PositiveInt = 24
    """Blocks of text in a batch."""

    length: PositiveInt = 64
    """Sub-words of a block."""

    lr: PositiveFloat = 2e-3
    """Peak learning rate."""

    seed: NonNegativeInt = 0
    """Seed of weights, batches and masks."""

    threads: PositiveInt = 2
    """CPU threads."""

    @model_validator(mode="after")
    def _divisible(self) -> PretrainConfig:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self


class EncoderConfig(Section):
    """theta: the encoder that is primed."""

    name: str = "synthetic:"
    """A hub id, a folder, or `synthetic:` for the embedded encoder."""

    attention: Literal["sdpa", "eager"] = "sdpa"
    """Attention implementation."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` multiplies matrices in it (autocast); weights, gradients and losses stay float32."""

    sites: Layout | None = None
    """Module paths of an architecture that `models/sites.py` has no row for."""

    trust_remote_code: bool = False
    """Whether Python files that come with the checkpoint may be run: only those that you have read."""

    pretrain: PretrainConfig = PretrainConfig()
    """The embedded encoder."""


class DataConfig(Section):
    """Which sentences. Languages are folders of a source."""

    source: str = "synthetic:"
    """URI of the corpus: `conll:DIR`, `jsonl:DIR`, `parquet:DIR`, `hub:NAME` or `synthetic:`."""

    validation_source: str | None = None
    """Source of the held-out languages; null: `source`."""

    target_source: str | None = None
    """Source of the target languages; null: `source`."""

    languages: Names = ("qaa", "qab", "qac", "qaf", "qag", "qah", "qak", "qal", "qam", "qap", "qaq", "qar")
    """Languages that are primed on."""

    validation_languages: Names = ("qad", "qan")
    """Held-out languages, by which stopping points and rates are chosen."""

    target_languages: Names = ("qai", "qao", "qat")
    """Languages that are transferred to."""

    max_length: Annotated[int, Field(ge=8)] = 128
    """Sub-words of a window; longer sentences are read in several."""

    long: Literal["windows", "truncate"] = "windows"
    """What becomes of long sentences: several windows, or the first alone."""

    overlap: Annotated[float, Field(ge=0, le=0.5)] = 0.25
    """Share of a window that the next one repeats at least."""

    train_split: str = "train"
    """Name of the training split."""

    validation_split: str = "validation"
    """Name of the split on which held-out languages are scored."""

    test_split: str = "test"
    """Name of the split on which target languages are scored."""

    @model_validator(mode="after")
    def _held_out(self) -> DataConfig:
        for group in ("languages", "target_languages"):
            if shared := set(self.validation_languages) & set(getattr(self, group)):
                raise ValueError(f"validation_languages must be held out, but {sorted(shared)} are in {group} too")
        if self.target_source is None and (shared := set(self.languages) & set(self.target_languages)):
            raise ValueError(f"target_languages must not be primed on, but {sorted(shared)} are in languages too")
        return self


class EpisodesConfig(Section):
    """What an episode and a meta-step are made of."""

    per_step: PositiveInt = 4
    """T, episodes of a meta-step over all processes."""

    support: PositiveInt = 4
    """Sentences of an inner step."""

    query: PositiveInt = 8
    """Sentences of the query batch."""

    tau: NonNegativeFloat = 0.0
    """A language is drawn with probability proportional to size^tau: 0 is uniform, 1 is by size."""

    length_bands: PositiveInt = 1
    """N > 1: a meta-step draws all its sentences from one N-th of each language, cut by length. There is less padding, and
    every sentence still comes as often, but those of one meta-step are alike."""


def _chunk(value: Any) -> Any:
    """Refuses a wrong `task_chunk` in one message; a union would give one for each of its members."""
    if value in (None, "auto") or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ValueError(f"input should be a number above 0, auto or null, but is {value!r}")


class InnerConfig(Section):
    """The inner loop."""

    steps: NonNegativeInt = 5
    """n, inner steps."""

    lr: PositiveFloat = 0.1
    """alpha, their size."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    """Plain SGD, or Adam."""

    clip: PositiveFloat | None = None
    """Largest norm of an episode's gradient."""

    support: Literal["fresh", "same"] = "fresh"
    """Whether each step has its own support sentences, or every step the same."""

    micro_batch: PositiveInt | None = None
    """Windows of a support batch that go through the encoder at a time; null: all."""

    learn_rates: bool = False
    """Whether every tensor has a rate of its own at every step, which begins as `lr` and is learned at `outer.rates_lr`."""

    order: Literal["first", "second"] = "first"
    """Whether the outer gradient goes through the inner loop (second order) or not."""

    batched: bool = True
    """Whether episodes are adapted together."""

    task_chunk: Annotated[int | Literal["auto"] | None, BeforeValidator(_chunk)] = "auto"
    """Episodes adapted at a time: a number, all (null), or as many as memory has room for and, on a CPU, as save time."""

    compile: bool = False
    """Whether the whole meta-step becomes one program, which takes minutes before the first step."""


class OuterConfig(Section):
    """The outer loop: AdamW on theta, with warm-up and linear decay to zero."""

    lr: PositiveFloat = 2e-3
    """beta, the peak rate."""

    adapter_lr: PositiveFloat | None = None
    """Rate of the adapter, if it is learned; null: `lr`."""

    head_lr: PositiveFloat | None = None
    """Rate of the head, if it is learned; null: `lr`."""

    rates_lr: PositiveFloat | None = None
    """Rate of the learned inner rates; null: `lr`."""

    steps: PositiveInt = 300
    """Meta-steps."""

    warmup: Share = 0.1
    """Share of the steps over which the rate rises."""

    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of matrices; biases and norms are spared."""

    epsilon: PositiveFloat = 1e-6
    """AdamW's epsilon."""

    clip: PositiveFloat | None = 1.0
    """Largest norm of the outer gradient."""

    adapter: Rule = "meta"
    """What becomes of the adapter after a meta-step: `reset` draws it anew for every episode, `keep` starts every episode
    from one draw, `carry_one` and `carry_mean` continue from the last or the mean adapted values, `meta` learns it by the
    outer gradient."""

    head: Rule = "meta"
    """The same for the head. A learner without an inner loop always trains the head."""

    validate_every: NonNegativeInt = 100
    """N > 0: held-out languages are scored before the first step, at N / 2 and at every Nth, and the best weights are
    kept; 0: never, and the last weights are."""

    checkpoint_every: PositiveInt = 100
    """Meta-steps between checkpoints."""

    keep_checkpoints: PositiveInt = 2
    """Checkpoints that are kept."""

    divergence: Annotated[float, Field(gt=1)] | None = 10.0
    """A query loss this many times the running median is reported; null: none is."""

    rollback: bool = False
    """Whether a diverging run returns to its last checkpoint and halves its rates, three times at most."""


class LearnerConfig(Section):
    """Which learner, computed by what."""

    name: str = "peft_maml"
    """Name in `meta/learners.py`."""

    backend: Literal["torch", "learn2learn"] = "torch"
    """`torch` is this package's, `learn2learn` the slow reference."""

    @property
    def value(self) -> Learner:
        """The learner that the name is for."""
        return LEARNERS[self.name]

    @model_validator(mode="after")
    def _known(self) -> LearnerConfig:
        if self.name not in LEARNERS:
            raise ValueError(unknown(f"name {self.name!r}", self.name, LEARNERS))
        return self


def _method_config(value: Any) -> Any:
    """Validates a mapping by the config class of the method that it names."""
    if isinstance(value, MethodConfig):
        return value
    if not isinstance(value, dict):
        raise ValueError("must be a mapping with the key `method`")
    name = value.get("method", "pfeiffer")
    if not isinstance(name, str) or name not in METHODS:
        raise ValueError(unknown(f"method {name!r}", str(name), METHODS))
    return METHODS[name].config.model_validate(value)


def _method_choice(value: Any) -> Any:
    """Validates one of `transfer.methods`: a name, or a mapping as the section `peft` has it."""
    if not isinstance(value, str):
        return _method_config(value)
    if value == "peft":
        raise ValueError(
            "'peft' no longer stands for the method of the section peft: name it, for example pfeiffer, or give its "
            "settings, for example {method: lora, rank: 4}"
        )
    if value not in METHODS:
        raise ValueError(unknown(f"method {value!r}", value, METHODS))
    return value


def _task_config(value: Any) -> Any:
    """Validates the section `task` by the config class of the task that it names."""
    if isinstance(value, TaskConfig):
        return value
    if not isinstance(value, dict):
        raise ValueError("must be a mapping with the key `name`")
    name = value.get("name", "tagging")
    if not isinstance(name, str) or name not in TASKS:
        raise ValueError(unknown(f"name {name!r}", str(name), TASKS))
    return TASKS[name].config.model_validate(value)


PeftConfig = Annotated[SerializeAsAny[MethodConfig], BeforeValidator(_method_config)]
TaskChoice = Annotated[SerializeAsAny[TaskConfig], BeforeValidator(_task_config)]
MethodChoice = Annotated[str | SerializeAsAny[MethodConfig], BeforeValidator(_method_choice)]


def method_label(choice: str | MethodConfig) -> str:
    """Returns the label of one of `transfer.methods`: its name, or name and settings."""
    return choice if isinstance(choice, str) else label(choice)


class TransferConfig(Section):
    """Fine-tuning of the frozen encoder on K sentences of each target language."""

    encoder: str = "primed"
    """`primed` (under run.output), `base` (encoder.name), or a folder or hub id."""

    methods: tuple[MethodChoice, ...] = ("pfeiffer", "head")
    """Methods to fine-tune with: names, or mappings such as `{method: lora, rank: 4}`. A name has the settings of the
    section `peft` where that is its method, its defaults otherwise."""

    shots: tuple[PositiveInt, ...] = (50,)
    """K, labelled sentences of each target language."""

    seeds: tuple[NonNegativeInt, ...] = (0,)
    """Seeds that draw sentences, their order, and fresh adapters and heads."""

    steps: PositiveInt = 100
    """Training steps."""

    batch: PositiveInt = 16
    """Sentences of a step."""

    lr: tuple[PositiveFloat, ...] = (1e-2, 3e-3, 3e-2)
    """Learning rates. Several are tried on the held-out languages, and the best is taken for each method and K; priming's
    own validation uses the first."""

    warmup: Share = 0.1
    """Share of the steps over which the rate rises."""

    weight_decay: NonNegativeFloat = 0.0
    """Weight decay."""

    clip: PositiveFloat | None = 1.0
    """Largest norm of the gradient."""

    stop: Literal["fixed", "development"] = "fixed"
    """`fixed` runs `steps` steps; `development` takes a share of the K out, by which the number of steps is chosen."""

    development_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """That share."""

    evaluate_every: PositiveInt = 20
    """Steps between two looks at the development sentences."""

    test_sentences: PositiveInt | None = None
    """Sentences of a test or validation split that are scored; null: all."""

    start_adapter: Literal["fresh", "primed"] = "fresh"
    """Whether fine-tuning starts from a new adapter, or from the one that priming left."""

    start_head: Literal["fresh", "primed"] = "fresh"
    """The same for the head."""

    leave_out: NonNegativeInt = 0
    """N > 0: trains N times more, each time without one of the K, and records how far the loss on that one moved."""

    @model_validator(mode="before")
    @classmethod
    def _one_or_many(cls, values: Any) -> Any:
        """Accepts `shots: 50` for `shots: [50]`, and so for the other lists."""
        if isinstance(values, dict):
            many = ("methods", "shots", "seeds", "lr")
            return {k: [v] if k in many and not isinstance(v, list | tuple) else v for k, v in values.items()}
        return values

    @model_validator(mode="after")
    def _not_empty(self) -> TransferConfig:
        for key in ("methods", "shots", "seeds", "lr"):
            if not getattr(self, key):
                raise ValueError(f"{key} is empty: give at least one")
        labels = [method_label(method) for method in self.methods]
        if twice := [name for name in labels if labels.count(name) > 1]:
            raise ValueError(f"methods names {twice[0]!r} twice: keep one of them")
        return self


class Config(Section):
    """Everything that a run is made of, one attribute for each section of the YAML file.

    Attributes:
        run: where results go, and the seed.
        encoder: theta, the encoder that is primed.
        data: sources and languages.
        task: the kind of problem and its labels.
        episodes: what an episode and a meta-step are made of.
        peft: the method that priming simulates.
        inner: the inner loop.
        outer: the outer loop.
        learner: what is learned how.
        transfer: fine-tuning on target languages.

    Example:
        >>> metaprime.Config().task.labels
        ('PER', 'ORG', 'LOC')
    """

    run: RunConfig = RunConfig()
    encoder: EncoderConfig = EncoderConfig()
    data: DataConfig = DataConfig()
    task: TaskChoice = TASKS["tagging"].config()
    episodes: EpisodesConfig = EpisodesConfig()
    peft: PeftConfig = METHODS["pfeiffer"].config()
    inner: InnerConfig = InnerConfig()
    outer: OuterConfig = OuterConfig()
    learner: LearnerConfig = LearnerConfig()
    transfer: TransferConfig = TransferConfig()
    provenance: dict[str, Literal["paper", "recalled", "chosen"]] = Field(default_factory=dict)
    """Of a hyper-parameter, by key: whether it is the paper's, recalled, or ours."""

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        schemes = [self.encoder.name.partition(":"), self.data.source.partition(":")]
        if all(scheme[0] == "synthetic" for scheme in schemes) and schemes[0] != schemes[1]:
            raise ValueError(f"encoder.name {self.encoder.name!r} has not read the languages of {self.data.source!r}")
        for key in self.provenance:
            _look_up(self, key)
        return self

    def methods(self) -> dict[str, MethodConfig]:
        """Returns the methods to fine-tune with, each with its settings, by the label that cells and tables have.

        Example: with `transfer: {methods: [head, {method: lora, rank: 4}]}` the labels are `head` and `lora-rank4`.
        """
        return {method_label(choice): self.method(choice) for choice in self.transfer.methods}

    def method(self, choice: str | MethodConfig) -> MethodConfig:
        """Returns the settings that one of `transfer.methods` stands for."""
        if isinstance(choice, MethodConfig):
            return choice
        return self.peft if choice == self.peft.method else METHODS[choice].config()

    def by_method(self) -> dict[str, dict[str, Any]]:
        """Returns the config as JSON that a method's records hold, by label: a mapping replaces the section `peft`."""
        values = self.model_dump(mode="json")
        return {
            method_label(choice): values
            if isinstance(choice, str)
            else {**values, "peft": choice.model_dump(mode="json")}
            for choice in self.transfer.methods
        }

    def facts(self) -> dict[str, Any]:
        """Returns the config as JSON, without where things are kept."""
        values: dict[str, Any] = self.model_dump(mode="json")
        for place in OUTPUT_KEYS:
            section, key = place.split(".")
            values[section].pop(key, None)
        return values

    def as_yaml(self) -> str:
        """Returns the whole config as YAML that `load_config` reads back to an equal value."""
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True))

    def recorded(self) -> tuple[Path, dict[str, Any], str]:
        """Returns what a run records of it: the output directory, `facts` and `as_yaml`."""
        return Path(self.run.output), self.facts(), self.as_yaml()

    def digest(self, *sections: str) -> str:
        """Returns twelve hexadecimal digits that name the content of some sections (all, if none is named).

        The section `task` belongs to `data`. Digests are the same as before that section existed.
        """
        values = addressed(self.model_dump(mode="json"))
        chosen = {name: values[name] for name in sections or values}
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:12]


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    """Returns a message about an unknown word: the nearest known one, and all of them."""
    names = list(known)
    return f"{what} is unknown{nearest(word, names)} (known: {', '.join(names)})"


def _look_up(value: Any, key: str) -> None:
    for part in key.split("."):
        if part not in getattr(type(value), "model_fields", {}):
            raise ValueError(f"provenance names an unknown key {key}")
        value = getattr(value, part)
