"""Runs methods of Hugging Face's peft that change modules.

Example: `peft: {method: hf, config: {peft_type: LORA}}`.

peft replaces modules, which would rename the backbone's parameters. Here it replaces them in a copy
of the encoder. Each of its layers is then attached to the encoder's own module: it uses that module
as its base layer, and a hook replaces the module's output by the layer's. Parameters that peft
would train become phi; frozen parts of its layers stay as peft draws them from a fixed seed. peft
draws each start of phi in a copy of the encoder of that moment. peft's dropout is drawn for a whole
batch, so it depends on the padding.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from torch.func import functional_call

from metaprime.nn import Adapter
from metaprime.peft.method import Method
from metaprime.peft.settings import HfConfig
from metaprime.rng import Noise
from metaprime.types import MetaprimeError, Params, Sites

log = logging.getLogger(__name__)


class _Base:
    """The encoder's module as the base layer of a peft layer: weights, and output without hooks.

    Inside `answering(x, output)` the known output for x is returned, not computed again.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._known: tuple[torch.Tensor, Any] | None = None

    @contextmanager
    def answering(self, x: torch.Tensor, output: Any) -> Iterator[None]:
        """Makes the module return `output` for x inside a `with`."""
        self._known = (x, output)
        try:
            yield
        finally:
            self._known = None

    def __call__(self, x: torch.Tensor, *rest: Any, **named: Any) -> Any:
        if self._known is not None and x is self._known[0]:
            return self._known[1]
        return self.module.forward(x, *rest, **named)

    def own_weight(self) -> Any:
        """Returns the module's weight with its graph: `base.own_weight().requires_grad`."""
        return self.module.weight

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


class HfLayer(nn.Module):
    """The trainable parameters of a peft layer, which computes with their values.

    Attributes:
        parts: the peft layer, which is not a child module, and its base layer.
    """

    parts: tuple[nn.Module, _Base]

    def __init__(self, layer: nn.Module, module: nn.Module) -> None:
        super().__init__()
        del layer._modules["base_layer"]
        base = _Base(module)
        object.__setattr__(layer, "base_layer", base)
        # peft's own method detaches the weight: theta would get no gradient through it.
        object.__setattr__(layer, "get_base_weight", base.own_weight)
        object.__setattr__(self, "parts", (layer.eval(), base))
        for name, parameter in _trained(layer):
            self.register_parameter(name.replace(".", ":"), nn.Parameter(torch.zeros_like(parameter)))
        if any(isinstance(part, nn.Dropout) and part.p for part in layer.modules()):
            self.noise: Noise | None = None

    def forward(self, x: torch.Tensor, output: Any) -> Any:
        """Returns the output of the peft layer: `layer(x, module(x))`.

        Args:
            x: input of the encoder's module, (..., I).
            output: output of the encoder's module, (..., O).

        Raises:
            MetaprimeError: the layer needs more than its input.
        """
        layer, base = self.parts
        values: Params = {name.replace(":", "."): value for name, value in self.named_parameters()}
        noise = getattr(self, "noise", None)
        try:
            with base.answering(x, output):
                if noise is None:
                    return functional_call(layer, values, (x,))
                with torch.random.fork_rng():
                    torch.manual_seed(noise.seed())
                    layer.train()
                    return functional_call(layer, values, (x,))
        except (ValueError, TypeError) as error:
            raise MetaprimeError(
                f"peft.config: this layer of peft cannot be run in a plain forward pass: {error}"
            ) from None
        finally:
            layer.eval()

    def _apply(self, fn: Any, recurse: bool = True) -> HfLayer:
        """Moves the layer to another device or precision, frozen parts too."""
        self.parts[0]._apply(fn)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


class HfLayers(Adapter):
    """The layers of peft by the path of the module that each one changes.

    Attributes:
        source: the encoder, and peft's own config.
    """

    source: tuple[nn.Module, Any]

    def __init__(self, method: HfConfig, layers: dict[str, nn.Module], encoder: nn.Module, config: Any) -> None:
        super().__init__(method, {path.replace(".", ":"): layer for path, layer in layers.items()})
        # Not as a child: the encoder's parameters are the backbone's, not phi.
        object.__setattr__(self, "source", (encoder, config))

    def initial(self, generator: torch.Generator) -> Params:
        """Draws phi as peft does, by a seed from `generator`."""
        encoder, config = self.source
        values: Params = {}
        for path, layer in _injected(encoder, config, int(torch.randint(2**62, (), generator=generator))).items():
            place = path.replace(".", ":")
            if place not in self:
                continue
            values |= {f"{place}.{name.replace('.', ':')}": value.detach().cpu() for name, value in _trained(layer)}
        return values


def peft_config(config: HfConfig, paths: list[str], **more: Any) -> Any:
    """Returns peft's own config object: `peft_config(HfConfig(), ["encoder.layer.0.attention"])`.

    Args:
        config: the method's settings.
        paths: default of `target_modules`.
        more: keys that override those of `config`.

    Raises:
        MetaprimeError: peft is not installed, does not know `peft_type`, or rejects a key.
    """
    peft = _package()
    settings = {key: value for key, value in config.config.items() if key != "peft_type"}
    kinds = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING
    if config.kind not in kinds:
        known = ", ".join(sorted(kinds))
        raise MetaprimeError(
            f"peft.config.peft_type {config.kind!r} is unknown to peft {peft.__version__}, which has {known}"
        )
    kind = kinds[config.kind]
    if "target_modules" in getattr(kind, "__dataclass_fields__", {}):
        settings.setdefault("target_modules", paths)
    try:
        return kind(**(settings | more))
    except (TypeError, ValueError) as error:
        raise MetaprimeError(f"peft.config: {error}") from None


