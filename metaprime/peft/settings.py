"""Declares the settings of the methods that come with the package.

A config is checked before torch is loaded, which takes seconds: so this file imports none of it, and a
method's hooks are in the file of its family. A method whose settings are in its own file works too; a
config that names it loads that file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from metaprime.peft.method import Dropout, MethodConfig


class HeadConfig(MethodConfig):
    """Head tuning: theta is frozen and the task's output layer moves. It has no settings."""

    method: Literal["head"] = "head"


class FullConfig(MethodConfig):
    """Full fine-tuning: the encoder and the task's output layer move. It has no settings."""

    method: Literal["full"] = "full"


At = tuple[Literal["attention", "ffn"], ...]


class DesignConfig(MethodConfig):
    """A point of the design space: position, width and form of A, and its composition with h.

    - `composition`: `add` is h + A(x) with a fixed scale s; `learned` makes s a parameter that
      starts at `scale`; `gated` is (1 - g) h + g A(x) with a learned scalar g that starts at zero.
    - `layer_norm: in` gives A its own layer norm: it reads LN(x).
    - `init: lora` draws W_d from a uniform distribution and sets W_u to zero, which leaves the
      encoder unchanged at the start. `init: bert` draws both from N(0, 0.02), as the code of He et
      al. does, which changes it.
    - `dropout` acts on the bottleneck while training.
    """

    at: At = Field(default=("ffn",), min_length=1)
    insertion: Literal["sequential", "parallel", "pfeiffer"] = "sequential"
    bottleneck: PositiveInt = 48
    activation: Literal["relu", "gelu", "silu", "tanh", "identity"] = "relu"
    composition: Literal["add", "learned", "gated"] = "add"
    scale: PositiveFloat = 1.0
    layer_norm: Literal["none", "in"] = "none"
    init: Literal["lora", "bert"] = "lora"
    dropout: Dropout = 0.0

    @model_validator(mode="after")
    def _possible(self) -> DesignConfig:
        if len(set(self.at)) < len(self.at):
            raise ValueError(f"at names a block twice: {', '.join(self.at)}")
        if self.insertion == "pfeiffer" and self.at != ("ffn",):
            raise ValueError("insertion pfeiffer is around the feed-forward block's layer norm: at must be [ffn]")
        if self.insertion == "pfeiffer" and self.composition == "gated":
            raise ValueError("composition gated is not defined for insertion pfeiffer: use add or learned")
        return self

    @property
    def identity(self) -> bool:
        """True if the initial values leave the encoder unchanged."""
        return self.init == "lora" or self.composition == "gated"


class BottleneckConfig(DesignConfig):
    """Any point of the design space, chosen by its settings."""

    method: Literal["bottleneck"] = "bottleneck"


class HoulsbyConfig(DesignConfig):
    """An adapter after each block's output projection, before the residual sum."""

    method: Literal["houlsby"] = "houlsby"
    at: tuple[Literal["attention"], Literal["ffn"]] = ("attention", "ffn")
    insertion: Literal["sequential"] = "sequential"


class PfeifferConfig(DesignConfig):
    """One adapter per layer, around the feed-forward block's layer norm."""

    method: Literal["pfeiffer"] = "pfeiffer"
    at: tuple[Literal["ffn"]] = ("ffn",)
    insertion: Literal["pfeiffer"] = "pfeiffer"
    composition: Literal["add", "learned"] = "add"


class ParallelConfig(DesignConfig):
    """An adapter parallel to the feed-forward block."""

    method: Literal["parallel"] = "parallel"
    at: tuple[Literal["ffn"]] = ("ffn",)
    insertion: Literal["parallel"] = "parallel"


class ScaledParallelConfig(DesignConfig):
    """An adapter parallel to the feed-forward block, with s = 4.

    He et al. use 4 for generation, and 2 for GLUE.
    """

    method: Literal["scaled_parallel"] = "scaled_parallel"
    at: tuple[Literal["ffn"]] = ("ffn",)
    insertion: Literal["parallel"] = "parallel"
    scale: PositiveFloat = 4.0


class ParallelAttentionConfig(DesignConfig):
    """An adapter parallel to the attention heads."""

    method: Literal["parallel_attention"] = "parallel_attention"
    at: tuple[Literal["attention"]] = ("attention",)
    insertion: Literal["parallel"] = "parallel"


class PrefixConfig(MethodConfig):
    """The prefix length l (`length`), and its parametrisation.

    `mlp` is the width m of the MLP that computes the prefix in training, null for none.
    `shift_positions` counts the prefix among the positions, as Hugging Face's peft does: it takes l
    of them from the words.
    """

    method: Literal["prefix"] = "prefix"
    length: PositiveInt = 16
    mlp: PositiveInt | None = None
    shift_positions: bool = False

    @property
    def identity(self) -> bool:
        """False: a prefix changes the encoder from the start."""
        return False

    @property
    def positions(self) -> int:
        """Number of positions that the prefix takes from the words."""
        return self.length if self.shift_positions else 0


