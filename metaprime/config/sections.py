"""Defines the config: its sections, keys, types, ranges and defaults, all of them here and nowhere else.

config = load_config("recipes/configs/demo.yaml", ["inner.lr=0.1"])
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    model_validator,
)

from metaprime.config.code import code_hashes
from metaprime.config.older import addressed
from metaprime.config.presets import Kind, far_above, preset_of, pretrain_rate
from metaprime.config.yaml import nearest, written
from metaprime.data.reading import Format
from metaprime.meta import LEARNERS, Learner
from metaprime.models.sites import Layout
from metaprime.peft import METHODS, MethodConfig
from metaprime.peft import rates as method_rates
from metaprime.peft import settings_of as method_settings
from metaprime.peft.method import label
from metaprime.tasks import TASKS, TaskConfig
from metaprime.tasks import settings_of as task_settings
from metaprime.types import Direction, MetaprimeError, Section, Spacing, is_number

Share = Annotated[float, Field(ge=0, le=1)]
Names = tuple[str, ...]
Rates = tuple[PositiveFloat, ...]
Rule = Literal["reset", "keep", "carry_one", "carry_mean", "meta"]

OPEN_RATES: dict[str, dict[str, None]] = {
    "inner": {"lr": None},
    "outer": {"lr": None, "adapter_lr": None, "head_lr": None},
    "transfer": {"lr": None, "method_lr": None, "head_lr": None},
}
"""Keys of rates that may be null until the kind of encoder is known, by section."""

DEMONSTRATION = "synthetic:"
"""The demonstration's corpus and encoder."""

OUTPUT_KEYS = ("run.output", "run.cache")
"""Keys that choose where files are kept; no result depends on them."""


def is_synthetic(uri: Any) -> bool:
    """Returns True for the demonstration's corpus or encoder: `is_synthetic("synthetic:7")`."""
    return isinstance(uri, str) and uri.partition(":")[0] == "synthetic"


class RunConfig(Section):
    """Output folder, seed, CPU threads and cache of a run."""

    output: str = "runs/demo"
    """Folder that the run is written to; it has no default where encoder or corpus are one's own."""

    seed: NonNegativeInt = 0
    """Seed of every random draw, at least 0."""

    threads: PositiveInt = 1
    """CPU threads of each process, at least 1."""

    cache: bool = True
    """True keeps tokenised text in `~/.cache/metaprime` for later runs."""

    code: Annotated[tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)] = ()
    """Python files of your own, one or a list, whose methods, learners, tasks and corpora join those of the
    package; see docs/own_code.md."""


def _given(rate: float | None) -> float:
    """Returns a rate that `Config.at_rates` has filled in."""
    assert rate is not None, "a config is put at the rates of its encoder first"
    return rate


class PretrainConfig(Section):
    """The small BERT that `encoder.name: "synthetic:"` pre-trains on all synthetic languages."""

    layers: PositiveInt = 2
    """Number of transformer layers, at least 1."""

    hidden: PositiveInt = 128
    """Hidden width D, at least 1."""

    heads: PositiveInt = 4
    """Number of attention heads H, at least 1; D is a multiple of H."""

    vocabulary: PositiveInt = 3000
    """Number of sub-words in the vocabulary, at least 1."""

    steps: PositiveInt = 800
    """Number of training steps, at least 1."""

    batch: PositiveInt = 24
    """Blocks of text in a batch, at least 1."""

    length: PositiveInt = 64
    """Length of a block in sub-words, at least 1."""

    lr: PositiveFloat | None = None
    """Peak learning rate, above 0; null: 2e-3 up to a width of 128, less for wider ones."""

    seed: NonNegativeInt = 0
    """Seed of weights, batches and masks, at least 0."""

    threads: PositiveInt = 2
    """CPU threads of pre-training, at least 1."""

    @property
    def rate(self) -> float:
        """The rate, or that of this width if it is null."""
        return self.lr or pretrain_rate(self.hidden)

    @model_validator(mode="after")
    def _divisible(self) -> PretrainConfig:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self


