"""Everything a priming run needs, read and checked before anything is written (but an embedded encoder)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from accelerate import Accelerator

from metaprime.config import Config
from metaprime.data.episodes import Episodes, EpisodeShape
from metaprime.interop import learn2learn
from metaprime.loops.build import build_model, build_task, priming_rows, text_alone
from metaprime.loops.carrying import draw_initial, rules_of, starting_values
from metaprime.loops.finetune import to_device
from metaprime.loops.guards import Guards
from metaprime.loops.held_out import HeldOut, make_held_out
from metaprime.loops.metrics_log import Display
from metaprime.loops.outer import Outer, make_outer
from metaprime.loops.pretrain import pretrain
from metaprime.loops.room import bytes_of, fitted, kept_for_backward, longest_episode
from metaprime.loops.run_directory import KEPT_BASE
from metaprime.meta import LEARNERS, MetaStep, Settings
from metaprime.meta.compiled import compiled
from metaprime.models.encoder import Encoder, load_encoder
from metaprime.models.primable import PrimableModel, functional_loss, partition
from metaprime.peft import METHODS, MethodConfig
from metaprime.tasks.task import Task
from metaprime.types import MetaBatch, MetaprimeError, Params, Row, State, movable

BACKENDS: dict[str, Callable[[str], MetaStep]] = {
    "torch": lambda learner: LEARNERS[learner].step,
    "learn2learn": learn2learn.step_of,
}

VMAP_ERRORS = ("vmap", "Batching rule")
"""Words of torch for: a tensor asked for its value, a shape that depends on one, an operator without a rule."""

SILENTLY_WRONG = "under vmap torch's second derivative of a layer norm that the inner loop moves is wrong"
"""No error tells of it: where the weights differ between episodes, its rule takes mean and deviation as constants."""

log = logging.getLogger(__name__)


@dataclass
class Run:
    """One priming run's parts. `task` is what is primed by; `plain_step` is `meta_step` before it is compiled, if it is; `best`
    is the best validation so far: (score, step).
    """

    config: Config
    accelerator: Accelerator
    encoder: Encoder
    task: Task
    episodes: Episodes
    model: PrimableModel
    state: State
    outer: Outer
    settings: Settings
    meta_step: MetaStep
    plain_step: MetaStep
    held_out: HeldOut | None
    best: tuple[float, int] | None = None
    guards: Guards = field(default_factory=Guards)


def assemble(config: Config, accelerator: Accelerator) -> Run:
    """Reads and checks everything.

    Raises:
        MetaprimeError: bad data, encoder or combination of settings, or fewer episodes than processes.
    """
    encoder = open_encoder(config, accelerator)
    task = build_task(config, encoder)
    shape = config.episodes
    pools = priming_rows(config, task)
    episodes = Episodes(
        pools,
        EpisodeShape(
            shape.per_step,
            shape.support,
            config.inner.steps,
            shape.query,
            shape.tau,
            config.inner.support == "same",
            shape.length_bands,
        ),
        config.run.seed,
    )
    if shape.per_step < accelerator.num_processes:
        raise MetaprimeError(
            f"episodes.per_step {shape.per_step} leaves some of {accelerator.num_processes} processes without an episode: "
            "raise it or launch fewer"
        )
    learner = LEARNERS[config.learner.name]
    injects = learner.injects
    primed = task if learner.reads_tags else text_alone(task, encoder, config.encoder.trust_remote_code)
    model = build_model(encoder, primed, primed_method(config), next(iter(pools.values())))
    meta_step = BACKENDS[config.learner.backend](config.learner.name)
    held_out = None
    if config.outer.validate_every and config.data.validation_languages:
        if config.transfer.start_adapter == "primed" and not injects:
            raise MetaprimeError(
                f"transfer.start_adapter: learner.name {config.learner.name!r} learns no adapter to start validation "
                "from: set it to fresh"
            )
        if config.transfer.start_head == "primed" and not learner.reads_tags:
            raise MetaprimeError(
                f"transfer.start_head: learner.name {config.learner.name!r} learns no tag head to start validation from: set "
                "it to fresh"
            )
        held_out = make_held_out(config, encoder, task, config.peft, model if injects else None)
        held_out.model.to(accelerator.device)
    if config.inner.learn_rates:
        bare = partition(model, encoder.layout.unused)
        moved = [name for group in learner.inner for name in movable(getattr(bare, group))]
        model.learn_rates(moved, config.inner.steps)
    model.to(accelerator.device)
    draw_initial(model, config.run.seed, config.inner.lr)
    state = partition(model, encoder.layout.unused)
    settings = _settings(config, model, state)
    settings = _looped_if_need_be(config, accelerator, encoder, primed, pools, model, state, meta_step, settings)
    outer = make_outer(state, config.outer, settings.outer)
    plain = meta_step
    if config.inner.compile:
        if not (settings.batched and settings.together):
            raise MetaprimeError(
                f"inner.compile: with peft.method {config.peft.method} and learner.name {config.learner.name} episodes are "
                "adapted by torch.func.vmap or one after another, which torch cannot compile for every length: set it to false"
            )
        meta_step = compiled(plain)
    if config.inner.task_chunk == "auto" and settings.batched and config.learner.backend == "torch":
        loss, one = functional_loss(model, primed.measure), starting_values(model, state, rules_of(config), 0, 0, (0,))
        pooled = settings.second_order or not learner.adapts  # all passes leave something behind, or are one
        steps = config.inner.steps if pooled else int(settings.choose is not None)
        longest = longest_episode(primed, pools, episodes.shape, steps, accelerator.device)
        each = kept_for_backward(plain, loss, state, one, longest, settings)
        settings = fitted(settings, each, bytes_of(outer.learning), shape.per_step, accelerator)
    return Run(
        config, accelerator, encoder, primed, episodes, model, state, outer, settings, meta_step, plain, held_out
    )


def _looped_if_need_be(
    config: Config,
    accelerator: Accelerator,
    encoder: Encoder,
    task: Task,
    pools: Mapping[str, Sequence[Row]],
    model: PrimableModel,
    state: State,
    meta_step: MetaStep,
    settings: Settings,
) -> Settings:
    """The settings, with episodes one after another where they cannot go together, and a notice that says why."""
    if not settings.batched or config.learner.backend != "torch":
        return settings
    if model.noisy and LEARNERS[config.learner.name].adapts:
        reason = f"peft.method {config.peft.method} draws in training, for each episode by itself"
    elif model.autocast and not settings.together:
        reason = "torch has no gradient of bfloat16 products under vmap: encoder.precision"
    else:
        start = starting_values(model, state, rules_of(config), config.run.seed, 0, (0, 1))
        rows = next(iter(pools.values()))
        reason = why_not_batched(model, task, state, start, rows, meta_step, settings)
    if not reason:
        return settings
    if accelerator.is_main_process:
        log.warning(
            "%s cannot adapt episodes together (%s): they are adapted one after another, as with inner.batched=false",
            type(encoder.module).__name__,
            reason,
        )
    return replace(settings, batched=False)


def why_not_batched(
    model: PrimableModel,
    task: Task,
    state: State,
    start: Params,
    rows: Sequence[Row],
    meta_step: MetaStep,
    settings: Settings,
) -> str:
    """What keeps this encoder from adapting episodes together, in torch's words; empty if nothing does.

    Found out by one meta-step over two episodes of the same two sentences; `start` is phi and head of two episodes.
    """
    if settings.second_order and "backbone" in settings.inner:
        return SILENTLY_WRONG
    collated = task.collate(rows[:2])
    batch = {name: torch.stack([tensor, tensor]) for name, tensor in collated.items()}
    batch = to_device(batch, next(model.parameters()).device)
    episodes = MetaBatch(("", ""), (0, 1), 2, (batch,), batch)
    start = {name: value for name, value in start.items() if not name.startswith("rates.")}  # they are of all n steps
    settings = replace(settings, outer=tuple(group for group in settings.outer if group != "rates"))
    try:
        meta_step(functional_loss(model, task.measure), state.backbone, start, episodes, settings)
    except RuntimeError as error:
        if not any(sign in str(error) for sign in VMAP_ERRORS):
            raise
        return str(error).split(". ")[0]
    return ""


def primed_method(config: Config) -> MethodConfig:
    """The method that is injected for priming: the config's, or none for a learner that needs no PEFT modules."""
    return config.peft if LEARNERS[config.learner.name].injects else METHODS["head"].config()


