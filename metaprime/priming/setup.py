"""Everything a priming run needs, read and checked before anything is written (but an embedded encoder)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from accelerate import Accelerator

from metaprime.build.data import build_task, priming_rows, text_alone
from metaprime.build.encoder import open_encoder
from metaprime.build.model import build_model
from metaprime.config.sections import Config
from metaprime.data.episodes import EpisodeSampler, EpisodeShape
from metaprime.interop import learn2learn
from metaprime.meta import LEARNERS, InnerLoop, MetaStep, Way
from metaprime.meta.compiled import compiled
from metaprime.models.encoder import Encoder
from metaprime.models.task_model import TaskModel, functional_loss, partition
from metaprime.peft import METHODS, MethodConfig
from metaprime.priming.batching import choose_execution
from metaprime.priming.guards import Guards
from metaprime.priming.memory import activation_bytes, bytes_of, fitted, longest_episode
from metaprime.priming.outer import Outer, make_outer
from metaprime.priming.settings import settings_of
from metaprime.priming.starts import draw_initial, rules_of, starting_values
from metaprime.tasks.task import Task
from metaprime.transfers.held_out import Validation, make_validation
from metaprime.types import MetaprimeError, State, trainable

BACKENDS: dict[str, Callable[[str], MetaStep]] = {
    "torch": lambda learner: LEARNERS[learner].step,
    "learn2learn": learn2learn.step_of,
}


@dataclass
class Run:
    """One priming run's parts. `task` is what is primed by; `plain_step` is `meta_step` before it is compiled, if it is; `best`
    is the best validation so far: (score, step).
    """

    config: Config
    accelerator: Accelerator
    encoder: Encoder
    task: Task
    episodes: EpisodeSampler
    model: TaskModel
    state: State
    outer: Outer
    inner: InnerLoop
    meta_step: MetaStep
    plain_step: MetaStep
    held_out: Validation | None
    best: tuple[float, int] | None = None
    guards: Guards = field(default_factory=Guards)


def assemble(config: Config, accelerator: Accelerator) -> Run:
    """Reads and checks everything.

    Raises:
        MetaprimeError: bad data, encoder or combination of inner, or fewer episodes than processes.
    """
    encoder = open_encoder(config, accelerator)
    task = build_task(config, encoder)
    shape = config.episodes
    pools = priming_rows(config, task)
    episodes = EpisodeSampler(
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
    primed = task if learner.reads_labels else text_alone(task, encoder, config.encoder.trust_remote_code)
    model = build_model(encoder, primed, primed_method(config), next(iter(pools.values())))
    meta_step = BACKENDS[config.learner.backend](config.learner.name)
    held_out = None
    if config.outer.validate_every and config.data.validation_languages:
        if config.transfer.start_adapter == "primed" and not injects:
            raise MetaprimeError(
                f"transfer.start_adapter: learner.name {config.learner.name!r} learns no adapter to start validation "
                "from: set it to fresh"
            )
        if config.transfer.start_head == "primed" and not learner.reads_labels:
            raise MetaprimeError(
                f"transfer.start_head: learner.name {config.learner.name!r} learns no tag head to start validation from: set "
                "it to fresh"
            )
        held_out = make_validation(config, encoder, task, config.peft, model if injects else None)
        held_out.model.to(accelerator.device)
    if config.inner.learn_rates:
        bare = partition(model, encoder.layout.unused)
        moved = [name for group in learner.inner for name in trainable(getattr(bare, group))]
        model.learn_rates(moved, config.inner.steps)
    model.to(accelerator.device)
    draw_initial(model, config.run.seed, config.inner.lr)
    state = partition(model, encoder.layout.unused)
    inner = settings_of(config, model, state)
    inner = choose_execution(config, accelerator, encoder, primed, pools, model, state, meta_step, inner)
    outer = make_outer(state, config.outer, inner.outer)
    plain = meta_step
    if config.inner.compile:
        if inner.execution.way is not Way.ONE_PASS:
            raise MetaprimeError(
                f"inner.compile: with peft.method {config.peft.method} and learner.name {config.learner.name} episodes are "
                "adapted by torch.func.vmap or one after another, which torch cannot compile for every length: set it to false"
            )
        meta_step = compiled(plain)
    if config.inner.task_chunk == "auto" and inner.execution.way is not Way.LOOP:
        loss, one = functional_loss(model, primed.measure), starting_values(model, state, rules_of(config), 0, 0, (0,))
        pooled = inner.second_order or not learner.adapts  # all passes leave something behind, or are one
        steps = config.inner.steps if pooled else int(inner.select is not None)
        longest = longest_episode(primed, pools, episodes.shape, steps, accelerator.device)
        each = activation_bytes(plain, loss, state, one, longest, inner)
        inner = fitted(inner, each + bytes_of(one), bytes_of(outer.learning), shape.per_step, accelerator)
    if config.inner.compile:  # parts of other sizes would be other programs
        inner = inner.executed(subwords=None)
    return Run(config, accelerator, encoder, primed, episodes, model, state, outer, inner, meta_step, plain, held_out)


def primed_method(config: Config) -> MethodConfig:
    """The method that is injected for priming: the config's, or none for a learner that needs no PEFT modules."""
    return config.peft if LEARNERS[config.learner.name].injects else METHODS["head"].config()
