"""Self-check of an injection: modules that have no effect are the most common failure of PEFT code."""

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
"""Random draws of phi to try: in one draw a ReLU unit may be inactive and block a gradient."""
ROOT = "the encoder"
"""Name in messages of the encoder itself, whose path is empty."""


def probe(model: TaskModel, batch: Batch) -> torch.Tensor:
    """Returns the outputs of a model under initial phi and one fixed random head.

    Args:
        model: a model in evaluation mode.
        batch: tensors `(B, L)`.

    Returns:
        `(N, C)`, the outputs at the N positions that are not padding; `(B, ...)` if the task has no
        output for each position.

    Example: `bare = probe(TaskModel(encoder, Adapter(), head).eval(), batch)`
    """
    return _logits(model, _start(model, batch), batch).detach()


def check_injection(model: TaskModel, batch: Batch, bare: torch.Tensor, identity: bool) -> None:
    """Checks by one batch that every adapter module and parameter of a model has an effect.

    Each module must belong to one module of the encoder and run exactly once in each of its calls. Random
    phi must change the output and get a non-zero gradient in each tensor.

    Args:
        model: the injected model, in evaluation mode.
        batch: tensors `(B, L)`.
        bare: `(N, C)`, the `probe` of the same encoder before the injection.
        identity: whether the method's initial phi must leave the output equal to `bare` to the last bit.

    Raises:
        MetaprimeError: a module or parameter, which the message names, has no effect.

    Example: `check_injection(model, batch, bare, method.identity)`
    """
    # Each module is called once in each call of its site.
    start = _start(model, batch)
    calls, sites = _count_calls(model, start, batch)
    if wrong := [path for path, by in calls.items() if len(by) != 1 or any(by[site] != sites[site] for site in by)]:
        counts = "; ".join(f"{path}: {_describe_calls(calls[path], sites)}" for path in wrong)
        raise MetaprimeError(
            f"self-check: adapter modules not called exactly once in each call of one site: {counts}. Either the site paths of "
            "this architecture are wrong (encoder.sites, or its row in metaprime/models/sites.py), or its attention does "
            "not go through transformers' attention interface, without which there is no prefix"
        )

    # The initial phi of most methods is an identity.
    if identity and not torch.equal(_logits(model, start, batch), bare):
        raise MetaprimeError(
            "self-check: the adapter's initialisation should leave the encoder unchanged, and does not"
        )

    # Random phi has an effect, and each of its tensors gets a gradient.
    if not calls:
        return
    phi = {name: value for name, value in start.items() if name.startswith("adapter.")}
    unreached = set(trainable(phi))
    for draw in range(DRAWS):
        random = {**start, **_perturb(phi, torch_stream(draw, "self-check noise"))}
        if torch.equal(_logits(model, random, batch), bare):
            raise MetaprimeError("self-check: random adapter parameters do not change the encoder's output")
        unreached -= _with_gradient(model, random, batch)
        if not unreached:
            return
    raise MetaprimeError(f"self-check: no gradient reaches {', '.join(sorted(unreached))}")


def _with_gradient(model: TaskModel, values: Params, batch: Batch) -> set[str]:
    """Returns the names of the values that get a non-zero gradient."""
    moving = {name: value.detach().requires_grad_() for name, value in trainable(values).items()}
    output = _logits(model, {**values, **moving}, batch).square().sum()
    gradients = torch.autograd.grad(output, list(moving.values()), materialize_grads=True)
    return {name for name, gradient in zip(moving, gradients, strict=True) if gradient.any()}


def called_at(model: TaskModel, batch: Batch) -> dict[str, str]:
    """Returns path of adapter module -> path of the encoder's module that calls it.

    Args:
        model: a model that passed `check_injection`.
        batch: tensors `(B, L)`.

    Example: `called_at(model, batch)["0.query"]` may be `encoder.layer.0.attention.self.query`.
    """
    calls, _ = _count_calls(model, _start(model, batch), batch)
    return {path: next(iter(by)) for path, by in calls.items()}