class EncoderConfig(Section):
    """The encoder theta that is primed."""

    name: str = "synthetic:"
    """Hub id, folder, or `synthetic:` for the embedded encoder."""

    attention: Literal["sdpa", "eager"] = "sdpa"
    """Attention implementation of transformers: `sdpa` or `eager`."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix products: `float32`, or `bfloat16` by autocast; weights, gradients and losses
    stay float32."""

    packed: bool = True
    """True computes the sub-words of a batch in one row, without padding, where the encoder can; False pads."""

    layer: PositiveInt | None = None
    """Number of layers to keep, counted from the input; the head reads the last one kept. null: all."""

    sites: Layout | None = None
    """Module paths for an architecture that `models/sites.py` has no row for; null: its row."""

    spacing: Spacing = "auto"
    """The space before a word that comes alone: `auto` puts it there if words in running text have it as part of
    their sub-words, `space` always, `none` leaves the tokenizer as its folder has it."""

    direction: Direction = "both"
    """The words that a word sees: `both` refuses an encoder that shows it only those before it, as decoders do;
    `causal` takes it as it is."""

    trust_remote_code: bool = False
    """True runs Python files that come with the checkpoint: allow only those that you have read."""

    pretrain: PretrainConfig = PretrainConfig()
    """Size and pre-training of the embedded encoder."""


def _encoding(name: str) -> str:
    """Validates the name of an encoding of text."""
    try:
        "".encode(name)
    except (LookupError, ValueError):
        raise ValueError(
            f"input should be an encoding of text that Python knows, e.g. utf-8 or cp1251, but is {name!r}"
        ) from None
    return name


def _sentences(value: Any) -> Any:
    """Validates `sentences` with one message; a union would give one for each of its members."""
    if value in ("auto", "blank_lines") or is_number(value):
        return value
    raise ValueError(f"input should be auto, blank_lines or the number of a column from 1, but is {value!r}")


class DataConfig(Section):
    """Corpora, languages, splits and the length of inputs."""

    source: str = "synthetic:"
    """URI of the corpus: `conll:DIR`, `jsonl:DIR`, `parquet:DIR`, `hub:NAME` or `synthetic:`."""

    encoding: Annotated[str, AfterValidator(_encoding)] = "utf-8"
    """Encoding of text files, a name that Python knows; a file with a byte order mark is read as it says."""

    sentences: Annotated[int | Literal["auto", "blank_lines"], BeforeValidator(_sentences)] = "auto"
    """Ends of sentences in CoNLL files: `blank_lines`, the number of the column that numbers the sentences,
    or `auto`: blank lines, or that column in a file that has none."""

    validation_source: str | None = None
    """URI of the corpus of the held-out languages; null: `source`."""

    target_source: str | None = None
    """URI of the corpus of the target languages; null: `source`."""

    languages: Names = ("qaa", "qab", "qac", "qaf", "qag", "qah", "qak", "qal", "qam", "qap", "qaq", "qar")
    """Languages of priming, each the name of a folder of the source. Like the next two, none where the
    corpus is one's own."""

    validation_languages: Names = ("qad", "qan")
    """Held-out languages, which choose stopping points and learning rates."""

    target_languages: Names = ("qai", "qao", "qat")
    """Languages of transfer, on which fine-tuned encoders are scored."""

    max_length: Annotated[int, Field(ge=8)] = 128
    """Length of a window in sub-words, at least 8."""

    long: Literal["windows", "truncate"] = "windows"
    """Long sentences: `windows` reads all of them in several windows, `truncate` keeps the first window."""

    overlap: Annotated[float, Field(ge=0, le=0.5)] = 0.25
    """Smallest share of a window that the next window repeats, 0 to 0.5."""

    train_split: str = "train"
    """Name of the training split."""

    validation_split: str = "validation"
    """Name of the split that scores held-out languages."""

    test_split: str = "test"
    """Name of the split that scores target languages."""

    @property
    def form(self) -> Format:
        """What the section states about the format of files."""
        return Format(encoding=self.encoding, sentences=self.sentences)

    @model_validator(mode="before")
    @classmethod
    def _not_those_of_the_demonstration(cls, values: Any) -> Any:
        """Gives a corpus of one's own no languages by default: it does not have the demonstration's."""
        if not isinstance(values, dict):
            return values
        source = values.get("source", DEMONSTRATION)
        uses = {
            "languages": source,
            "validation_languages": values.get("validation_source") or source,
            "target_languages": values.get("target_source") or source,
        }
        return {key: () for key, uri in uses.items() if not is_synthetic(uri)} | values

    @model_validator(mode="after")
    def _held_out(self) -> DataConfig:
        for group in ("languages", "target_languages"):
            if shared := set(self.validation_languages) & set(getattr(self, group)):
                raise ValueError(f"validation_languages must be held out, but {sorted(shared)} are in {group} too")
        if self.target_source is None and (shared := set(self.languages) & set(self.target_languages)):
            raise ValueError(f"target_languages must not be primed on, but {sorted(shared)} are in languages too")
        return self


