"""After injection: is everything connected that should be? Silent no-ops are the commonest failure of PEFT code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch.func import functional_call

from metaprime.models.task_model import TaskModel, initial_values, partition
from metaprime.nn import NotOnePass
from metaprime.rng import torch_stream
from metaprime.types import Batch, MetaprimeError, Params, trainable

DRAWS = 8
"""Of random phi: a single ReLU unit may be shut in one."""
ROOT = "the encoder"
"""What has no path of its own."""


def probe(model: TaskModel, batch: Batch) -> torch.Tensor:
    """Logits at the real positions of a batch, under initial phi and one fixed random head: (positions, C)."""
    return _logits(model, _start(model, batch), batch).detach()


def check_injection(model: TaskModel, batch: Batch, bare: torch.Tensor, identity: bool) -> None:
    """One batch through the injected model, compared with `bare`, the `probe` of the same encoder before injection.

    Every PEFT module must answer to one module of the encoder and be called exactly once whenever that is, which is once
    per forward pass but where an architecture uses weights twice. Random phi must change the output and receive a
    non-zero gradient in each tensor, and where the method's initialisation promises `identity`, the output at the
    start must be the bare encoder's to the last bit.

    Raises:
        MetaprimeError: naming the module or parameter that is not connected.
    """
    start = _start(model, batch)
    calls, sites = _count_calls(model, start, batch)
    if wrong := [path for path, by in calls.items() if len(by) != 1 or any(by[site] != sites[site] for site in by)]:
        told = "; ".join(f"{path}: {_told(calls[path], sites)}" for path in wrong)
        raise MetaprimeError(
            f"self-check: adapter modules not called exactly once with their one site: {told}. Either the site paths of "
            "this architecture are wrong (encoder.sites, or its row in metaprime/models/sites.py), or its attention does "
            "not go through transformers' attention interface, without which there is no prefix"
        )
    if identity and not torch.equal(_logits(model, start, batch), bare):
        raise MetaprimeError(
            "self-check: the adapter's initialisation should leave the encoder unchanged, and does not"
        )
    if not calls:
        return
    phi = {name: value for name, value in start.items() if name.startswith("adapter.")}
    unreached = set(trainable(phi))
    for draw in range(DRAWS):
        random = {**start, **_shaken(phi, torch_stream(draw, "self-check noise"))}
        if torch.equal(_logits(model, random, batch), bare):
            raise MetaprimeError("self-check: random adapter parameters do not change the encoder's output")
        unreached -= _reached(model, random, batch)
        if not unreached:
            return
    raise MetaprimeError(f"self-check: no gradient reaches {', '.join(sorted(unreached))}")


def _reached(model: TaskModel, values: Params, batch: Batch) -> set[str]:
    """The names that the output depends on at these values."""
    moving = {name: value.detach().requires_grad_() for name, value in trainable(values).items()}
    output = _logits(model, {**values, **moving}, batch).square().sum()
    found = torch.autograd.grad(output, list(moving.values()), materialize_grads=True)
    return {name for name, gradient in zip(moving, found, strict=True) if gradient.any()}


def called_at(model: TaskModel, batch: Batch) -> dict[str, str]:
    """The encoder's module that calls each PEFT module, both by path; a model that passed `check_injection` has one each."""
    calls, _ = _count_calls(model, _start(model, batch), batch)
    return {path: next(iter(by)) for path, by in calls.items()}


def supports_one_pass(model: TaskModel, batch: Batch) -> bool:
    """Whether one pass with a leading T gives each of two episodes, of unlike sentences and values, what it gets alone.

    Modules must say that they do (`supports_one_pass`), but where they are used is up to the architecture: projections of DeBERTa
    may work on a table of positions too, which belongs to no episode.
    """
    modules = (module for group in ("adapter", "head") for module in model.get_submodule(group).modules())
    owners = [module for module in modules if next(module.parameters(recurse=False), None) is not None]
    half = len(batch["input_ids"]) // 2
    if not half or not all(getattr(module, "supports_one_pass", False) for module in owners):
        return False
    start, episodes = _start(model, batch), []
    for index in range(2):
        episodes.append(_shaken(start, torch_stream(index, "self-check episodes")))
    parts = [{name: tensor[at * half : (at + 1) * half] for name, tensor in batch.items()} for at in range(2)]
    both = {name: tensor[: 2 * half] for name, tensor in batch.items()}
    try:
        found = _logits(model, {name: torch.stack([one[name] for one in episodes]) for name in start}, both)
    except NotOnePass:
        return False
    alone = torch.cat([_logits(model, values, part) for values, part in zip(episodes, parts, strict=True)])
    return torch.allclose(found, alone, rtol=1e-3, atol=1e-3)


def _start(model: TaskModel, batch: Batch) -> Params:
    """Initial phi as drawn, and a head without zeros: a zero head would hide every change."""
    phi = initial_values(model, "adapter", torch_stream(0, "self-check phi"))
    noise = torch_stream(0, "self-check head")
    head = {name: torch.randn(value.shape, generator=noise) for name, value in partition(model).head.items()}
    return {name: value.to(batch["input_ids"].device) for name, value in {**phi, **head}.items()}


def _shaken(values: Params, noise: torch.Generator) -> Params:
    """The values with noise, choices as they are."""
    moved = {k: v + 0.2 * torch.randn(v.shape, generator=noise).to(v) for k, v in trainable(values).items()}
    return {**values, **moved}


def _logits(model: TaskModel, fast: Params, batch: Batch) -> torch.Tensor:
    """Returns the outputs (B, ...), or those at real positions where the task has one for each of B x L."""
    outputs: torch.Tensor = functional_call(model, fast, (batch,))
    mask_BL = batch["attention_mask"]
    return outputs[mask_BL.bool()] if outputs.shape[:2] == mask_BL.shape else outputs


def _count_calls(model: TaskModel, fast: Params, batch: Batch) -> tuple[dict[str, Counter[str]], Counter[str]]:
    """How often each PEFT module is called by each of the encoder's modules, and how often these are called."""
    calls: dict[str, Counter[str]] = {}
    sites: Counter[str] = Counter()
    running: list[str] = []  # the innermost last; a module's hooks are part of its run

    def enter(path: str) -> Callable[..., None]:
        return lambda *_: running.append(path)

    def leave(path: str) -> Callable[..., None]:
        return lambda *_: sites.update([running.pop()])

    def count(path: str) -> Callable[..., None]:
        return lambda *_: calls[path].update(running[-1:])

    handles = []
    for path, module in model.backbone.named_modules():
        handles.append(module.register_forward_pre_hook(enter(path), prepend=True))
        handles.append(module.register_forward_hook(leave(path)))  # after the hooks that inject
    for path, module in model.adapter.named_modules():
        if list(module.parameters(recurse=False)):
            calls[path] = Counter()
            handles.append(module.register_forward_hook(count(path)))
    try:
        with torch.no_grad():
            _logits(model, fast, batch)
    finally:
        for handle in handles:
            handle.remove()
    return calls, sites


def _told(by: Counter[str], sites: Counter[str]) -> str:
    return ", ".join(f"{times} times in {sites[site]} calls of {site or ROOT}" for site, times in by.items()) or "never"
