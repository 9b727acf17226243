"""Backbone, adapter and head as one module tree, so that one `functional_call` reaches all three by name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import nn
from torch.func import functional_call

from metaprime.rng import Noise
from metaprime.types import NOISE, Batch, Drawn, Loss, MetaprimeError, Params, Project, Select, State

GROUPS = ("backbone", "adapter", "head", "rates")


class TaskModel(nn.Module):
    """Runs inputs through the (modified) backbone and the head: logits (B, L, C). `rates`, if learned, only travel along.

    Attributes:
        autocast: whether matrices are multiplied in bfloat16 (autocast); parameters and logits are as wide as ever.
        per_episode: whether it is known to take adapter and head with a leading T (`selfcheck.supports_one_pass`).
        penalty: what training adds to the loss (nats), as a function of the adapter's values; None: nothing.
        choose, project: of the method (`peft.Method`), over full names.
    """

    autocast = False
    per_episode = False
    penalty: Callable[[Params], torch.Tensor] | None = None
    choose: Select | None = None
    project: Project | None = None

    def __init__(self, backbone: nn.Module, adapter: nn.ModuleDict, head: nn.Module) -> None:
        super().__init__()
        _refuse_checkpointing(backbone)
        self.backbone, self.adapter, self.head = backbone, adapter, head
        self.rates = nn.ModuleDict()

    @property
    def noisy(self) -> list[nn.Module]:
        """The adapter's modules that draw while they train, as dropout does."""
        return [module for module in self.adapter.modules() if hasattr(module, NOISE)]

    def learn_rates(self, names: Sequence[str], steps: int) -> None:
        """Adds one inner rate (a scalar, zero until assigned) for each inner step and each of the named parameters."""
        for step in range(steps):
            self.rates[str(step)] = nn.ParameterDict({name.replace(".", ":"): torch.zeros(()) for name in names})

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        if not self.autocast:
            return self._logits(input_ids, attention_mask)
        # No cache of cast weights: it would outlive the values that `functional_call` puts in their place.
        with torch.autocast(input_ids.device.type, torch.bfloat16, cache_enabled=False):
            logits_BLC = self._logits(input_ids, attention_mask)
        return logits_BLC.float()

    def _logits(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden_BLD = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        logits_BLC: torch.Tensor = self.head(hidden_BLD)
        return logits_BLC


def partition(model: TaskModel, unused: tuple[str, ...] = ()) -> State:
    """The model's own parameters by group, and the adapter's choices; those under `unused` paths of the backbone are in none."""
    groups: dict[str, Params] = {group: {} for group in GROUPS}
    for name, parameter in (*model.named_parameters(), *model.adapter.named_buffers("adapter")):
        group, path = name.split(".", 1)
        if not path.startswith(unused or ("\0",)):
            groups[group][name] = parameter
    return State(**groups)


def functional_loss(model: TaskModel, measure: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Loss:
    """`loss(backbone, fast, batch)` of a model's forward pass: parameters go in as values, nothing is written.

    For a batch (T, B, L), and adapter and head with a leading T, it is (T,), if the model is `per_episode`.
    """
    _refuse_checkpointing(model.backbone)
    shared, noisy = _shares_parameters(model), model.noisy

    def loss(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
        labels = batch["labels"]
        inputs = tuple(batch[name].flatten(0, -2) for name in ("input_ids", "attention_mask"))
        with _noise(noisy, batch.get(NOISE)):
            logits_BLC = functional_call(model, {**backbone, **fast}, inputs, tie_weights=shared)
        if labels.dim() == 2:
            found = measure(logits_BLC, labels)
        else:
            logits_TBLC = logits_BLC.unflatten(0, labels.shape[:2])
            # Not vmapped: a compiler would take its lengths for constants, and T is small.
            found = torch.stack([measure(*each) for each in zip(logits_TBLC.unbind(), labels.unbind(), strict=True)])
        return found if model.penalty is None else found + model.penalty(fast)

    return loss


@contextlib.contextmanager
def _noise(noisy: Sequence[nn.Module], keys: torch.Tensor | None) -> Iterator[None]:
    """Within, these modules draw: without keys not at all, as in scoring."""
    noise = None if keys is None else Noise(keys)
    for module in noisy:
        setattr(module, NOISE, noise)
    try:
        yield
    finally:
        for module in noisy:
            setattr(module, NOISE, None)


def _shares_parameters(model: nn.Module) -> bool:
    """Whether one parameter has several names. `functional_call` would look at every call, for a tenth of a small step."""
    names = (model.named_parameters(remove_duplicate=False), model.named_parameters())
    return len(list(names[0])) != len(list(names[1]))


def _refuse_checkpointing(backbone: nn.Module) -> None:
    """A checkpointed layer runs again in the backward pass, when its own weights are back in place of the values."""
    if any(getattr(module, "gradient_checkpointing", False) for module in backbone.modules()):
        raise MetaprimeError(
            f"{type(backbone).__name__} has gradient checkpointing switched on, under which gradients at parameters given as "
            "values are silently wrong: take `gradient_checkpointing` out of the encoder's config.json; inner.task_chunk and "
            "inner.micro_batch save memory instead"
        )


def initial_values(model: TaskModel, group: str, generator: torch.Generator) -> Params:
    """Fresh values for every parameter of `adapter` or `head`, on the CPU, as a pure function of the generator.

    Every module that owns parameters there is `types.Drawn`, or within one that answers for it.
    """
    values: Params = {}
    unanswered = {name for name, _ in model.named_parameters()}
    for path, module in model.get_submodule(group).named_modules(prefix=group):
        own = {f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)}
        if isinstance(module, Drawn) or own & unanswered:
            drawn = cast(Drawn, module).initial(generator)
            values |= {f"{path}.{name}": value for name, value in drawn.items()}
            unanswered -= values.keys()
    return values


def assign(model: TaskModel, values: Params) -> None:
    """Copies values into the model's parameters and choices of the same names.

    Raises:
        MetaprimeError: a name is not the model's, or a shape differs.
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
