"""Joins backbone, adapter and head in one module tree, so that one `functional_call` reaches all three by name.

Parameters are named `backbone.*` (theta), `adapter.*` (phi) and `head.*`; learned inner rates are `rates.*`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn
from torch.func import functional_call

from metaprime.models.outputs import Measure, Outputs, head_outputs
from metaprime.models.sites import is_unused
from metaprime.nn import Adapter
from metaprime.packing import PACKED
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
"""Groups of a model's parameters; a parameter's name starts with that of its group."""


@dataclass(frozen=True)
class Traits:
    """How a model's parts work together.

    Attributes:
        scale: divisor of the encoder's output before the head (`models/features.py`).
        autocast: whether matrices are multiplied in bfloat16; parameters and outputs stay float32.
        supports_one_pass: whether adapter and head are known to take values with a leading T
            (`injection_check.supports_one_pass`).
        padded: reason why batches stay padded (`packing_check.why_padded`); empty: their sub-words are
            computed in one row (`metaprime/packing.py`).
    """

    scale: float = 1.0
    autocast: bool = False
    supports_one_pass: bool = False
    padded: str = "not packed"

    @property
    def packed(self) -> bool:
        """True if a batch's sub-words are computed in one row."""
        return not self.padded


class TaskModel(nn.Module):
    """An encoder with a method's adapter in it and a task's head on it.

    Attributes:
        backbone: the encoder, with the adapter's hooks on its modules.
        adapter: phi, and the method's selection, constraint and penalty.
        head: the task's output layer.
        rates: learned inner rates; no forward pass uses them.
        traits: scale of the features, precision, and whether episodes can share a pass.

    Example: `TaskModel(encoder.module, Adapter(), head).eval()(batch)`
    """

    def __init__(
        self,
        backbone: nn.Module,
        adapter: Adapter,
        head: nn.Module,
        outputs: Outputs = head_outputs,
        traits: Traits = Traits(),
    ) -> None:
        """Joins the parts; none of them is copied.

        Raises:
            MetaprimeError: the backbone has gradient checkpointing switched on.
        """
        super().__init__()
        _refuse_checkpointing(backbone)
        self.backbone, self.adapter, self.head, self.rates = backbone, adapter, head, nn.ModuleDict()
        self.traits, self._outputs = traits, outputs

    @property
    def scale(self) -> float:
        """Divisor of the encoder's output before the head."""
        return self.traits.scale

    @property
    def autocast(self) -> bool:
        """True if matrices are multiplied in bfloat16."""
        return self.traits.autocast

    @property
    def supports_one_pass(self) -> bool:
        """True if adapter and head are known to take values with a leading T."""
        return self.traits.supports_one_pass

    @property
    def packed(self) -> bool:
        """True if a batch's sub-words are computed in one row, without padding."""
        return self.traits.packed

    @property
    def batches(self) -> str:
        """How the encoder reads batches, for records: `packed`, or `padded: ` with the reason."""
        return f"padded: {self.traits.padded}" if self.traits.padded else "packed"

    def variant(self, **changes: float | str) -> TaskModel:
        """Returns a model over the same modules, in evaluation mode, with other traits.

        Args:
            changes: fields of `Traits`; the others stay as they are.

        Example: `model.variant(autocast=True)`
        """
        # mypy cannot match arbitrary keywords with the fields of `Traits`.
        traits = replace(self.traits, **changes)  # type: ignore[arg-type]
        model = TaskModel(self.backbone, self.adapter, self.head, self._outputs, traits)
        model.rates.update(dict(self.rates.items()))
        return model.eval()

    @property
    def noisy(self) -> list[nn.Module]:
        """Lists the adapter's modules that draw random numbers in training, such as dropout."""
        return [module for module in self.adapter.modules() if hasattr(module, NOISE)]

    def learn_rates(self, names: Sequence[str], steps: int) -> None:
        """Adds one inner rate, a zero (), for each inner step and each named parameter.

        Args:
            names: full names of the parameters.
            steps: number of inner steps.

        Example: `model.learn_rates(["head.weight"], steps=5)`
        """
        for step in range(steps):
            self.rates[str(step)] = nn.ParameterDict({name.replace(".", ":"): torch.zeros(()) for name in names})

    def forward(self, batch: Batch) -> torch.Tensor:
        """Returns the task's outputs.

        Args:
            batch: tensors `(B, L)`.

        Returns:
            `(B, ...)` in float32.
        """
        # A precomputed encoder output is float32, and the head then works in float32 too.
        if not self.autocast or HIDDEN in batch:
            return self._outputs(self, batch)
        # No cache of cast weights: it would outlive the values that `functional_call` puts in their place.
        with torch.autocast(batch["input_ids"].device.type, torch.bfloat16, cache_enabled=False):
            outputs = self._outputs(self, batch)
        return outputs.float()

    def encode(self, batch: Batch) -> torch.Tensor:
        """Returns the features that the head reads: the encoder's output divided by `scale`.

        Args:
            batch: tensors `(B, L)`; HIDDEN, if present, is the precomputed output `(B, L, D)`.

        Returns:
            `(B, L, D)`.
        """
        hidden_BLD = batch[HIDDEN] if HIDDEN in batch else self._read(batch)
        return hidden_BLD if self.scale == 1 else hidden_BLD / self.scale

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Returns the arguments with which the backbone reads a batch.

        Args:
            batch: tensors `(B, L)`.

        Example: `model.backbone(**model.inputs(batch)).last_hidden_state`
        """
        names = ("input_ids", "attention_mask", "token_type_ids")
        return {name: batch[name] for name in names if name in batch} | ({PACKED: True} if self.packed else {})

    def _read(self, batch: Batch) -> torch.Tensor:
        """Returns the encoder's output `(B, L, D)` for a batch of tensors `(B, L)`."""
        hidden_BLD: torch.Tensor = self.backbone(**self.inputs(batch)).last_hidden_state
        return hidden_BLD

    def select(self, backbone: Params, gradients: Gradients) -> Params:
        """Selects the weights that may move (`Adapter.select`).

        Args:
            backbone: theta by full name, in the shapes of the encoder's parameters, such as `(D, D)`.
            gradients: yields the loss's gradients at named weights, batch by batch.

        Returns:
            Integer tensors by full name.
        """
        return add_prefix("adapter", self.adapter.select(backbone, gradients))

    def project(self, values: Params, done: float) -> Params:
        """Projects values onto the method's constraint (`Adapter.project`).

        Args:
            values: adapter and head by full name, each `(...,)` or `(T, ...)`.
            done: share of all steps that is done, in (0, 1].

        Returns:
            The values that change, by full name.
        """
        return add_prefix("adapter", self.adapter.project(strip_prefix("adapter", values), done))

    def penalty(self, values: Params) -> torch.Tensor | None:
        """Returns the term that training adds to the loss (`Adapter.penalty`).

        Args:
            values: adapter and head by full name, each `(...,)` or `(T, ...)`.

        Returns:
            `()` or `(T,)` in nats; None if the method adds nothing.
        """
        return self.adapter.penalty(strip_prefix("adapter", values)) if self.adapter.penalised else None


