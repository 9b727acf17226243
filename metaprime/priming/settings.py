"""Translates the config to `meta.InnerLoop`; validates how method, learner and backend combine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from metaprime.config.sections import InnerConfig, LearnerConfig, OuterConfig
from metaprime.meta import Execution, InnerLoop, Learner, Way
from metaprime.peft import MethodConfig, moves_backbone
from metaprime.types import MetaprimeError, State, trainable

if TYPE_CHECKING:
    from metaprime.models.task_model import TaskModel


@dataclass(frozen=True)
class Sections:
    """The four sections of a config that define learner, inner loop, outer loop and PEFT method."""

    learner: LearnerConfig
    inner: InnerConfig
    outer: OuterConfig
    peft: MethodConfig
    together: int = 1


def check_sections(sections: Sections) -> Sections:
    """Returns the sections, validated as far as that is possible without an encoder.

    Raises:
        MetaprimeError: learner or backend does not support a setting; the message names the key.
    """
    learner, name, inner = sections.learner.value, sections.learner.name, sections.inner
    torch = sections.learner.backend == "torch"
    if learner.adapts and inner.steps == 0:
        raise MetaprimeError(f"inner.steps must be at least 1 for learner.name {name!r}")
    if learner.injects and moves_backbone(sections.peft):
        raise MetaprimeError(f"peft.method {sections.peft.method!r} has no adapter for learner.name {name!r}")
    if learner.injects and "backbone" in learner.outer and (reason := sections.peft.tuning_only):
        raise MetaprimeError(
            f"peft.method {sections.peft.method!r} of learner.name {name!r}: {reason}: prime with another method, and fine-tune "
            "with this one by transfer.methods"
        )
    if inner.learn_rates and not (learner.second_order and learner.adapts and torch):
        where = f"learner.name {name!r} with backend {sections.learner.backend}"
        raise MetaprimeError(f"inner.learn_rates: {where} has no inner rates to learn")
    if inner.compile and not (inner.batched and torch):
        raise MetaprimeError("inner.compile needs inner.batched: true and learner.backend: torch")
    if inner.micro_batch and inner.micro_batch % sections.together:
        raise MetaprimeError(
            f"inner.micro_batch is {inner.micro_batch}, but the {sections.together} choices of an example share a pass: give a "
            f"multiple of {sections.together}"
        )
    if inner.order == "second" and not learner.second_order:
        raise MetaprimeError(f"inner.order second: learner.name {name!r} cannot differentiate through its inner loop")
    return sections


def inner_loop(sections: Sections, model: TaskModel, state: State, rules: Mapping[str, str]) -> InnerLoop:
    """Returns the inner loop of the config, before encoder and memory restrict its execution.

    Args:
        sections: the config's sections.
        model: encoder, adapter and head.
        state: the model's own parameters by group.
        rules: `adapter` and `head` -> rule, as `starting_rules(learner, outer)` returns them.

    Raises:
        MetaprimeError: method, learner or backend does not support a setting, whose key is named.
    """
    carries = any(rule.startswith("carry") for rule in rules.values())
    _check_backend(sections, carries)
    _check_method(sections, model, state)
    learner, inner = sections.learner.value, sections.inner
    learned = [group for group in learner.outer if group == "backbone"]
    learned += [group for group, rule in rules.items() if rule == "meta" and getattr(state, group)]
    learned += ["rates"] if state.rates else []
    execution = Execution(
        way=shared_way(learner, model) if inner.batched and sections.learner.backend == "torch" else Way.LOOP,
        packed=model.packed and not inner.compile,
        chunk=None if inner.task_chunk == "auto" else inner.task_chunk,
        micro=inner.micro_batch,
    )
    return InnerLoop(
        lr=inner.rate,
        moves=learner.inner,
        optimizer=inner.optimizer,
        clip=inner.clip,
        second_order=inner.order == "second",
        outer=tuple(learned),
        carry=carries,
        select=model.select if model.adapter.selects else None,
        project=model.project if model.adapter.projects else None,
        execution=execution,
    )


def shared_way(learner: Learner, model: TaskModel) -> Way:
    """Returns how episodes share a pass: `ONE_PASS` if the modules support it, else `VMAP`.

    `VMAP` pads. On a CPU a loop over packed episodes is as fast: `LOOP`.
    """
    if "backbone" not in learner.inner and model.supports_one_pass:
        return Way.ONE_PASS
    on_cpu = next(model.parameters()).device.type == "cpu"
    return Way.LOOP if model.packed and on_cpu else Way.VMAP


def _check_backend(sections: Sections, carries: bool) -> None:
    """Raises an error for settings that learn2learn cannot compute."""
    if sections.learner.backend == "torch":
        return
    if carries:
        raise MetaprimeError(
            "learner.backend learn2learn returns no adapted values to carry: set outer.adapter and outer.head to reset, keep "
            "or meta"
        )
    if sections.inner.optimizer != "sgd" or sections.inner.clip:
        raise MetaprimeError(
            "learner.backend learn2learn supports only plain SGD: use inner.optimizer: sgd without inner.clip, or "
            "learner.backend: torch"
        )


def _check_method(sections: Sections, model: TaskModel, state: State) -> None:
    """Raises an error if the learner cannot prime a method that selects, constrains or draws."""
    adapter, name, learner = model.adapter, sections.peft.method, sections.learner.name
    adapts = sections.learner.value.adapts
    fixed = trainable(state.adapter).keys() != state.adapter.keys()
    if sections.learner.backend == "learn2learn" and (adapter.selects or adapter.projects or model.noisy or fixed):
        raise MetaprimeError(
            f"peft.method {name}: learn2learn supports plain gradient steps, without selection, noise or constraints: "
            "use learner.backend: torch"
        )
    if (adapter.projects or model.noisy) and not adapts:
        raise MetaprimeError(
            f"peft.method {name} needs an inner loop, and learner.name {learner!r} has none: use a learner that has one, "
            "or peft.dropout: 0, or another method"
        )
    if adapter.projects and sections.inner.learn_rates:
        raise MetaprimeError(
            f"inner.learn_rates: peft.method {name} constrains the values after each step, so that some rates have no "
            "effect: set it to false"
        )
    if adapter.penalised and sections.outer.adapter not in ("reset", "keep"):
        raise MetaprimeError(
            f"outer.adapter {sections.outer.adapter}: with peft.method {name} an episode ends with fixed gates, from which the "
            "next episode cannot start: set outer.adapter to reset or keep"
        )
    if adapter.selects and not adapts:
        raise MetaprimeError(
            f"peft.method {name} selects weights by an episode's support sentences, and learner.name {learner!r} has none: "
            "use a learner with an inner loop, or another method"
        )
    if adapter.selects and sections.outer.adapter != "reset":
        raise MetaprimeError(
            f"outer.adapter {sections.outer.adapter}: with peft.method {name} every episode selects its own weights, so that its "
            "changes cannot start the next one: set outer.adapter to reset"
        )
