"""One YAML file, one frozen value: every key known, every default here and nowhere else.

config = load_config("recipes/configs/demo.yaml", ["inner.lr=0.1"])
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

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

from metaprime.config.yaml import nearest
from metaprime.meta import LEARNERS
from metaprime.models.sites import Layout
from metaprime.peft import METHODS, MethodConfig
from metaprime.types import Section

OWN_METHOD = "peft"
"""In `transfer.methods`: the method of the section `peft`, so that arms of a suite that differ in it share a column."""
Share = Annotated[float, Field(ge=0, le=1)]
Names = tuple[str, ...]


class RunConfig(Section):
    """Where results go, the (priming) seed, CPU threads per process, and whether tokenised text is kept on disk."""

    output: str = "runs/demo"
    seed: NonNegativeInt = 0
    threads: PositiveInt = 1
    cache: bool = True


class PretrainConfig(Section):
    """The small BERT that `encoder.name: "synthetic:"` pre-trains on the text of all synthetic languages."""

    layers: PositiveInt = 2
    hidden: PositiveInt = 128
    heads: PositiveInt = 4
    vocabulary: PositiveInt = 3000
    steps: PositiveInt = 800
    batch: PositiveInt = 24
    length: PositiveInt = 64
    lr: PositiveFloat = 2e-3
    seed: NonNegativeInt = 0
    threads: PositiveInt = 2

    @model_validator(mode="after")
    def _divisible(self) -> PretrainConfig:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self


class EncoderConfig(Section):
    """theta: a hub id, a folder, or `synthetic:` for the embedded one.

    `sites` are the module paths of an architecture that `models/sites.py` has no row for. `trust_remote_code` runs Python
    files that come with the checkpoint: only for those that you have read. `precision: bfloat16` multiplies matrices in it
    (autocast); weights, gradients and losses stay float32.
    """

    name: str = "synthetic:"
    attention: Literal["sdpa", "eager"] = "sdpa"
    precision: Literal["float32", "bfloat16"] = "float32"
    sites: Layout | None = None
    trust_remote_code: bool = False
    pretrain: PretrainConfig = PretrainConfig()


class DataConfig(Section):
    """Which sentences. Languages are folders of the source; `validation_source` and
    `target_source` are where the held-out languages and the targets are, if elsewhere.

    `labels` are entity types; `label_map` renames a corpus's types or drops them (`{MISC: O}`). `shuffle_tags` is
    the control that permutes each priming sentence's tags among its words. A sentence of more than `max_length` sub-words
    is read in windows that repeat at least a share `overlap` of the one before, or truncated to the first.
    `tag_names` says what tags in numbers mean: 0 is the first. `invalid`: `repair` mends invalid tag sequences and refuses
    all else, `drop` leaves out each sentence with a mistake in it, `error` refuses any mistake.
    """

    source: str = "synthetic:"
    validation_source: str | None = None
    target_source: str | None = None
    languages: Names = ("qaa", "qab", "qac", "qaf", "qag", "qah", "qak", "qal", "qam", "qap", "qaq", "qar")
    validation_languages: Names = ("qad", "qan")
    target_languages: Names = ("qai", "qao", "qat")
    labels: Names = ("PER", "ORG", "LOC")
    label_map: dict[str, str] = Field(default_factory=dict)
    tag_names: Names = ()
    invalid: Literal["repair", "drop", "error"] = "repair"
    max_length: Annotated[int, Field(ge=8)] = 128
    long: Literal["windows", "truncate"] = "windows"
    overlap: Annotated[float, Field(ge=0, le=0.5)] = 0.25
    train_split: str = "train"
    validation_split: str = "validation"
    test_split: str = "test"
    shuffle_tags: bool = False

    @model_validator(mode="after")
    def _held_out(self) -> DataConfig:
        for group in ("languages", "target_languages"):
            if shared := set(self.validation_languages) & set(getattr(self, group)):
                raise ValueError(f"validation_languages must be held out, but {sorted(shared)} are in {group} too")
        if self.target_source is None and (shared := set(self.languages) & set(self.target_languages)):
            raise ValueError(f"target_languages must not be primed on, but {sorted(shared)} are in languages too")
        return self


class EpisodesConfig(Section):
    """T = `per_step` episodes per meta-step; `support` sentences per inner step, `query` sentences, size^`tau`.

    With `length_bands` N a meta-step draws all its sentences from one N-th of each language, cut by length: less of it is
    padding, every sentence still comes as often, but those of one meta-step are alike.
    """

    per_step: PositiveInt = 4
    support: PositiveInt = 4
    query: PositiveInt = 8
    tau: NonNegativeFloat = 0.0
    length_bands: PositiveInt = 1


def _chunk(value: Any) -> Any:
    """One message for all that it may be, where a union gives one for each."""
    if value in (None, "auto") or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ValueError(f"input should be a number above 0, auto or null, but is {value!r}")


class InnerConfig(Section):
    """The inner loop: n = `steps` steps of size alpha = `lr` by plain SGD or by Adam, the gradient of an episode clipped to
    the norm `clip`.

    Each step has its own `support` sentences, or every step the same. A batch of them goes through the encoder
    `micro_batch` windows at a time. `learn_rates` gives every tensor at every step a rate of its own, which begins as `lr`
    and is learned by the outer step at `outer.rates_lr`. `batched` adapts the episodes together, `task_chunk` of them at a
    time: a number, `auto` (as many as memory has room for, and on a CPU as save time), or all (null). `compile` makes one
    program of the whole meta-step, which takes minutes before the first.
    """

    steps: NonNegativeInt = 5
    lr: PositiveFloat = 0.1
    optimizer: Literal["sgd", "adam"] = "sgd"
    clip: PositiveFloat | None = None
    support: Literal["fresh", "same"] = "fresh"
    micro_batch: PositiveInt | None = None
    learn_rates: bool = False
    order: Literal["first", "second"] = "first"
    batched: bool = True
    task_chunk: Annotated[int | Literal["auto"] | None, BeforeValidator(_chunk)] = "auto"
    compile: bool = False


class OuterConfig(Section):
    """The outer loop: AdamW of size beta = `lr` on theta, warm-up over a share of the steps, then linear decay to zero.

    `adapter` and `head` say what becomes of phi and the head after a meta-step: `reset` draws them anew for every
    episode, `keep` starts every episode from one fixed draw, `carry_one` and `carry_mean` go on from the last or the
    mean adapted values, `meta` learns them by the outer gradient at `adapter_lr` and `head_lr` (`lr` if not given, as for
    `rates_lr`).
    Learners without an inner loop always train the head. `validate_every` N looks at the
    held-out languages before the first step, at N / 2 and at every Nth, and the best is kept; 0: never, and the last is.
    A query loss `divergence` times the running median is reported; with `rollback` the run returns to its last checkpoint
    and halves its rates, three times at most, then and where anything is not finite.
    """

    lr: PositiveFloat = 2e-3
    adapter_lr: PositiveFloat | None = None
    head_lr: PositiveFloat | None = None
    rates_lr: PositiveFloat | None = None
    steps: PositiveInt = 300
    warmup: Share = 0.1
    weight_decay: NonNegativeFloat = 0.0
    epsilon: PositiveFloat = 1e-6
    clip: PositiveFloat | None = 1.0
    adapter: Literal["reset", "keep", "carry_one", "carry_mean", "meta"] = "meta"
    head: Literal["reset", "keep", "carry_one", "carry_mean", "meta"] = "meta"
    validate_every: NonNegativeInt = 100
    checkpoint_every: PositiveInt = 100
    keep_checkpoints: PositiveInt = 2
    divergence: Annotated[float, Field(gt=1)] | None = 10.0
    rollback: bool = False


class LearnerConfig(Section):
    """Which learner, computed by what: `torch` (ours) or `learn2learn` (the reference, slow)."""

    name: str = "peft_maml"
    backend: Literal["torch", "learn2learn"] = "torch"

    @model_validator(mode="after")
    def _known(self) -> LearnerConfig:
        if self.name not in LEARNERS:
            raise ValueError(_unknown(f"name {self.name!r}", self.name, LEARNERS))
        return self


class TransferConfig(Section):
    """Fine-tuning of the frozen encoder on K = `shots` sentences of each target language.

    `encoder` is `primed` (under run.output), `base` (encoder.name), or a folder or hub id. Several rates in `lr` are
    tried on the validation languages and the best is taken, per method and number of shots (priming's own validation
    uses the first). The method `peft` is that of the section `peft`, whichever it is. `stop: fixed` runs `steps`
    steps; `stop: development` takes a share of the K out for choosing the number of steps, looking every
    `evaluate_every`. Of the test split, and of a validation split, the first `test_sentences` are scored. `leave_out` N trains N
    times more, each time without one of the K, and records how far the loss on that one moved.
    """

    encoder: str = "primed"
    methods: Names = ("pfeiffer", "head")
    shots: tuple[PositiveInt, ...] = (50,)
    seeds: tuple[NonNegativeInt, ...] = (0,)
    steps: PositiveInt = 100
    batch: PositiveInt = 16
    lr: tuple[PositiveFloat, ...] = (1e-2, 3e-3, 3e-2)
    warmup: Share = 0.1
    weight_decay: NonNegativeFloat = 0.0
    clip: PositiveFloat | None = 1.0
    stop: Literal["fixed", "development"] = "fixed"
    development_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    evaluate_every: PositiveInt = 20
    test_sentences: PositiveInt | None = None
    start_adapter: Literal["fresh", "primed"] = "fresh"
    start_head: Literal["fresh", "primed"] = "fresh"
    leave_out: NonNegativeInt = 0

    @model_validator(mode="before")
    @classmethod
    def _one_or_many(cls, values: Any) -> Any:
        """`shots: 50` is `shots: [50]`, and so for the other lists of numbers."""
        if isinstance(values, dict):
            many = ("methods", "shots", "seeds", "lr")
            return {k: [v] if k in many and not isinstance(v, list | tuple) else v for k, v in values.items()}
        return values

    @model_validator(mode="after")
    def _known(self) -> TransferConfig:
        for key in ("methods", "shots", "seeds", "lr"):
            if not getattr(self, key):
                raise ValueError(f"{key} is empty: give at least one")
        for method in self.methods:
            if method not in METHODS and method != OWN_METHOD:
                raise ValueError(_unknown(f"method {method!r}", method, (*METHODS, OWN_METHOD)))
        return self


def _method_config(value: Any) -> Any:
    """The config class of the method that the section names."""
    if isinstance(value, MethodConfig):
        return value
    if not isinstance(value, dict):
        raise ValueError("must be a mapping with the key `method`")
    name = value.get("method", "pfeiffer")
    if not isinstance(name, str) or name not in METHODS:
        raise ValueError(_unknown(f"method {name!r}", str(name), METHODS))
    return METHODS[name].config.model_validate(value)


PeftConfig = Annotated[SerializeAsAny[MethodConfig], BeforeValidator(_method_config)]


class Config(Section):
    """Everything a run is made of. `provenance` says of a hyper-parameter whether it is the paper's, recalled, or ours."""

    run: RunConfig = RunConfig()
    encoder: EncoderConfig = EncoderConfig()
    data: DataConfig = DataConfig()
    episodes: EpisodesConfig = EpisodesConfig()
    peft: PeftConfig = METHODS["pfeiffer"].config()
    inner: InnerConfig = InnerConfig()
    outer: OuterConfig = OuterConfig()
    learner: LearnerConfig = LearnerConfig()
    transfer: TransferConfig = TransferConfig()
    provenance: dict[str, Literal["paper", "recalled", "chosen"]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        schemes = [self.encoder.name.partition(":"), self.data.source.partition(":")]
        if all(scheme[0] == "synthetic" for scheme in schemes) and schemes[0] != schemes[1]:
            raise ValueError(f"encoder.name {self.encoder.name!r} has not read the languages of {self.data.source!r}")
        learner = LEARNERS[self.learner.name]
        if learner.adapts and self.inner.steps == 0:
            raise ValueError(f"inner.steps must be at least 1 for learner.name {self.learner.name!r}")
        if learner.injects and METHODS[self.peft.method].moves_backbone:
            raise ValueError(f"peft.method {self.peft.method!r} has no adapter for learner.name {self.learner.name!r}")
        if self.inner.learn_rates and not (learner.second_order and learner.adapts and self.learner.backend == "torch"):
            where = f"learner.name {self.learner.name!r} with backend {self.learner.backend}"
            raise ValueError(f"inner.learn_rates: {where} has no inner rates to learn")
        if self.inner.compile and not (self.inner.batched and self.learner.backend == "torch"):
            raise ValueError("inner.compile needs inner.batched: true and learner.backend: torch")
        if self.inner.order == "second" and not learner.second_order:
            raise ValueError(
                f"inner.order second: learner.name {self.learner.name!r} has no gradient of its inner loop"
            )
        for key in self.provenance:
            _look_up(self, key)
        return self

    def digest(self, *sections: str) -> str:
        """Twelve hexadecimal digits that name the content of some sections (all, if none is named)."""
        values = self.model_dump(mode="json")
        chosen = {name: values[name] for name in sections or values}
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:12]


def _unknown(what: str, word: str, known: Iterable[str]) -> str:
    names = list(known)
    return f"{what} is unknown{nearest(word, names)} (known: {', '.join(names)})"


def _look_up(config: Config, key: str) -> None:
    value: Any = config
    for part in key.split("."):
        if part not in getattr(type(value), "model_fields", {}):
            raise ValueError(f"provenance names an unknown key {key}")
        value = getattr(value, part)
