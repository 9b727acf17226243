"""After injection: is everything connected that should be? Silent no-ops are the commonest failure of PEFT code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import nn
from torch.func import functional_call

from metaprime.models.primable import PrimableModel, initial_values, partition
from metaprime.streams import torch_stream
from metaprime.types import Batch, MetaprimeError, Params


def probe(model: PrimableModel, batch: Batch) -> torch.Tensor:
    """Logits at the real positions of a batch, under initial phi and one fixed random head: (positions, C)."""
    return _logits(model, _start(model, batch), batch).detach()


def check_injection(model: PrimableModel, batch: Batch, bare: torch.Tensor, identity: bool) -> None:
    """One batch through the injected model, compared with `bare`, the `probe` of the same encoder before injection.

    Every PEFT module must be called exactly once per forward pass, random phi must change the output and receive a
    non-zero gradient in each tensor, and where the method's initialisation promises `identity`, the output at the
    start must be the bare encoder's to the last bit.

    Raises:
        MetaprimeError: naming the module or parameter that is not connected.
    """
    start = _start(model, batch)
    calls = _count_calls(model, start, batch)
    if wrong := {path: count for path, count in calls.items() if count != 1}:
        raise MetaprimeError(f"self-check: adapter modules not called exactly once in a forward pass: {wrong}")
    if identity and not torch.equal(_logits(model, start, batch), bare):
        raise MetaprimeError(
            "self-check: the adapter's initialisation should leave the encoder unchanged, and does not"
        )
    if not calls:
        return
    noise = torch_stream(0, "self-check noise")
    random = {
        name: value + 0.2 * torch.randn(value.shape, generator=noise).to(value)
        if name.startswith("adapter.")
        else value
        for name, value in start.items()
    }
    if torch.equal(_logits(model, random, batch), bare):
        raise MetaprimeError("self-check: random adapter parameters do not change the encoder's output")
    gradients = torch.func.grad(lambda fast: _logits(model, fast, batch).square().sum())(random)
    if unreached := [name for name, gradient in gradients.items() if not gradient.any()]:
        raise MetaprimeError(f"self-check: no gradient reaches {', '.join(unreached)}")


def _start(model: PrimableModel, batch: Batch) -> Params:
    """Initial phi as drawn, and a head without zeros: a zero head would hide every change."""
    phi = initial_values(model, "adapter", torch_stream(0, "self-check phi"))
    noise = torch_stream(0, "self-check head")
    head = {name: torch.randn(value.shape, generator=noise) for name, value in partition(model).head.items()}
    return {name: value.to(batch["input_ids"].device) for name, value in {**phi, **head}.items()}


def _logits(model: PrimableModel, fast: Params, batch: Batch) -> torch.Tensor:
    logits_BLC: torch.Tensor = functional_call(model, fast, (batch["input_ids"], batch["attention_mask"]))
    return logits_BLC[batch["attention_mask"].bool()]


def _count_calls(model: PrimableModel, fast: Params, batch: Batch) -> dict[str, int]:
    owners = {path: m for path, m in model.adapter.named_modules() if list(m.parameters(recurse=False))}
    calls: Counter[str] = Counter()

    def counter(path: str) -> Callable[[nn.Module, object, object], None]:
        def count(module: nn.Module, inputs: object, output: object) -> None:
            calls[path] += 1

        return count

    handles = [module.register_forward_hook(counter(path)) for path, module in owners.items()]
    try:
        with torch.no_grad():
            _logits(model, fast, batch)
    finally:
        for handle in handles:
            handle.remove()
    return {path: calls[path] for path in owners}