def inject(sites: Sites, config: Any) -> Adapter:
    """Attaches each layer that peft creates to its module: `inject(sites, HfConfig())`.

    Raises:
        MetaprimeError: peft is not installed or rejects the config, or it would train or has
            changed weights of the encoder.
    """
    modules = dict(sites.encoder.named_modules())
    settings = peft_config(config, _norms(sites) if config.kind == "LN_TUNING" else _query_and_value(sites, modules))
    layers: dict[str, nn.Module] = {}
    found = _injected(sites.encoder, settings, 0)
    # A pattern such as all-linear also matches a pooler, which is no owner of parameters that matter.
    unused = [path for path in found if path not in sites.owners and any(True for _ in _own(modules[path]))]
    if unused:
        log.warning("peft.config: no token-level loss reaches %s, which stays unchanged", ", ".join(unused))
    for path, layer in found.items():
        if path in unused:
            continue
        wrapper = layers[path] = HfLayer(layer, modules[path])
        modules[path].register_forward_hook(lambda module, inputs, output, wrapper=wrapper: wrapper(inputs[0], output))
    return HfLayers(config, layers, sites.encoder, settings)


def _injected(encoder: nn.Module, config: Any, seed: int) -> dict[str, nn.Module]:
    """Returns the layers that peft creates in a copy of an encoder, by path."""
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
    """Checks that peft adds to the encoder and leaves its weights alone.

    Raises:
        MetaprimeError: peft changed or would train weights of the encoder, or its layers share
            parameters.
    """
    weights = {
        name.replace(".base_layer.", "."): parameter
        for name, parameter in model.named_parameters()
        if not any(name.startswith(f"{path}.") and not name.startswith(f"{path}.base_layer.") for path in layers)
    }
    plain = dict(encoder.named_parameters())
    if trained := [name for name, parameter in weights.items() if parameter.requires_grad or name not in plain]:
        raise MetaprimeError(
            f"peft.config: peft would train {trained[0]} of the encoder itself (bias, modules_to_save or the like), "
            "but theta is frozen in fine-tuning and the head is not peft's: remove that key"
        )
    if changed := [n for n, p in weights.items() if not p.is_meta and not torch.equal(p, plain[n])]:
        raise MetaprimeError(
            f"peft.config: this initialisation changes {changed[0]} of the encoder itself, whose weights must stay as "
            "they were primed: use another initialisation"
        )
    trained_by_layer = [id(parameter) for layer in layers.values() for _, parameter in _trained(layer)]
    if len(set(trained_by_layer)) < len(trained_by_layer):
        raise MetaprimeError(
            "peft.config: layers of this method share parameters that peft trains, which is not supported: use another"
        )


def _trained(layer: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yields the parameters that peft trains in one of its layers, by local name."""
    for name, parameter in layer.named_parameters():
        if parameter.requires_grad and not name.startswith("base_layer."):
            yield name, parameter


def exact(adapter: HfLayers, config: Any) -> dict[str, Any]:
    """Returns the keys of a peft config that name exactly the modules of an adapter, whatever pattern found them.

    Args:
        adapter: as `inject` returned it.
        config: peft's own config.

    Example: `peft_config(method, [], **exact(adapter, adapter.source[1]))`
    """
    paths = {path.replace(":", "."): layer for path, layer in adapter.items()}
    forward = [path for path, layer in paths.items() if getattr(cast(HfLayer, layer).parts[0], "is_feedforward", False)]
    keys: dict[str, Any] = {"target_modules": list(paths), "feedforward_modules": forward}
    keys |= dict.fromkeys(("layers_to_transform", "layers_pattern", "exclude_modules"))
    return {key: value for key, value in keys.items() if hasattr(config, key)}


def _own(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yields the parameters of a module itself."""
    return module.parameters(recurse=False)


def _norms(sites: Sites) -> list[str]:
    """Returns the paths of the norms inside the layers: owners of a weight that is a vector."""
    inside = {id(module) for layer in sites.layers for module in layer.layer.modules()}
    return [path for path, one in sites.owners.items() if id(one) in inside and all(p.dim() == 1 for p in _own(one))]


def _query_and_value(sites: Sites, modules: dict[str, nn.Module]) -> list[str]:
    """Returns the paths of the query and value projections of all layers."""
    paths = {id(module): path for path, module in modules.items()}
    return list(dict.fromkeys(paths[id(getattr(layer, name))] for layer in sites.layers for name in ("query", "value")))


def _package() -> Any:
    """Imports peft."""
    try:
        import peft
    except ImportError as error:
        raise MetaprimeError(f"peft.method hf needs Hugging Face's peft ({error}): pip install peft") from None
    return peft


METHOD = Method(HfConfig, inject, "whatever the config of Hugging Face's peft says", "huggingface/peft")