def partition(model: TaskModel, unused: tuple[str, ...] = ()) -> State:
    """Returns the model's parameters, and the adapter's integer tensors, by group.

    Args:
        model: the model; its parameters are not copied.
        unused: path prefixes below the backbone whose parameters are left out.

    Example: `partition(model, encoder.layout.unused).adapter`
    """
    groups: dict[str, Params] = {group: {} for group in VALUE_GROUPS}
    for name, parameter in (*model.named_parameters(), *model.adapter.named_buffers("adapter")):
        group, path = name.split(".", 1)
        if not is_unused(path, unused):
            groups[group][name] = parameter
    return State(**groups)


def functional_loss(model: TaskModel, measure: Measure) -> Loss:
    """Returns the loss of a model as a function of its parameters' values; it writes nothing.

    Args:
        model: the model whose modules are run.
        measure: the task's loss, from outputs and batch to () in nats.

    Returns:
        `loss(backbone, fast, batch)`: () for a batch with tensors (B, L). If the model
        `supports_one_pass`, also (T,) for tensors (T, B, L) and `fast` with a leading T.

    Raises:
        MetaprimeError: the backbone has gradient checkpointing switched on.

    Example: `functional_loss(model, task.loss)(state.backbone, {**phi, **head}, batch)`
    """
    _refuse_checkpointing(model.backbone)
    shared, noisy = _shares_parameters(model), model.noisy

    def loss(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
        episodes = batch["input_ids"].shape[:-2]
        flat = {name: tensor.flatten(0, 1) for name, tensor in batch.items()} if episodes else batch
        with _drawing(noisy, batch.get(NOISE)):
            outputs = functional_call(model, {**backbone, **fast}, (flat,), tie_weights=shared)
        if episodes:
            # A loop rather than vmap: under vmap a compiler treats lengths as constants, and T is small.
            each = outputs.unflatten(0, batch["input_ids"].shape[:2]).unbind()
            parts = [{name: tensor[place] for name, tensor in batch.items()} for place in range(len(each))]
            losses = torch.stack([measure(*pair) for pair in zip(each, parts, strict=True)])
        else:
            losses = measure(outputs, batch)
        penalty = model.penalty(fast)
        return losses if penalty is None else losses + penalty

    return loss


@contextlib.contextmanager
def _drawing(noisy: Sequence[nn.Module], keys: torch.Tensor | None) -> Iterator[None]:
    """Gives modules with dropout the keys of a batch; without keys, as in scoring, dropout is off."""
    noise = None if keys is None else Noise(keys)
    for module in noisy:
        setattr(module, NOISE, noise)
    try:
        yield
    finally:
        for module in noisy:
            setattr(module, NOISE, None)


def _shares_parameters(model: nn.Module) -> bool:
    """Returns True if one parameter has several names.

    Left to `functional_call`, this search would take a tenth of every small step.
    """
    names = (model.named_parameters(remove_duplicate=False), model.named_parameters())
    return len(list(names[0])) != len(list(names[1]))


def _refuse_checkpointing(backbone: nn.Module) -> None:
    """Refuses gradient checkpointing: its second forward pass would use the module's weights, not the given values."""
    if any(getattr(module, "gradient_checkpointing", False) for module in backbone.modules()):
        raise MetaprimeError(
            f"{type(backbone).__name__} has gradient checkpointing switched on, under which metaprime's gradients are "
            "silently wrong: remove `gradient_checkpointing` from the encoder's config.json; inner.task_chunk and "
            "inner.micro_batch save memory instead"
        )


def initial_values(model: TaskModel, group: str, generator: torch.Generator) -> Params:
    """Draws initial values for every parameter of a group, as a pure function of the generator.

    Every module that owns parameters must be `types.Drawn`, or inside a module whose `initial` covers it.

    Args:
        model: the model; nothing is written.
        group: `adapter` or `head`.
        generator: a CPU generator.

    Returns:
        Values by full name, on the CPU.

    Example: `initial_values(model, "head", torch_stream(0, "head"))`
    """
    values: Params = {}
    missing = {name for name, _ in model.named_parameters()}
    for path, module in model.get_submodule(group).named_modules(prefix=group):
        direct = {f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)}
        if isinstance(module, Drawn) or direct & missing:
            drawn = cast(Drawn, module).initial(generator)
            values |= add_prefix(path, drawn)
            missing -= values.keys()
    return values


def assign(model: TaskModel, values: Params) -> None:
    """Copies values into the model's parameters and integer tensors of the same names.

    Args:
        model: changed in place.
        values: by full name, in the shapes of the model's parameters, such as `(C, D)` for a head.

    Raises:
        MetaprimeError: the model has no parameter of that name, or its shape differs.

    Example: `assign(model, artifact.values)`
    """
    parameters = dict([*model.named_parameters(), *model.adapter.named_buffers("adapter")])
    with torch.no_grad():
        for name, value in values.items():
            if name not in parameters or parameters[name].shape != value.shape:
                expected = tuple(parameters[name].shape) if name in parameters else "no such parameter"
                raise MetaprimeError(
                    f"parameter {name} of shape {tuple(value.shape)} does not fit this model ({expected}): "
                    "the peft section, the labels or the encoder differ from those it was saved with"
                )
            parameters[name].copy_(value)
