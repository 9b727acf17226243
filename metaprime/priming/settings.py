"""A config's inner loop as `meta.InnerLoop`, and the combinations of method and learner that make no sense."""

from __future__ import annotations

from metaprime.config.sections import Config
from metaprime.meta import LEARNERS, Execution, InnerLoop, Learner, Way
from metaprime.models.task_model import TaskModel
from metaprime.priming.starts import rules_of
from metaprime.types import MetaprimeError, State, trainable


def settings_of(config: Config, model: TaskModel, state: State) -> InnerLoop:
    """How the inner loop runs, before it is known what the encoder and the memory allow.

    Raises:
        MetaprimeError: the config asks for what the method, the learner or the backend cannot do.
    """
    rules = rules_of(config)
    carries = any(rule.startswith("carry") for rule in rules.values())
    if carries and config.learner.backend == "learn2learn":
        raise MetaprimeError(
            "learner.backend learn2learn gives no adapted values to carry: set outer.adapter and outer.head to reset, keep "
            "or meta"
        )
    _check_method(config, model, state)
    if config.learner.backend == "learn2learn" and (config.inner.optimizer != "sgd" or config.inner.clip):
        raise MetaprimeError(
            "learner.backend learn2learn knows plain SGD alone: use inner.optimizer: sgd without inner.clip, or learner.backend: "
            "torch"
        )
    learner = LEARNERS[config.learner.name]
    learned = [group for group in learner.outer if group == "backbone"]
    learned += [group for group, rule in rules.items() if rule == "meta" and getattr(state, group)]
    learned += ["rates"] if state.rates else []
    execution = Execution(
        way=shared_way(learner, model) if config.inner.batched and config.learner.backend == "torch" else Way.LOOP,
        chunk=None if config.inner.task_chunk == "auto" else config.inner.task_chunk,
        micro=config.inner.micro_batch,
    )
    return InnerLoop(
        lr=config.inner.lr,
        moves=learner.inner,
        optimizer=config.inner.optimizer,
        clip=config.inner.clip,
        second_order=config.inner.order == "second",
        outer=tuple(learned),
        carry=carries,
        select=model.select if model.adapter.selects else None,
        project=model.project if model.adapter.projects else None,
        execution=execution,
    )


def shared_way(learner: Learner, model: TaskModel) -> Way:
    """Returns how several episodes share a pass: in one where the modules allow it, else by vmap."""
    return Way.ONE_PASS if "backbone" not in learner.inner and model.supports_one_pass else Way.VMAP


def _check_method(config: Config, model: TaskModel, state: State) -> None:
    """Refuses what a method that chooses, constrains or draws cannot be primed with.

    Raises:
        MetaprimeError: it is.
    """
    name = config.peft.method
    more = (
        model.adapter.selects
        or model.adapter.projects
        or model.noisy
        or trainable(state.adapter).keys() != state.adapter.keys()
    )
    if config.learner.backend == "learn2learn" and more:
        raise MetaprimeError(
            f"peft.method {name}: learn2learn knows gradient steps of parameters, and neither choices nor noise nor constraints: "
            "use learner.backend: torch"
        )
    adapts = LEARNERS[config.learner.name].adapts
    if (model.adapter.projects or model.noisy) and not adapts:
        raise MetaprimeError(
            f"peft.method {name} draws, or constrains what it moves, in an inner loop, and learner.name {config.learner.name!r} "
            "has none: use a learner that has, or peft.dropout: 0, or another method"
        )
    if model.adapter.projects and config.inner.learn_rates:
        raise MetaprimeError(
            f"inner.learn_rates: peft.method {name} constrains what a step moved, which leaves some rates without effect: set it "
            "to false"
        )
    if model.adapter.penalised and config.outer.adapter not in ("reset", "keep"):
        raise MetaprimeError(
            f"outer.adapter {config.outer.adapter}: with peft.method {name} an episode ends with its gates fixed, and the next "
            "cannot begin so: set outer.adapter to reset or keep"
        )
    if model.adapter.selects and not adapts:
        raise MetaprimeError(
            f"peft.method {name} chooses weights by an episode's support sentences, and learner.name {config.learner.name!r} has "
            "none: use a learner with an inner loop, or another method"
        )
    if model.adapter.selects and config.outer.adapter != "reset":
        raise MetaprimeError(
            f"outer.adapter {config.outer.adapter}: with peft.method {name} every episode moves other weights, so that none of "
            "its changes can be the next one's start: set outer.adapter to reset"
        )