class EpisodesConfig(Section):
    """Sizes and sampling of episodes and meta-steps."""

    per_step: PositiveInt = 4
    """Episodes T of a meta-step, over all processes, at least 1."""

    support: PositiveInt = 4
    """Sentences of an inner step, at least 1."""

    query: PositiveInt = 8
    """Sentences of the query batch, at least 1."""

    tau: NonNegativeFloat = 0.0
    """Exponent of language sampling, at least 0: a language's probability is proportional to size^tau."""

    length_bands: PositiveInt = 1
    """Number of bands that each language is cut into by sentence length, at least 1. A meta-step draws
    from one band: less padding, each sentence as often, but sentences of one meta-step are alike."""


def _chunk(value: Any) -> Any:
    """Validates `task_chunk` with one message; a union would give one for each of its members."""
    if value in (None, "auto") or (is_number(value)):
        return value
    raise ValueError(f"input should be a number above 0, auto or null, but is {value!r}")


class InnerConfig(Section):
    """The inner loop: its steps, optimizer, support sentences and execution."""

    steps: NonNegativeInt = 5
    """Number of inner steps n, at least 0."""

    lr: PositiveFloat | None = None
    """Inner learning rate alpha, above 0; null: the preset of this kind of encoder."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    """Inner optimizer: plain `sgd`, or `adam`."""

    clip: PositiveFloat | None = None
    """Largest norm of an episode's gradient, above 0; null: no clipping."""

    support: Literal["fresh", "same"] = "fresh"
    """Support sentences: `fresh` draws new ones for each inner step, `same` reuses those of the first."""

    micro_batch: PositiveInt | None = None
    """Windows of a support batch that the encoder reads at a time, at least 1; null: all."""

    learn_rates: bool = False
    """True learns a rate for each tensor and inner step, which starts at `lr` and moves at
    `outer.rates_lr`."""

    order: Literal["first", "second"] = "first"
    """Order of the outer gradient: `second` differentiates through the inner loop, `first` does not."""

    batched: bool = True
    """True adapts episodes together, False one by one."""

    task_chunk: Annotated[int | Literal["auto"] | None, BeforeValidator(_chunk)] = "auto"
    """Episodes adapted at a time, at least 1; null: all; `auto`: as many as fit into memory and, on a CPU,
    save time."""

    compile: bool = False
    """True compiles the whole meta-step, which takes minutes before the first step."""

    @property
    def rate(self) -> float:
        """The rate, of a config that is at the rates of its encoder (`Config.at_rates`)."""
        return _given(self.lr)


class OuterConfig(Section):
    """The outer loop: AdamW on theta, with warm-up and linear decay to zero, and checkpoints."""

    lr: PositiveFloat | None = None
    """Peak outer learning rate beta, above 0; null: the preset of this kind of encoder."""

    adapter_lr: PositiveFloat | None = None
    """Peak rate of a learned adapter, above 0; null: `lr`, or the preset if that is null too."""

    head_lr: PositiveFloat | None = None
    """Peak rate of a learned head, above 0; null: `lr`, or the preset if that is null too."""

    rates_lr: PositiveFloat | None = None
    """Peak rate of learned inner rates, above 0; null: `lr`."""

    steps: PositiveInt = 300
    """Number of meta-steps, at least 1."""

    warmup: Share = 0.1
    """Share of the meta-steps over which the rate rises, 0 to 1."""

    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of matrices, at least 0; biases and norms have none."""

    epsilon: PositiveFloat = 1e-6
    """AdamW's epsilon, above 0."""

    clip: PositiveFloat | None = 1.0
    """Largest norm of the outer gradient, above 0; null: no clipping."""

    adapter: Rule = "meta"
    """Start of the adapter in an episode: `reset` draws it anew, `keep` repeats one draw, `carry_one` and
    `carry_mean` take the last or the mean adapted values, `meta` learns it by the outer gradient."""

    head: Rule = "meta"
    """Start of the head in an episode, by the rules of `adapter`; a learner without an inner loop always
    trains the head."""

    validate_every: NonNegativeInt = 100
    """Meta-steps N between scores of the held-out languages, which are also scored before the first step
    and at N / 2; the best weights are kept. 0: never scored, and the last weights are kept."""

    early_stop: PositiveInt | None = None
    """Scores of the held-out languages in a row without a better one that end priming, at least 1; null: all
    meta-steps are taken."""

    checkpoint_every: PositiveInt = 100
    """Meta-steps between checkpoints, at least 1."""

    keep_checkpoints: PositiveInt = 2
    """Number of checkpoints that are kept, at least 1."""

    divergence: Annotated[float, Field(gt=1)] | None = 10.0
    """Factor above 1: a query loss this many times the running median is reported; null: never."""

    patience: PositiveInt | None = 3
    """Checks in a row that find the encoder collapsed before the run stops, at least 1; null: never."""

    rollback: bool = False
    """True returns a diverging run to its last checkpoint with half the rates, three times at most."""

    @property
    def rate(self) -> float:
        """The rate, of a config that is at the rates of its encoder (`Config.at_rates`)."""
        return _given(self.lr)


