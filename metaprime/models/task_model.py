"""Joins backbone, adapter and head in one module tree, so that one `functional_call` reaches all three by name.

Parameters are named `backbone.*` (theta), `adapter.*` (phi) and `head.*`; learned inner rates are `rates.*`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias, cast

import torch
from torch import nn
from torch.func import functional_call

from metaprime.nn import Adapter
from metaprime.rng import Noise
from metaprime.types import (
    HIDDEN,
    NOISE,
    Batch,
    Drawn,
    Gradients,
    Loss,
    MetaprimeError,
    Params,
    State,
    add_prefix,
    strip_prefix,
)

VALUE_GROUPS = ("backbone", "adapter", "head", "rates")
"""The groups of a model's parameters: the first part of every name."""

Outputs: TypeAlias = "Callable[[TaskModel, Batch], torch.Tensor]"
"""A task's forward pass: the model and a batch of B windows to outputs, the first dimension of which is B."""

Measure: TypeAlias = Callable[[torch.Tensor, Batch], torch.Tensor]
"""A task's loss: outputs and batch to a scalar () in nats."""


def head_outputs(model: TaskModel, batch: Batch) -> torch.Tensor:
    """Returns what the head makes of the encoder's output: for tagging, logits (B, L, C)."""
    outputs: torch.Tensor = model.head(model.encode(batch))
    return outputs


class TaskModel(nn.Module):
    """An encoder with a method's adapter in it and a task's head on it.

    Attributes:
        backbone: the encoder, which the adapter's hooks modify.
        adapter: phi, and what the method does besides.
        head: the task's output layer.
        rates: learned inner rates, which only travel along.
        autocast: whether matrices are multiplied in bfloat16; parameters and outputs stay float32.
        supports_one_pass: whether adapter and head are known to take values with a leading T
            (`injection_check.supports_one_pass`).
    """

    def __init__(
        self,
        backbone: nn.Module,
        adapter: Adapter,
        head: nn.Module,
        outputs: Outputs = head_outputs,
        *,
        autocast: bool = False,
        supports_one_pass: bool = False,
    ) -> None:
        """Joins the parts; none of them is copied.

        Raises:
            MetaprimeError: the backbone has gradient checkpointing switched on.
        """
        super().__init__()
        _refuse_checkpointing(backbone)
        self.backbone, self.adapter, self.head, self.rates = backbone, adapter, head, nn.ModuleDict()
        self.autocast, self.supports_one_pass, self._outputs = autocast, supports_one_pass, outputs

    def variant(self, *, autocast: bool | None = None, supports_one_pass: bool | None = None) -> TaskModel:
        """Returns a model over the same modules, in evaluation mode, with another precision or another known ability."""
        model = TaskModel(
            self.backbone,
            self.adapter,
            self.head,
            self._outputs,
            autocast=self.autocast if autocast is None else autocast,
            supports_one_pass=self.supports_one_pass if supports_one_pass is None else supports_one_pass,
        )
        model.rates.update(dict(self.rates.items()))
        return model.eval()

    @property
    def noisy(self) -> list[nn.Module]:
        """The adapter's modules that draw random numbers while they train, as dropout does."""
        return [module for module in self.adapter.modules() if hasattr(module, NOISE)]

    def learn_rates(self, names: Sequence[str], steps: int) -> None:
        """Adds one inner rate, a scalar () that is zero until assigned, for each inner step and each named parameter."""
        for step in range(steps):
            self.rates[str(step)] = nn.ParameterDict({name.replace(".", ":"): torch.zeros(()) for name in names})

    def forward(self, batch: Batch) -> torch.Tensor:
        """Returns the task's outputs for a batch of B windows."""
        # An output that was computed before is float32, and the head then works in float32 too.
        if not self.autocast or HIDDEN in batch:
            return self._outputs(self, batch)
        # No cache of cast weights: it would outlive the values that `functional_call` puts in their place.
        with torch.autocast(batch["input_ids"].device.type, torch.bfloat16, cache_enabled=False):
            outputs = self._outputs(self, batch)
        return outputs.float()

    def encode(self, batch: Batch) -> torch.Tensor:
        """Returns the encoder's output (B, L, D); that in the batch, where it was computed before."""
        if HIDDEN in batch:
            return batch[HIDDEN]
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
        hidden_BLD: torch.Tensor = self.backbone(**inputs).last_hidden_state
        return hidden_BLD

    def select(self, backbone: Params, gradients: Gradients) -> Params:
        """Chooses which weights may move (`Adapter.select`), by full name."""
        return add_prefix("adapter", self.adapter.select(backbone, gradients))

    def project(self, values: Params, done: float) -> Params:
        """Brings values back to where they may be (`Adapter.project`), by full name."""
        return add_prefix("adapter", self.adapter.project(strip_prefix("adapter", values), done))

    def penalty(self, values: Params) -> torch.Tensor | None:
        """Returns what training adds to the loss (`Adapter.penalty`), of values by full name."""
        return self.adapter.penalty(strip_prefix("adapter", values)) if self.adapter.penalised else None


