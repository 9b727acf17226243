"""Any method of Hugging Face's peft that changes modules, by peft's own config: `peft: {method: hf, config: {peft_type: LORA}}`.

peft replaces modules, which would rename the backbone's parameters. Here it does so in a copy, and each of its layers is then put
beside the encoder's own module, whose output it replaces: what the layer takes for its base is that module. Only what peft
would train becomes phi; frozen parts of its layers stay as peft draws them from a fixed seed. Each start of phi is drawn by peft
in a copy of the encoder as it is then. peft's dropout is drawn for a whole batch, so that padding has a part in it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.func import functional_call

from metaprime.nn import Adapter
from metaprime.peft.method import Method, MethodConfig
from metaprime.rng import Noise
from metaprime.types import MetaprimeError, Params, Sites

OURS = {
    "PREFIX_TUNING": "prefix",
    "PROMPT_TUNING": "prompt",
    "MULTITASK_PROMPT_TUNING": "prompt",
    "P_TUNING": "prompt",
    "CPT": "prompt",
    "ADAPTION_PROMPT": "prefix",
}
"""Methods of peft that change no module but the input or the cache, and ours that do the like on every encoder."""


NEEDS_MORE = {
    "ADALORA": "needs its ranks to be moved by its own training loop",
    "PVERA": "samples in training by a switch of its own",
    "POLY": "needs task numbers beside the words",
    "XLORA": "needs adapters that are trained already",
}
"""Methods of peft that a plain forward pass does not train."""
OTHER_DROPOUT = ("module_dropout", "rank_dropout", "boft_dropout")
"""Keys of training-time noise that is no dropout module, and would silently be off."""


class HfConfig(MethodConfig):
    """`config` is peft's, with its `peft_type`. Without `target_modules`: the projections of queries and values."""

    method: Literal["hf"] = "hf"
    config: dict[str, Any] = Field(default_factory=lambda: {"peft_type": "LORA"})

    @model_validator(mode="after")
    def _named(self) -> HfConfig:
        if not isinstance(self.config.get("peft_type"), str):
            raise ValueError("config needs peft_type, for example LORA")
        if self.kind in OURS:
            raise ValueError(
                f"config.peft_type {self.kind}: peft feeds it through the cache or beside the words, which token classification "
                f"and many encoders do not take: use method: {OURS[self.kind]}, which runs on every encoder"
            )
        if self.kind in NEEDS_MORE:
            raise ValueError(f"config.peft_type {self.kind} {NEEDS_MORE[self.kind]}, which the loops here do not have")
        if on := [key for key in OTHER_DROPOUT if self.config.get(key)]:
            raise ValueError(f"config.{on[0]} is not supported: it would be off; leave it out")
        return self

    @property
    def kind(self) -> str:
        """peft's name of the method."""
        return str(self.config["peft_type"]).upper()

    @property
    def identity(self) -> bool:
        """Of LoRA it is known; of the others nothing is promised."""
        return self.kind == "LORA" and self.config.get("init_lora_weights", True) is True