Site = Literal["query", "key", "value", "attention_out", "ffn_in", "ffn_out"]


class TermsConfig(MethodConfig):
    """Base of a config of low-rank terms: rank r, alpha (scale alpha / r), sites and dropout."""

    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0
    sites: tuple[Site, ...] = Field(default=("query", "value"), min_length=1)
    dropout: Dropout = 0.0


class LoraConfig(TermsConfig):
    """Low-rank terms on the projections in `sites`; `dropout` acts on their input in training."""

    method: Literal["lora"] = "lora"


class FfnLoraConfig(TermsConfig):
    """Low-rank terms on the feed-forward projections; `dropout` acts on their input in training."""

    method: Literal["ffn_lora"] = "ffn_lora"
    sites: tuple[Literal["ffn_in"], Literal["ffn_out"]] = ("ffn_in", "ffn_out")


class MultiheadParallelConfig(MethodConfig):
    """The number l of keys and values (`length`), the scale s, and their initialisation.

    `init: lora` leaves the encoder unchanged at the start, `init: bert` does not.
    """

    method: Literal["multihead_parallel"] = "multihead_parallel"
    length: PositiveInt = 16
    scale: PositiveFloat = 1.0
    init: Literal["lora", "bert"] = "lora"

    @property
    def identity(self) -> bool:
        """True if the initial values leave the encoder unchanged."""
        return self.init == "lora"


class ComposedConfig(MethodConfig):
    """Base of a composition's config: one field for each part, named after the part's method."""

    @model_validator(mode="before")
    @classmethod
    def _over_the_defaults(cls, values: Any) -> Any:
        """Fills in a part's missing keys from the composition's defaults instead of the part's."""
        if not isinstance(values, dict):
            return values
        parts = {
            name: field.default for name, field in cls.model_fields.items() if isinstance(field.default, MethodConfig)
        }
        settings = {name: values[name] for name in parts if isinstance(values.get(name), dict)}
        return values | {name: parts[name].model_dump() | part for name, part in settings.items()}

    @property
    def identity(self) -> bool:
        """True if the initial values of all parts leave the encoder unchanged."""
        return all(part.identity for part in self.parts.values())

    @property
    def positions(self) -> int:
        """Number of the encoder's positions that all parts together take from the words."""
        return sum(part.positions for part in self.parts.values())

    @property
    def parts(self) -> dict[str, MethodConfig]:
        """The parts' configs by name."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in values.items() if isinstance(value, MethodConfig)}


class MamConfig(ComposedConfig):
    """The settings of both parts; the defaults are those of He et al. for GLUE."""

    method: Literal["mam"] = "mam"
    prefix: PrefixConfig = PrefixConfig(length=16)
    scaled_parallel: ScaledParallelConfig = ScaledParallelConfig(bottleneck=16, scale=2.0)


class PromptConfig(MethodConfig):
    """The number l of vectors (`length`). The longest possible sentence is l sub-words shorter."""

    method: Literal["prompt"] = "prompt"
    length: PositiveInt = 16

    @property
    def identity(self) -> bool:
        """False: a prompt changes the encoder from the start."""
        return False

    @property
    def positions(self) -> int:
        """Number of positions that the prompt takes from the words."""
        return self.length


class Ia3Config(MethodConfig):
    """(IA)3's config, which has no settings."""

    method: Literal["ia3"] = "ia3"


class BitfitConfig(MethodConfig):
    """BitFit's config, which has no settings."""

    method: Literal["bitfit"] = "bitfit"


PositiveShare = Annotated[float, Field(gt=0, le=1)]


class BudgetConfig(MethodConfig):
    """Base of a config with a budget: the share p (`budget`) of weights that may change.

    The share is of each tensor or of all weights together (`scope`); `embeddings` includes the word
    embeddings.
    """

    budget: PositiveShare = 0.005
    scope: Literal["per_tensor", "global"] = "per_tensor"
    embeddings: bool = False


class RandomMaskConfig(BudgetConfig):
    """A sparse change at random weights.

    `budget` is their share p, of each tensor or of all weights together (`scope`); `embeddings`
    includes the word embeddings.
    """

    method: Literal["random_mask"] = "random_mask"


class MagnitudeConfig(BudgetConfig):
    """A sparse change at the largest weights; settings as in `random_mask`."""

    method: Literal["magnitude"] = "magnitude"


class SamConfig(BudgetConfig):
    """A sparse change at the weights with the largest sum of gradients.

    Settings as in `random_mask`.
    """

    method: Literal["sam"] = "sam"


class FisherConfig(BudgetConfig):
    """A sparse change at the weights with the largest sum of squared gradients.

    Settings as in `random_mask`.
    """

    method: Literal["fisher"] = "fisher"


class ChildPruningConfig(BudgetConfig):
    """Child pruning: all weights move, and after every step the largest changes stay.

    `budget` is their share p, of each tensor or of all weights together (`scope`); `embeddings`
    includes the word embeddings.
    """

    method: Literal["child_pruning"] = "child_pruning"