class LearnerConfig(Section):
    """The meta-learner and its backend."""

    name: str = "peft_maml"
    """Name of the learner, one of `meta/learners.py`."""

    backend: Literal["torch", "learn2learn"] = "torch"
    """Backend: `torch` is this package's own, `learn2learn` the slow reference."""

    @property
    def value(self) -> Learner:
        """The learner of this name."""
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
    return method_settings(name).model_validate(value)


def _method_choice(value: Any) -> Any:
    """Validates one of `transfer.methods`: a name, or a mapping with the keys of the section `peft`."""
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
    return task_settings(name).model_validate(value)


PeftConfig = Annotated[SerializeAsAny[MethodConfig], BeforeValidator(_method_config)]
TaskChoice = Annotated[SerializeAsAny[TaskConfig], BeforeValidator(_task_config)]
MethodChoice = Annotated[str | SerializeAsAny[MethodConfig], BeforeValidator(_method_choice)]


def _wrapped(value: Any) -> Any:
    """Returns a single value as a list of one; a list and null stay as they are."""
    # A null of a file is a Scalar that equals None.
    return value if isinstance(value, list | tuple) or value in (None,) else [value]


def method_label(choice: str | MethodConfig) -> str:
    """Returns the label of one of `transfer.methods`: its name, or name and settings.

    Args:
        choice: a method's name, or its settings.

    Example: `method_label("lora")` is `lora`; with the rank set to 4 the label is `lora-rank4`.
    """
    return choice if isinstance(choice, str) else label(choice)


