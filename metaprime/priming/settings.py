"""Translates the config's inner loop to `meta.InnerLoop`, and refuses combinations of method and learner that make no sense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from metaprime.config.sections import InnerConfig, LearnerConfig, OuterConfig
from metaprime.meta import Execution, InnerLoop, Learner, Way
from metaprime.models.task_model import TaskModel
from metaprime.peft import MethodConfig, method_of
from metaprime.types import MetaprimeError, State, trainable


@dataclass(frozen=True)
class Sections:
    """The sections of a config that say how priming learns."""

    learner: LearnerConfig
    inner: InnerConfig
    outer: OuterConfig
    peft: MethodConfig


def check_sections(asked: Sections) -> None:
    """Refuses combinations that cannot be primed with, as far as that is known without an encoder.

    Raises:
        MetaprimeError: the learner has no inner loop for the settings of one, or no adapter to move; the message
            names the key to change.
    """
    learner, name, inner = asked.learner.value, asked.learner.name, asked.inner
    torch = asked.learner.backend == "torch"
    if learner.adapts and inner.steps == 0:
        raise MetaprimeError(f"inner.steps must be at least 1 for learner.name {name!r}")
    if learner.injects and method_of(asked.peft).moves_backbone:
        raise MetaprimeError(f"peft.method {asked.peft.method!r} has no adapter for learner.name {name!r}")
    if inner.learn_rates and not (learner.second_order and learner.adapts and torch):
        where = f"learner.name {name!r} with backend {asked.learner.backend}"
        raise MetaprimeError(f"inner.learn_rates: {where} has no inner rates to learn")
    if inner.compile and not (inner.batched and torch):
        raise MetaprimeError("inner.compile needs inner.batched: true and learner.backend: torch")
    if inner.order == "second" and not learner.second_order:
        raise MetaprimeError(f"inner.order second: learner.name {name!r} has no gradient of its inner loop")


def inner_loop(asked: Sections, model: TaskModel, state: State, rules: Mapping[str, str]) -> InnerLoop:
    """Returns the inner loop that the config asks for, before encoder and memory restrict its execution.

    Args:
        asked: the config's sections.
        model: with the method's adapter in it.
        state: what the model holds.
        rules: of `adapter` and `head` (`starts.starting_rules`).

    Raises:
        MetaprimeError: the config asks for what the method, the learner or the backend cannot do.
    """
    carries = any(rule.startswith("carry") for rule in rules.values())
    _check_backend(asked, carries)
    _check_method(asked, model, state)
    learner, inner = asked.learner.value, asked.inner
    learned = [group for group in learner.outer if group == "backbone"]
    learned += [group for group, rule in rules.items() if rule == "meta" and getattr(state, group)]
    learned += ["rates"] if state.rates else []
    execution = Execution(
        way=shared_way(learner, model) if inner.batched and asked.learner.backend == "torch" else Way.LOOP,
        chunk=None if inner.task_chunk == "auto" else inner.task_chunk,
        micro=inner.micro_batch,
    )
    return InnerLoop(
        lr=inner.lr,
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
    """Returns how several episodes share a pass: in one where the modules allow it, else by vmap."""
    return Way.ONE_PASS if "backbone" not in learner.inner and model.supports_one_pass else Way.VMAP


def _check_backend(asked: Sections, carries: bool) -> None:
    """Refuses what learn2learn cannot compute."""
    if asked.learner.backend == "torch":
        return
    if carries:
        raise MetaprimeError(
            "learner.backend learn2learn gives no adapted values to carry: set outer.adapter and outer.head to reset, keep "
            "or meta"
        )
    if asked.inner.optimizer != "sgd" or asked.inner.clip:
        raise MetaprimeError(
            "learner.backend learn2learn knows plain SGD alone: use inner.optimizer: sgd without inner.clip, or "
            "learner.backend: torch"
        )


def _check_method(asked: Sections, model: TaskModel, state: State) -> None:
    """Refuses learners that cannot prime with a method that selects, constrains or draws."""
    adapter, name, learner = model.adapter, asked.peft.method, asked.learner.name
    adapts = asked.learner.value.adapts
    fixed = trainable(state.adapter).keys() != state.adapter.keys()
    if asked.learner.backend == "learn2learn" and (adapter.selects or adapter.projects or model.noisy or fixed):
        raise MetaprimeError(
            f"peft.method {name}: learn2learn knows gradient steps of parameters, and neither selection nor noise nor "
            "constraints: use learner.backend: torch"
        )
    if (adapter.projects or model.noisy) and not adapts:
        raise MetaprimeError(
            f"peft.method {name} needs an inner loop, and learner.name {learner!r} has none: use a learner that has one, "
            "or peft.dropout: 0, or another method"
        )
    if adapter.projects and asked.inner.learn_rates:
        raise MetaprimeError(
            f"inner.learn_rates: peft.method {name} constrains what a step moved, which leaves some rates without effect: "
            "set it to false"
        )
    if adapter.penalised and asked.outer.adapter not in ("reset", "keep"):
        raise MetaprimeError(
            f"outer.adapter {asked.outer.adapter}: with peft.method {name} an episode ends with fixed gates, from which the "
            "next cannot start: set outer.adapter to reset or keep"
        )
    if adapter.selects and not adapts:
        raise MetaprimeError(
            f"peft.method {name} selects weights by an episode's support sentences, and learner.name {learner!r} has none: "
            "use a learner with an inner loop, or another method"
        )
    if adapter.selects and asked.outer.adapter != "reset":
        raise MetaprimeError(
            f"outer.adapter {asked.outer.adapter}: with peft.method {name} every episode moves other weights, so that none of "
            "its changes can start the next one: set outer.adapter to reset"
        )