class DiffPruningConfig(BudgetConfig):
    """Diff pruning: changes behind gates, of which the most open stay.

    `price` is lambda, the penalty in nats if all gates are open. alpha starts at `start`, where
    gates are neither open nor shut. `burn_in` is the share of the steps after which gates are
    fixed. `budget` is the share p of gates that stay open, of each tensor or of all weights
    together (`scope`); `embeddings` includes the word embeddings.
    """

    method: Literal["diff_pruning"] = "diff_pruning"
    start: float = 0.8
    price: NonNegativeFloat = 1.0
    burn_in: PositiveShare = 0.5


class MixoutConfig(MethodConfig):
    """Mixout: in training each weight is theta's with probability p (`mixout`).

    `embeddings` includes the word embeddings.
    """

    method: Literal["mixout"] = "mixout"
    mixout: Annotated[float, Field(ge=0, lt=1)] = 0.9
    embeddings: bool = False


OURS = {
    "PREFIX_TUNING": "prefix",
    "PROMPT_TUNING": "prompt",
    "MULTITASK_PROMPT_TUNING": "prompt",
    "P_TUNING": "prompt",
    "CPT": "prompt",
    "ADAPTION_PROMPT": "prefix",
    "CARTRIDGE": "prefix",
}
"""Methods of peft that change the input or the cache -> methods here that suit every encoder."""

NEEDS_MORE = {
    "ADALORA": "needs a training loop that changes its ranks",
    "PVERA": "needs its own switch to sample in training",
    "POLY": "needs task numbers beside the words",
    "XLORA": "needs adapters that are trained already",
    "OSF": "projects its gradients by hooks on its parameters, which values do not have",
    "SHADOW": "runs a second network beside the layers of a decoder",
    "TRAINABLE_TOKENS": "replaces rows of the embedding table itself, which stays the encoder's",
    "UNILORA": "shares the parameters that it trains among layers",
    "VBLORA": "shares the parameters that it trains among layers",
    "TINYLORA": "shares the parameters that it trains among layers",
}
"""Methods of peft that a plain forward pass does not train."""

TUNING_ONLY = {
    "LN_TUNING": "replaces norms by copies of them",
    "FROD": "replaces weights by a decomposition of what they were",
    "HRA": "takes weights without their gradient",
}
"""Methods of peft under which weights of the encoder get no gradient, so that priming cannot move them."""

OTHER_DROPOUT = ("module_dropout", "rank_dropout", "boft_dropout")
"""Keys of training-time noise without a dropout module, which would be off without a warning."""


def why_not(kind: str) -> str:
    """Returns the reason why a method of peft is refused, with a remedy; empty: it is not.

    Example: `why_not("LORA")` is empty.
    """
    if kind in OURS:
        return (
            "is passed by peft through the cache or the inputs, which many encoders do not support: use method: "
            f"{OURS[kind]}, which runs on every encoder"
        )
    return f"{NEEDS_MORE[kind]}, which is not supported: use another peft_type" if kind in NEEDS_MORE else ""


class HfConfig(MethodConfig):
    """The config of a peft method: `config` holds peft's own keys, `peft_type` among them.

    Without `target_modules` the query and value projections are changed; by LN_TUNING the norms of
    the layers. Modules that no token-level loss reaches, such as a pooler, are left out.
    """

    method: Literal["hf"] = "hf"
    config: dict[str, Any] = Field(default_factory=lambda: {"peft_type": "LORA"})

    @model_validator(mode="after")
    def _named(self) -> HfConfig:
        if not isinstance(self.config.get("peft_type"), str):
            raise ValueError("config needs peft_type, for example LORA")
        if reason := why_not(self.kind):
            raise ValueError(f"config.peft_type {self.kind} {reason}")
        if on := [key for key in OTHER_DROPOUT if self.config.get(key)]:
            raise ValueError(f"config.{on[0]} is not supported: it would be off; remove it")
        return self

    @property
    def kind(self) -> str:
        """peft's name of the method, in capitals: `LORA`."""
        return str(self.config["peft_type"]).upper()

    @property
    def tuning_only(self) -> str:
        """Reason why weights of the encoder would get no gradient in priming; empty: they get one."""
        reason = TUNING_ONLY.get(self.kind, "")
        return f"peft_type {self.kind} {reason}, so that they get no gradient in priming" if reason else ""

    @property
    def identity(self) -> bool:
        """True for LoRA with its default start; the starts of other methods are not known."""
        return self.kind == "LORA" and self.config.get("init_lora_weights", True) is True


SETTINGS: dict[str, type[MethodConfig]] = {
    str(found.model_fields["method"].default): found
    for found in list(vars().values())
    if isinstance(found, type) and issubclass(found, MethodConfig) and found.model_fields["method"].default
}
"""Every class of settings of this file, by its method's name."""

OWN_RATES = {"head": 3e-2, "full": 1e-4, "ia3": 3e-2}
"""Peak rates of transfers by methods of this file that do not have the usual one (`Method.rate`)."""

MOVES_BACKBONE = ("full",)
"""Methods of this file by which fine-tuning moves theta too."""