def supports_one_pass(model: TaskModel, batch: Batch) -> bool:
    """Returns True if one pass over two stacked episodes gives each episode the outputs that it gets alone.

    The modules' own `supports_one_pass` is not enough: an architecture may also apply them to inputs
    that belong to no episode, as DeBERTa applies its projections to a table of positions.

    Args:
        model: the injected model, in evaluation mode.
        batch: tensors `(B, L)`; each episode gets half of them.

    Example: `model.variant(supports_one_pass=supports_one_pass(model, batch))`
    """
    modules = (module for group in ("adapter", "head") for module in model.get_submodule(group).modules())
    owners = [module for module in modules if next(module.parameters(recurse=False), None) is not None]
    half = len(batch["input_ids"]) // 2
    if not half or not all(getattr(module, "supports_one_pass", False) for module in owners):
        return False

    try:
        stacked = both_episodes(model, batch)
    except NotOnePass:
        return False
    parts = [{name: tensor[at * half : (at + 1) * half] for name, tensor in batch.items()} for at in range(2)]
    values = _two_values(model, batch)
    alone = torch.cat([_logits(model, own, part) for own, part in zip(values, parts, strict=True)])
    return torch.allclose(stacked, alone, rtol=1e-3, atol=1e-3)


def both_episodes(model: TaskModel, batch: Batch) -> torch.Tensor:
    """Returns the outputs of one pass over two episodes with different values and sentences.

    Args:
        model: the injected model, in evaluation mode.
        batch: tensors `(B, L)`; each episode gets half of them.

    Returns:
        As `probe`.

    Raises:
        NotOnePass: the model cannot take values with a leading T.

    Example: `both_episodes(model, batch)`
    """
    both = {name: tensor[: len(tensor) // 2 * 2] for name, tensor in batch.items()}
    first, second = _two_values(model, batch)
    return _logits(model, {name: torch.stack([first[name], second[name]]) for name in first}, both)


def outputs_of_both(one: TaskModel, other: TaskModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the outputs, as `probe` does, of two models of the same parts under equal random values.

    Args:
        one: a model in evaluation mode.
        other: a model of the same parts.
        batch: tensors `(B, L)`.

    Example: `torch.allclose(*outputs_of_both(model, model.variant(padded=""), batch))`
    """
    values, _ = _two_values(one, batch)
    return _logits(one, values, batch), _logits(other, values, batch)


def _two_values(model: TaskModel, batch: Batch) -> list[Params]:
    """Returns random values of two episodes."""
    start = _start(model, batch)
    return [_perturb(start, torch_stream(index, "self-check episodes")) for index in range(2)]


def _start(model: TaskModel, batch: Batch) -> Params:
    """Draws the initial phi and a random head; a zero head would hide every change."""
    phi = initial_values(model, "adapter", torch_stream(0, "self-check phi"))
    noise = torch_stream(0, "self-check head")
    head = {name: torch.randn(value.shape, generator=noise) for name, value in partition(model).head.items()}
    return {name: value.to(batch["input_ids"].device) for name, value in {**phi, **head}.items()}


def _perturb(values: Params, noise: torch.Generator) -> Params:
    """Adds noise to the values, except to integer tensors."""
    moved = {k: v + 0.2 * torch.randn(v.shape, generator=noise).to(v) for k, v in trainable(values).items()}
    return {**values, **moved}


def _logits(model: TaskModel, fast: Params, batch: Batch) -> torch.Tensor:
    """Returns the outputs (B, ...), or without padding (N, ...) if there is one for each of B x L positions."""
    outputs: torch.Tensor = functional_call(model, fast, (batch,))
    mask_BL = batch["attention_mask"]
    return outputs[mask_BL.bool()] if outputs.shape[:2] == mask_BL.shape else outputs


def _count_calls(model: TaskModel, fast: Params, batch: Batch) -> tuple[dict[str, Counter[str]], Counter[str]]:
    """Counts calls of each adapter module by each module of the encoder, and calls of the latter."""
    calls: dict[str, Counter[str]] = {}
    sites: Counter[str] = Counter()
    # Modules that are running, the innermost last; a module's hooks are part of its run.
    running: list[str] = []

    def enter(path: str) -> Callable[..., None]:
        return lambda *_: running.append(path)

    def leave(path: str) -> Callable[..., None]:
        return lambda *_: sites.update([running.pop()])

    def count(path: str) -> Callable[..., None]:
        return lambda *_: calls[path].update(running[-1:])

    handles = []
    for path, module in model.backbone.named_modules():
        handles.append(module.register_forward_pre_hook(enter(path), prepend=True))
        # Registered last, so that it runs after the hooks that inject.
        handles.append(module.register_forward_hook(leave(path)))
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


def _describe_calls(by: Counter[str], sites: Counter[str]) -> str:
    """Formats the counts of one adapter module, such as `1 times in 2 calls of encoder.layer.0`."""
    return ", ".join(f"{times} times in {sites[site]} calls of {site or ROOT}" for site, times in by.items()) or "never"