class _Base:
    """The encoder's own module as a peft layer sees it: its weights, and its output without the hooks on it.

    Inside `answering(x, output)` the module is not computed again for x: it has given that output already.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._known: tuple[torch.Tensor, Any] | None = None

    @contextmanager
    def answering(self, x: torch.Tensor, output: Any) -> Iterator[None]:
        """Answers with `output` when asked for x."""
        self._known = (x, output)
        try:
            yield
        finally:
            self._known = None

    def __call__(self, x: torch.Tensor, *rest: Any, **named: Any) -> Any:
        if self._known is not None and x is self._known[0]:
            return self._known[1]
        return self.module.forward(x, *rest, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


class HfLayer(nn.Module):
    """One layer of peft. What peft trains are parameters here; the layer itself is no child, and computes with them."""

    parts: tuple[nn.Module, _Base]

    def __init__(self, layer: nn.Module, module: nn.Module) -> None:
        super().__init__()
        del layer._modules["base_layer"]
        base = _Base(module)
        object.__setattr__(layer, "base_layer", base)
        object.__setattr__(self, "parts", (layer.eval(), base))
        for name, parameter in _trained(layer):
            self.register_parameter(name.replace(".", ":"), nn.Parameter(torch.zeros_like(parameter)))
        if any(isinstance(part, nn.Dropout) and part.p for part in layer.modules()):
            self.noise: Noise | None = None

    def forward(self, x: torch.Tensor, output: Any) -> Any:
        layer, base = self.parts
        own: Params = {name.replace(":", "."): value for name, value in self.named_parameters()}
        noise = getattr(self, "noise", None)
        try:
            with base.answering(x, output):
                if noise is None:
                    return functional_call(layer, own, (x,))
                with torch.random.fork_rng():
                    torch.manual_seed(noise.seed())
                    layer.train()
                    return functional_call(layer, own, (x,))
        except (ValueError, TypeError) as error:
            raise MetaprimeError(
                f"peft.config: this layer of peft cannot be run in a plain forward pass: {error}"
            ) from None
        finally:
            layer.eval()

    def _apply(self, fn: Any, recurse: bool = True) -> HfLayer:
        """To another device or precision, with what is frozen."""
        self.parts[0]._apply(fn)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


class HfLayers(Adapter):
    """The layers by the path of their module; phi starts as peft would start it."""

    source: tuple[nn.Module, Any]

    def __init__(self, method: HfConfig, layers: dict[str, nn.Module], encoder: nn.Module, config: Any) -> None:
        super().__init__(method, {path.replace(".", ":"): layer for path, layer in layers.items()})
        object.__setattr__(self, "source", (encoder, config))  # no child: it is the backbone

    def initial(self, generator: torch.Generator) -> Params:
        encoder, config = self.source
        values: Params = {}
        for path, layer in _injected(encoder, config, int(torch.randint(2**62, (), generator=generator))).items():
            place = path.replace(".", ":")
            values |= {f"{place}.{name.replace('.', ':')}": value.detach().cpu() for name, value in _trained(layer)}
        return values


def peft_config(config: HfConfig, paths: list[str], **more: Any) -> Any:
    """peft's own config; `paths` are the target modules where none are given.

    Raises:
        MetaprimeError: peft is not installed, or refuses it.
    """
    peft = _package()
    given = {key: value for key, value in config.config.items() if key != "peft_type"}
    kinds = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING
    if config.kind not in kinds:
        known = ", ".join(sorted(kinds))
        raise MetaprimeError(
            f"peft.config.peft_type {config.kind!r} is unknown to peft {peft.__version__}, which has {known}"
        )
    kind = kinds[config.kind]
    if "target_modules" in getattr(kind, "__dataclass_fields__", {}):
        given.setdefault("target_modules", paths)
    try:
        return kind(**(given | more))
    except (TypeError, ValueError) as error:
        raise MetaprimeError(f"peft.config: {error}") from None


def inject(sites: Sites, config: Any) -> Adapter:
    """Puts each layer that peft makes beside the module it is for.

    Raises:
        MetaprimeError: peft is not installed or refuses, or it would train, or has changed, what is the encoder's own.
    """
    modules = dict(sites.encoder.named_modules())
    theirs = peft_config(config, _query_and_value(sites, modules))
    layers: dict[str, nn.Module] = {}
    for path, layer in _injected(sites.encoder, theirs, 0).items():
        wrapper = layers[path] = HfLayer(layer, modules[path])
        modules[path].register_forward_hook(lambda module, inputs, output, wrapper=wrapper: wrapper(inputs[0], output))
    return HfLayers(config, layers, sites.encoder, theirs)


def _injected(encoder: nn.Module, config: Any, seed: int) -> dict[str, nn.Module]:
    """The layers that peft makes for a copy of an encoder, by the path of what they replace."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = copy.deepcopy(encoder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](model, copy.deepcopy(config), adapter_name="default")
        except (ValueError, TypeError, NotImplementedError, KeyError, AttributeError, ImportError) as error:
            raise MetaprimeError(
                f"peft.config: peft cannot put {config.peft_type.value} into this encoder: {error}"
            ) from None
    modules = dict(model.named_modules())
    layers = {path: modules[path] for path, module in modules.items() if isinstance(module, BaseTunerLayer)}
    _check_untouched(encoder, model, layers)
    return layers


def _check_untouched(encoder: nn.Module, model: nn.Module, layers: dict[str, nn.Module]) -> None:
    """Refuses what is no change beside the encoder.

    Raises:
        MetaprimeError: weights of the encoder were changed or would be trained, or layers share what they train.
    """
    own = {
        name.replace(".base_layer.", "."): parameter
        for name, parameter in model.named_parameters()
        if not any(name.startswith(f"{path}.") and not name.startswith(f"{path}.base_layer.") for path in layers)
    }
    plain = dict(encoder.named_parameters())
    if trained := [name for name, parameter in own.items() if parameter.requires_grad or name not in plain]:
        raise MetaprimeError(
            f"peft.config: peft would train {trained[0]} of the encoder itself (bias, modules_to_save or the like): theta is "
            "frozen in fine-tuning and the head is ours; leave that key out"
        )
    if changed := [n for n, p in own.items() if not p.is_meta and not torch.equal(p, plain[n])]:
        raise MetaprimeError(
            f"peft.config: this initialisation changes {changed[0]} of the encoder itself: theta is what was primed; use another"
        )
    trained_by_layer = [id(parameter) for layer in layers.values() for _, parameter in _trained(layer)]
    if len(set(trained_by_layer)) < len(trained_by_layer):
        raise MetaprimeError("peft.config: layers of this method share parameters they train, which is not supported")


def _trained(layer: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """What peft trains in one of its layers, by local name."""
    for name, parameter in layer.named_parameters():
        if parameter.requires_grad and not name.startswith("base_layer."):
            yield name, parameter


def _query_and_value(sites: Sites, modules: dict[str, nn.Module]) -> list[str]:
    paths = {id(module): path for path, module in modules.items()}
    return list(dict.fromkeys(paths[id(getattr(layer, name))] for layer in sites.layers for name in ("query", "value")))


def _package() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MetaprimeError(f"peft.method hf needs Hugging Face's peft ({error}): pip install peft") from None
    return peft


METHOD = Method(HfConfig, inject, "whatever the config of Hugging Face's peft says", "huggingface/peft")