def _settings(config: Config, model: PrimableModel, state: State) -> Settings:
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
    return Settings(
        inner_lr=config.inner.lr,
        inner=learner.inner,
        optimizer=config.inner.optimizer,
        clip=config.inner.clip,
        micro=config.inner.micro_batch,
        second_order=config.inner.order == "second",
        batched=config.inner.batched,
        together="backbone" not in learner.inner and model.per_episode,
        chunk=None if config.inner.task_chunk == "auto" else config.inner.task_chunk,
        outer=tuple(learned),
        carry=carries,
        choose=model.choose,
        project=model.project,
    )


def _check_method(config: Config, model: PrimableModel, state: State) -> None:
    """Refuses what a method that chooses, constrains or draws cannot be primed with.

    Raises:
        MetaprimeError: it is.
    """
    name = config.peft.method
    more = model.choose or model.project or model.noisy or movable(state.adapter).keys() != state.adapter.keys()
    if config.learner.backend == "learn2learn" and more:
        raise MetaprimeError(
            f"peft.method {name}: learn2learn knows gradient steps of parameters, and neither choices nor noise nor constraints: "
            "use learner.backend: torch"
        )
    adapts = LEARNERS[config.learner.name].adapts
    if (model.project or model.noisy) and not adapts:
        raise MetaprimeError(
            f"peft.method {name} draws, or constrains what it moves, in an inner loop, and learner.name {config.learner.name!r} "
            "has none: use a learner that has, or peft.dropout: 0, or another method"
        )
    if model.project and config.inner.learn_rates:
        raise MetaprimeError(
            f"inner.learn_rates: peft.method {name} constrains what a step moved, which leaves some rates without effect: set it "
            "to false"
        )
    if model.penalty and config.outer.adapter not in ("reset", "keep"):
        raise MetaprimeError(
            f"outer.adapter {config.outer.adapter}: with peft.method {name} an episode ends with its gates fixed, and the next "
            "cannot begin so: set outer.adapter to reset or keep"
        )
    if model.choose and not adapts:
        raise MetaprimeError(
            f"peft.method {name} chooses weights by an episode's support sentences, and learner.name {config.learner.name!r} has "
            "none: use a learner with an inner loop, or another method"
        )
    if model.choose and config.outer.adapter != "reset":
        raise MetaprimeError(
            f"outer.adapter {config.outer.adapter}: with peft.method {name} every episode moves other weights, so that none of "
            "its changes can be the next one's start: set outer.adapter to reset"
        )


def open_encoder(config: Config, accelerator: Accelerator | None = None) -> Encoder:
    """The config's encoder; `synthetic:` is pre-trained at `<run.output>/base` by the first process if not there."""
    name = config.encoder.name
    if name.partition(":")[0] == "synthetic":
        folder = Path(config.run.output) / KEPT_BASE
        main = accelerator is None or accelerator.is_main_process
        if main:
            torch.set_num_threads(config.encoder.pretrain.threads)
            with Display("pre-training", config.encoder.pretrain.steps, True) as display:
                pretrain(
                    config.encoder.pretrain,
                    name,
                    folder,
                    lambda done, _, loss: display.show(done, f"masked-word loss {loss:.3f}"),
                )
            torch.set_num_threads(config.run.threads)
        if accelerator:
            accelerator.wait_for_everyone()
        name = str(folder)
    wanted = config.encoder
    encoder = load_encoder(name, wanted.attention, wanted.sites, wanted.trust_remote_code)
    return replace(encoder, autocast=wanted.precision == "bfloat16")