class TransferConfig(Section):
    """Fine-tuning of the frozen encoder on K sentences of each target language."""

    encoder: str = "primed"
    """Encoder to fine-tune: `primed` (in run.output), `base` (encoder.name), a folder or a hub id."""

    methods: tuple[MethodChoice, ...] = ("pfeiffer", "head")
    """Methods to fine-tune with: names, or mappings such as `{method: lora, rank: 4}`. A name takes the
    settings of the section `peft` if they are for this method, its defaults otherwise."""

    shots: tuple[NonNegativeInt, ...] = (50,)
    """Labelled sentences K of each target language, each at least 0; 0 scores the primed adapter and head
    as they are, which `start_adapter` and `start_head` must ask for."""

    seeds: tuple[NonNegativeInt, ...] = (0,)
    """Seeds of sentences, their order, and fresh adapters and heads, each at least 0."""

    steps: PositiveInt = 100
    """Number of training steps, at least 1."""

    batch: PositiveInt = 16
    """Sentences of a training step, at least 1."""

    lr: Rates | None = None
    """Peak learning rates, each above 0; null: the presets of this kind of encoder. Of several, the
    held-out languages choose the best for each method and K; validation during priming uses the first."""

    method_lr: dict[str, Rates] | None = None
    """Peak learning rates by the name of the method, where one differs from `lr`: `{ia3: 3e-2}`; null: none
    does, or the presets if `lr` is null too."""

    head_lr: PositiveFloat | None = None
    """Peak rate of the head beside an adapter, above 0; null: that of the adapter, or the preset if
    `lr` is null too. Head tuning has the rate `lr`."""

    warmup: Share = 0.1
    """Share of the training steps over which the rate rises, 0 to 1."""

    weight_decay: NonNegativeFloat = 0.0
    """Weight decay, at least 0."""

    clip: PositiveFloat | None = 1.0
    """Largest norm of the gradient, above 0; null: no clipping."""

    stop: Literal["fixed", "development"] = "fixed"
    """Stopping rule: `fixed` runs `steps` steps; `development` chooses their number on a share of the K
    sentences that training leaves out."""

    development_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the K sentences that `stop: development` leaves out, between 0 and 1."""

    evaluate_every: PositiveInt = 20
    """Training steps between two evaluations on the development sentences, at least 1."""

    test_sentences: PositiveInt | None = None
    """Sentences of a test or validation split that are scored, at least 1; null: all."""

    start_adapter: Literal["fresh", "primed"] = "fresh"
    """Start of the adapter: `fresh` draws a new one, `primed` takes the one that priming saved."""

    start_head: Literal["fresh", "primed"] = "fresh"
    """Start of the head: `fresh` draws a new one, `primed` takes the one that priming saved."""

    leave_out: NonNegativeInt = 0
    """Number of trainings that are repeated without one of the K sentences, at least 0; each records how
    far the loss on that sentence moved."""

    @model_validator(mode="before")
    @classmethod
    def _one_or_many(cls, values: Any) -> Any:
        """Wraps a single value of a list key, such as `shots: 50`, in a list."""
        if isinstance(values, dict):
            many = ("methods", "shots", "seeds", "lr")
            values = {k: _wrapped(v) if k in many else v for k, v in values.items()}
            if isinstance(by_method := values.get("method_lr"), dict):
                values["method_lr"] = {name: _wrapped(rates) for name, rates in by_method.items()}
        return values

    @model_validator(mode="after")
    def _not_empty(self) -> TransferConfig:
        for key in ("methods", "shots", "seeds", "lr"):
            if getattr(self, key) == ():
                raise ValueError(f"{key} is empty: give at least one")
        for name, rates in (self.method_lr or {}).items():
            if name not in METHODS:
                raise ValueError(f"method_lr: {unknown(f'method {name!r}', name, METHODS)}")
            if not rates:
                raise ValueError(f"method_lr.{name} is empty: give at least one")
        labels = [method_label(method) for method in self.methods]
        if twice := [name for name in labels if labels.count(name) > 1]:
            raise ValueError(f"methods names {twice[0]!r} twice: keep one of them")
        return self

    def at_first_rates(self, given: Mapping[str, Rates]) -> TransferConfig:
        """Returns the section with the first of several rates, but for methods whose rates were given.

        Args:
            given: method -> rates of the config as it was written.

        Example: `TransferConfig(lr=(0.01, 0.03)).at_first_rates({}).lr` is `(0.01,)`.
        """
        by_method = {name: given.get(name, rates[:1]) for name, rates in (self.method_lr or {}).items()}
        return self.model_copy(update={"lr": self.lr and self.lr[:1], "method_lr": by_method or None})

    @property
    def all_rates(self) -> list[Rates]:
        """The rates that methods can have; none are known of a config that is not at the rates of an encoder."""
        return [rates for rates in (self.lr, *(self.method_lr or {}).values()) if rates]

    def rates(self, method: MethodConfig) -> Rates:
        """Returns the rates of one method, of a config that is at the rates of its encoder (`Config.at_rates`).

        Args:
            method: settings of the method.

        Example: `settings.rates(LoraConfig())`.
        """
        found = (self.method_lr or {}).get(method.method, self.lr)
        assert found is not None, "a config is put at the rates of its encoder first"
        return found


class Config(Section):
    """The complete config of a run, one attribute for each section of the YAML file.

    Attributes:
        run: output folder, seed, CPU threads and cache.
        encoder: the encoder theta that is primed.
        data: corpora, languages and splits.
        task: the kind of problem and its labels.
        episodes: sizes and sampling of episodes and meta-steps.
        peft: the method that priming simulates.
        inner: the inner loop.
        outer: the outer loop.
        learner: the meta-learner and its backend.
        transfer: fine-tuning on target languages.
        provenance: origin of each hyper-parameter, by key.

    Example:
        >>> metaprime.Config().task.labels
        ('PER', 'ORG', 'LOC')
    """

    run: RunConfig = RunConfig()
    encoder: EncoderConfig = EncoderConfig()
    data: DataConfig = DataConfig()
    task: TaskChoice = task_settings("tagging")()
    episodes: EpisodesConfig = EpisodesConfig()
    peft: PeftConfig = method_settings("pfeiffer")()
    inner: InnerConfig = InnerConfig()
    outer: OuterConfig = OuterConfig()
    learner: LearnerConfig = LearnerConfig()
    transfer: TransferConfig = TransferConfig()
    provenance: dict[str, Literal["paper", "recalled", "chosen"]] = Field(default_factory=dict)
    """Origin of each hyper-parameter, by key: stated in the `paper`, `recalled` without a source, or
    `chosen` here."""

    @model_validator(mode="before")
    @classmethod
    def _not_the_folder_of_the_demonstration(cls, values: Any) -> Any:
        """Gives a run with an encoder or a corpus of one's own no output folder by default."""
        if not isinstance(values, dict):
            return values
        run, encoder, data = (values.get(name, {}) for name in ("run", "encoder", "data"))
        if not all(isinstance(section, dict) for section in (run, encoder, data)):
            return values
        own = [uri for uri in (encoder.get("name"), data.get("source")) if uri is not None and not is_synthetic(uri)]
        return {**values, "run": {"output": "", **run}} if own else values

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        schemes = [self.encoder.name.partition(":"), self.data.source.partition(":")]
        if all(scheme[0] == "synthetic" for scheme in schemes) and schemes[0] != schemes[1]:
            raise ValueError(f"encoder.name {self.encoder.name!r} has not read the languages of {self.data.source!r}")
        if self.outer.early_stop and not (self.outer.validate_every and self.data.validation_languages):
            raise ValueError(
                "outer.early_stop ends priming by its held-out scores, and there are none: name data.validation_languages "
                "and set outer.validate_every, or set outer.early_stop: null"
            )
        for key in self.provenance:
            _look_up(self, key)
        return self

    @property
    def output(self) -> Path:
        """The folder that the run is written to.

        Raises:
            MetaprimeError: `run.output` is empty.
        """
        if not self.run.output:
            raise MetaprimeError(
                f"run.output is not given: name the folder that this run with {self.encoder.name} and {self.data.source} is "
                "written to, for example run.output=runs/mine"
            )
        return Path(self.run.output)

    @property
    def asks_for_rates(self) -> bool:
        """True if a rate is null that depends on the kind of encoder."""
        return None in (self.inner.lr, self.outer.lr, self.transfer.lr)

    def at_rates(self, primed: Kind, tuned: Kind) -> Config:
        """Returns the config with a rate for each key of a rate that is null.

        Args:
            primed: kind of the encoder that is primed.
            tuned: kind of the encoder that transfers start from.

        Example: `Config().at_rates(EMBEDDED, EMBEDDED).outer.lr` is 0.002.
        """
        methods = {} if tuned.embedded else method_rates()
        changes: dict[str, Any] = {}
        for name, kind in (("inner", primed), ("outer", primed), ("transfer", tuned)):
            section = getattr(self, name)
            changes[name] = section.model_copy(update=preset_of(kind, methods).fill(name, dict(section)))
        if self.encoder.pretrain.lr is None:
            pretrain = self.encoder.pretrain.model_copy(update={"lr": self.encoder.pretrain.rate})
            changes["encoder"] = self.encoder.model_copy(update={"pretrain": pretrain})
        return self.model_copy(update=changes)

    def at_transfer_rates(self, primed: Kind, tuned: Kind) -> Config:
        """Returns the config as `at_rates` does, with one rate where several that nobody asked for cannot be chosen from.

        Args:
            primed: kind of the encoder that is primed.
            tuned: kind of the encoder that transfers start from.

        Example: `config.at_transfer_rates(EMBEDDED, EMBEDDED)`.
        """
        filled = self.at_rates(primed, tuned)
        if self.transfer.lr is not None or self.data.validation_languages:
            return filled
        return filled.model_copy(update={"transfer": filled.transfer.at_first_rates(self.transfer.method_lr or {})})

    def remarks_on_rates(self, primed: Kind, tuned: Kind) -> list[str]:
        """Returns a sentence for each rate far above the measured one, and for encoders that none was measured on.

        Args:
            primed: kind of the encoder that is primed.
            tuned: kind of the encoder that transfers start from.

        Example: `Config(outer={"lr": 0.1}).remarks_on_rates(EMBEDDED, EMBEDDED)`.
        """
        blank = {name: getattr(self, name).model_copy(update=OPEN_RATES[name]) for name in OPEN_RATES}
        usual = self.model_copy(update=blank).at_rates(primed, tuned)
        given = [("inner.lr", self.inner.lr, usual.inner.rate), ("outer.lr", self.outer.lr, usual.outer.rate)]
        chosen = self.at_rates(primed, tuned).transfer
        for name, method in self.methods().items():
            # Of several rates the held-out languages choose, so that one high one does no harm.
            lowest, highest = min(chosen.rates(method)), max(usual.transfer.rates(method))
            given.append((f"transfer.lr of {name}", lowest, highest))
        remarks = far_above(given)
        if not primed.measured and None in (self.outer.lr, self.inner.lr):
            remarks.append(
                f"rates of an encoder of width {primed.width} were not measured: those that the config leaves out are scaled "
                "from smaller encoders, and are recorded with the run"
            )
        return remarks

    def methods(self) -> dict[str, MethodConfig]:
        """Returns the settings of each method to fine-tune with, by its label in cells and tables.

        Example: with `transfer: {methods: [head, {method: lora, rank: 4}]}` the labels are `head` and `lora-rank4`.
        """
        return {method_label(choice): self.method(choice) for choice in self.transfer.methods}

    def method(self, choice: str | MethodConfig) -> MethodConfig:
        """Returns the settings of one of `transfer.methods`.

        Args:
            choice: a method's name, or its settings.

        Example: `config.method("lora")`.
        """
        if isinstance(choice, MethodConfig):
            return choice
        return self.peft if choice == self.peft.method else method_settings(choice)()

    def by_method(self) -> dict[str, dict[str, Any]]:
        """Returns the config as JSON for the records of each method, by label.

        A method that is a mapping replaces the section `peft`.
        """
        values = self.model_dump(mode="json")
        configs = {}
        for choice in self.transfer.methods:
            rates = (self.transfer.method_lr or {}).get(self.method(choice).method, self.transfer.lr)
            transfer = {**values["transfer"], "lr": rates and list(rates), "method_lr": None}
            peft = values["peft"] if isinstance(choice, str) else choice.model_dump(mode="json")
            configs[method_label(choice)] = {**values, "transfer": transfer, "peft": peft}
        return configs

    def facts(self) -> dict[str, Any]:
        """Returns the config as JSON, without the keys in OUTPUT_KEYS."""
        values: dict[str, Any] = self.model_dump(mode="json")
        for place in OUTPUT_KEYS:
            section, key = place.split(".")
            values[section].pop(key, None)
        return values

    def as_yaml(self) -> str:
        """Returns the config as YAML, which `load_config` reads back to an equal value."""
        return written(self.model_dump(mode="json"))

    def recorded(self) -> tuple[Path, dict[str, Any], str]:
        """Returns the output folder, `facts()` and `as_yaml()`, which a run records."""
        return self.output, self.facts(), self.as_yaml()

    def digest(self, *sections: str) -> str:
        """Returns twelve hexadecimal digits that identify the content of some sections.

        The section `task` belongs to `data`, so that digests from before it existed stay valid.

        Args:
            sections: names of sections; none: all of them.

        Example: `config.digest("data", "peft")`.
        """
        values = addressed(self.model_dump(mode="json"))
        chosen = {name: values[name] for name in sections or values}
        # Results depend on what own code says, not on where it is.
        if self.run.code:
            chosen["code"] = sorted(code_hashes(self.run.code).values())
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:12]


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    """Returns a message about an unknown word: the nearest known word, and all of them.

    Args:
        what: beginning of the message, such as `name 'lra'`.
        word: the unknown word.
        known: all known words.

    Example: `unknown("name 'lra'", "lra", ["lora", "ia3"])`.
    """
    names = list(known)
    return f"{what} is unknown{nearest(word, names)} (known: {', '.join(names)}; name the file of your own in run.code)"


def _look_up(value: Any, key: str) -> None:
    """Validates that a key of `provenance` is a key of the config."""
    for part in key.split("."):
        if part not in getattr(type(value), "model_fields", {}):
            raise ValueError(f"provenance names an unknown key {key}")
        value = getattr(value, part)
