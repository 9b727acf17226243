"""Everything a priming run needs, read and checked before anything is written (but an embedded encoder)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from metaprime.config import Config
from metaprime.data.episodes import Episodes, EpisodeShape
from metaprime.interop import learn2learn
from metaprime.loops.build import build_model, build_task, priming_rows
from metaprime.loops.carrying import draw_initial, rules_of
from metaprime.loops.held_out import HeldOut, make_held_out
from metaprime.loops.metrics_log import Display
from metaprime.loops.outer import Outer, make_outer
from metaprime.loops.pretrain import pretrain
from metaprime.loops.run_directory import KEPT_BASE
from metaprime.meta import LEARNERS, MetaStep, Settings
from metaprime.models.encoder import Encoder, load_encoder
from metaprime.models.primable import PrimableModel, partition
from metaprime.peft import METHODS, MethodConfig
from metaprime.tasks.task import Task
from metaprime.types import MetaprimeError, State

BACKENDS: dict[str, Callable[[str], MetaStep]] = {
    "torch": lambda learner: LEARNERS[learner].step,
    "learn2learn": learn2learn.step_of,
}


@dataclass
class Run:
    """One priming run's parts. `best` is the best validation so far: (score, step)."""

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
    held_out: HeldOut | None
    best: tuple[float, int] | None = None


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
        EpisodeShape(shape.per_step, shape.support, config.inner.steps, shape.query, shape.tau),
        config.run.seed,
    )
    if shape.per_step < accelerator.num_processes:
        raise MetaprimeError(
            f"episodes.per_step {shape.per_step} leaves some of {accelerator.num_processes} processes without an episode: "
            "raise it or launch fewer"
        )
    adapts = LEARNERS[config.learner.name].adapts
    model = build_model(encoder, task, primed_method(config), next(iter(pools.values())))
    meta_step = BACKENDS[config.learner.backend](config.learner.name)
    held_out = None
    if config.outer.validate_every and config.data.validation_languages:
        if config.transfer.start_adapter == "primed" and not adapts:
            raise MetaprimeError(
                f"transfer.start_adapter: learner.name {config.learner.name!r} learns no adapter to start validation "
                "from: set it to fresh"
            )
        held_out = make_held_out(config, encoder, task, config.peft, model if adapts else None)
        held_out.model.to(accelerator.device)
    model.to(accelerator.device)
    draw_initial(model, config.run.seed)
    state = partition(model, encoder.layout.unused)
    settings = _settings(config, state)
    outer = make_outer(state, config.outer, settings.outer)
    return Run(config, accelerator, encoder, task, episodes, model, state, outer, settings, meta_step, held_out)


def primed_method(config: Config) -> MethodConfig:
    """The method that is injected for priming: the config's, or none for a learner without an inner loop."""
    return config.peft if LEARNERS[config.learner.name].adapts else METHODS["head"].config()


def _settings(config: Config, state: State) -> Settings:
    rules = rules_of(config)
    carries = any(rule.startswith("carry") for rule in rules.values())
    if carries and config.learner.backend == "learn2learn":
        raise MetaprimeError(
            "learner.backend learn2learn gives no adapted values to carry: set outer.adapter and outer.head to reset, keep "
            "or meta"
        )
    learned = (group for group, rule in rules.items() if rule == "meta" and getattr(state, group))
    return Settings(
        inner_lr=config.inner.lr,
        second_order=config.inner.order == "second",
        batched=config.inner.batched,
        chunk=config.inner.task_chunk,
        outer=("backbone", *learned),
        carry=carries,
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
    return load_encoder(name, config.encoder.attention)