def partition(model: TaskModel, unused: tuple[str, ...] = ()) -> State:
    """Returns the model's own parameters by group, with the adapter's integer tensors.

    Args:
        model: whose parameters these are; they are not copied.
        unused: paths below the backbone whose parameters belong to no group.
    """
    groups: dict[str, Params] = {group: {} for group in VALUE_GROUPS}
    for name, parameter in (*model.named_parameters(), *model.adapter.named_buffers("adapter")):
        group, path = name.split(".", 1)
        if not path.startswith(unused or ("\0",)):
            groups[group][name] = parameter
    return State(**groups)


def functional_loss(model: TaskModel, measure: Measure) -> Loss:
    """Returns `loss(backbone, fast, batch)` of a model's forward pass: parameters go in as values, nothing is written.

    Args:
        model: whose modules are run.
        measure: the task's loss, outputs and batch to a scalar () in nats.

    Returns:
        The loss of a batch with tensors (B, L), (); of one with tensors (T, B, L), and adapter and head
        with a leading T, (T,), if the model `supports_one_pass`.
    """
    _refuse_checkpointing(model.backbone)
    shared, noisy = _shares_parameters(model), model.noisy

    def loss(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
        episodes = batch["input_ids"].shape[:-2]
        flat = {name: tensor.flatten(0, 1) for name, tensor in batch.items()} if episodes else batch
        with _drawing(noisy, batch.get(NOISE)):
            outputs = functional_call(model, {**backbone, **fast}, (flat,), tie_weights=shared)
        if episodes:
            # Not vmapped: a compiler would take its lengths for constants, and T is small.
            each = outputs.unflatten(0, batch["input_ids"].shape[:2]).unbind()
            parts = [{name: tensor[place] for name, tensor in batch.items()} for place in range(len(each))]
            found = torch.stack([measure(*pair) for pair in zip(each, parts, strict=True)])
        else:
            found = measure(outputs, batch)
        penalty = model.penalty(fast)
        return found if penalty is None else found + penalty

    return loss


@contextlib.contextmanager
def _drawing(noisy: Sequence[nn.Module], keys: torch.Tensor | None) -> Iterator[None]:
    """Lets these modules draw by a batch's keys; without keys, as in scoring, they draw nothing."""
    noise = None if keys is None else Noise(keys)
    for module in noisy:
        setattr(module, NOISE, noise)
    try:
        yield
    finally:
        for module in noisy:
            setattr(module, NOISE, None)


def _shares_parameters(model: nn.Module) -> bool:
    """Tells if one parameter has several names. `functional_call` would look at every call, for a tenth of a small step."""
    names = (model.named_parameters(remove_duplicate=False), model.named_parameters())
    return len(list(names[0])) != len(list(names[1]))


def _refuse_checkpointing(backbone: nn.Module) -> None:
    """Refuses a backbone whose layers would run again in the backward pass, when their own weights are back in place."""
    if any(getattr(module, "gradient_checkpointing", False) for module in backbone.modules()):
        raise MetaprimeError(
            f"{type(backbone).__name__} has gradient checkpointing switched on, under which gradients at parameters given as "
            "values are silently wrong: take `gradient_checkpointing` out of the encoder's config.json; inner.task_chunk and "
            "inner.micro_batch save memory instead"
        )


def initial_values(model: TaskModel, group: str, generator: torch.Generator) -> Params:
    """Draws values for every parameter of `adapter` or `head`, on the CPU, as a pure function of the generator.

    Every module that owns parameters there is `types.Drawn`, or within one that answers for it.
    """
    values: Params = {}
    unanswered = {name for name, _ in model.named_parameters()}
    for path, module in model.get_submodule(group).named_modules(prefix=group):
        own = {f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)}
        if isinstance(module, Drawn) or own & unanswered:
            drawn = cast(Drawn, module).initial(generator)
            values |= add_prefix(path, drawn)
            unanswered -= values.keys()
    return values


def assign(model: TaskModel, values: Params) -> None:
    """Copies values into the model's parameters and integer tensors of the same names.

    Raises:
        MetaprimeError: the model has no parameter of a name, or one of another shape.
    """
    own = dict([*model.named_parameters(), *model.adapter.named_buffers("adapter")])
    with torch.no_grad():
        for name, value in values.items():
            if name not in own or own[name].shape != value.shape:
                found = tuple(own[name].shape) if name in own else "no such parameter"
                raise MetaprimeError(
                    f"parameter {name} of shape {tuple(value.shape)} does not fit this model ({found}): "
                    "the peft section, the labels or the encoder differ from those it was saved with"
                )
            own[name].copy_(value)
