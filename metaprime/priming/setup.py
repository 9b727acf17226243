"""Sets up a priming run: reads and validates all inputs and builds its parts, before any output."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from accelerate import Accelerator

from metaprime.build.data import BuildTask, build_task, priming_rows, text_alone
from metaprime.build.encoder import open_encoder
from metaprime.build.kind import kinds_of
from metaprime.build.model import build_model
from metaprime.config.sections import (
    Config,
    DataConfig,
    EncoderConfig,
    EpisodesConfig,
    InnerConfig,
    LearnerConfig,
    OuterConfig,
    TransferConfig,
    is_synthetic,
)
from metaprime.data.episodes import EpisodeSampler, EpisodeShape
from metaprime.data.rows import Row, to_device
from metaprime.interop import learn2learn
from metaprime.meta import InnerLoop, Learner, MetaStep, Way
from metaprime.meta.compiled import compiled
from metaprime.models.encoder import Encoder
from metaprime.models.task_model import TaskModel, functional_loss, partition
from metaprime.peft import METHODS, MethodConfig
from metaprime.priming.batching import choose_execution
from metaprime.priming.best import Best
from metaprime.priming.collapse import PROBED, Watch, spread
from metaprime.priming.guards import Guards
from metaprime.priming.memory import Trial, activation_bytes, bytes_of, fit_to_memory, longest_episode
from metaprime.priming.outer import OuterLoop, outer_loop
from metaprime.priming.settings import Sections, check_sections, inner_loop
from metaprime.priming.starts import Starts, draw_initial, starting_rules
from metaprime.runs.flops import FlopMeter
from metaprime.runs.folder import STATES, Claim, check_writable
from metaprime.runs.provenance import Provenance, fingerprint, versions
from metaprime.tasks import Task
from metaprime.transfers.held_out import Validation, held_out_splits
from metaprime.transfers.shots import check_untrained
from metaprime.transfers.start import Source, context_over, make_context
from metaprime.types import Episodes, Loss, MetaprimeError, State, trainable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """The parts of one priming run.

    Attributes:
        claim: output directory, and the config as it is recorded.
        config: the whole config as JSON, for the artifact.
        seed: seed of every random draw.
        asked: sections of the config that define learner, inner loop, outer loop and method.
        accelerator: this process and its place among those launched together.
        encoder: the encoder before priming.
        method: method of the model's adapter; head tuning if the learner needs no adapter.
        task: the learner's task, by which examples are encoded and the loss computed.
        sampler: draws episodes.
        model: encoder, adapter and head.
        state: the model's own parameters by group: theta, phi, head and learned rates.
        loss: `loss(backbone, fast, batch)`, a scalar () in nats.
        learner: the learner; its step is wrapped to count FLOPs and may be compiled.
        inner: the inner loop, fitted to encoder and memory.
        starts: starting values of the episodes.
        outer: the outer optimizer.
        meter: counts the FLOPs of a step.
        best: held-out languages and the best weights.
        guards: checks for divergence.
        watch: checks for harm that no loss shows.
    """

    claim: Claim
    config: dict[str, Any]
    seed: int
    asked: Sections
    accelerator: Accelerator
    encoder: Encoder
    method: MethodConfig
    task: Task
    sampler: EpisodeSampler
    model: TaskModel
    state: State
    loss: Loss
    learner: Learner
    inner: InnerLoop
    starts: Starts
    outer: OuterLoop
    meter: FlopMeter
    best: Best
    guards: Guards
    watch: Watch

    @property
    def provenance(self) -> Provenance:
        """Versions, weights, sentences and pass size, which the result depends on too."""
        sentences = {name: fingerprint(chain(*groups)) for name, groups in self.sampler.pools.items()}
        for name, split in self.best.validation.splits.items() if self.best.validation else ():
            sentences[f"{name} (held out)"] = fingerprint(chain(split.train, split.scored))
        memory = {}
        # Gradients are added up per pass, so that another pass size changes their last bits.
        if self.asked.inner.task_chunk == "auto":
            memory["episodes at a time (inner.task_chunk)"] = self.inner.execution.chunk or "all"
        return Provenance(
            versions=versions(), weights={"encoder.name": self.encoder.weights}, sentences=sentences, memory=memory
        )


def set_up(config: Config, accelerator: Accelerator) -> Run:
    """Reads and validates a run's inputs and builds its parts: `set_up(config, Accelerator())`.

    Writes no file, except an encoder that is pre-trained first (`encoder.name: synthetic:`).

    Raises:
        MetaprimeError: data, encoder or settings are invalid, or episodes fewer than processes.
    """
    config = config.at_rates(*kinds_of(config.encoder, config.transfer))
    # What needs no encoder is checked before one is pre-trained.
    output = check_writable(config.output)
    check_sections(Sections(config.learner, config.inner, config.outer, config.peft, config.task.together))
    encoder = open_encoder(config.encoder, output, config.run.threads, accelerator)
    if accelerator.is_main_process:
        _notice(config.outer, config.data, config.encoder)
    return _watched(_fitted(assemble(config, encoder, accelerator)))


def _notice(outer: OuterConfig, data: DataConfig, encoder: EncoderConfig) -> None:
    """Logs what follows from keys that were left out and may not be meant."""
    if outer.validate_every and not data.validation_languages:
        log.warning(
            "data.validation_languages is empty: priming is never scored and keeps its last weights; name held-out "
            "languages, or set outer.validate_every: 0"
        )
    # The encoder of a suite's cell is in a folder, but the cell's config states every key.
    if is_synthetic(data.source) != is_synthetic(encoder.name):
        for key, place in (("data.source", data), ("encoder.name", encoder)):
            if key.split(".")[1] not in place.model_fields_set:
                log.warning("%s is left out: it is that of the demonstration, whose languages are invented", key)


def assemble(config: Config, encoder: Encoder, accelerator: Accelerator, build: BuildTask = build_task) -> Run:
    """Reads and validates a run's rows and joins its parts, before they are fitted to encoder and memory.

    Every check of a priming run is made here or earlier: `metaprime ablate` and `--dry-run` call this
    for each run that they plan.

    Args:
        config: config of the run.
        encoder: its encoder.
        accelerator: this process and its place among those launched together.
        build: builds the task of a config, as `build_task` does.

    Raises:
        MetaprimeError: data, encoder or settings are invalid, or episodes fewer than processes.

    Example: `assemble(config, load_encoder(config.encoder.name), Accelerator()).model`
    """
    sections = check_sections(Sections(config.learner, config.inner, config.outer, config.peft, config.task.together))

    # Read task and rows.
    claim, seed, learner = Claim(*config.recorded()), config.run.seed, sections.learner.value
    labelled = build(config.task, config.data, encoder, config.peft, config.run.cache)
    pools = priming_rows(labelled, config.data, seed)
    shape = _shape(config.episodes, sections.inner, accelerator.num_processes)
    sampler = EpisodeSampler(pools, shape, seed, labelled.stratum if learner.reads_labels else None)
    task = labelled if learner.reads_labels else text_alone(labelled, encoder, config.encoder.trust_remote_code)

    # Build the model and draw adapter and head.
    method = config.peft if learner.injects else METHODS["head"].config()
    model = _with_rates(build_model(encoder, task, method, next(iter(pools.values()))), encoder, sections)
    model.to(accelerator.device)
    draw_initial(model, seed, sections.inner.rate)
    state, rules = partition(model, encoder.layout.unused), starting_rules(learner, sections.outer)
    inner = inner_loop(sections, model, state, rules)

    # Join the parts, then add validation.
    run = Run(
        claim=claim,
        config=config.model_dump(mode="json"),
        seed=seed,
        asked=sections,
        accelerator=accelerator,
        encoder=encoder,
        method=method,
        task=task,
        sampler=sampler,
        model=model,
        state=state,
        loss=functional_loss(model, task.loss),
        learner=replace(learner, step=_backend_step(sections.learner)),
        inner=inner,
        starts=Starts(model, state, rules, seed),
        outer=outer_loop(state, sections.outer, inner.outer),
        meter=FlopMeter(),
        best=Best(None, claim.output / STATES, accelerator),
        guards=Guards(shown=accelerator.is_main_process),
        watch=_watch(model, task, pools, sections.outer, accelerator),
    )
    validation = _validation(run, labelled, config.data, config.transfer)
    return replace(run, best=replace(run.best, validation=validation))


def _watch(
    model: TaskModel,
    task: Task,
    pools: Mapping[str, Sequence[Row]],
    outer: OuterConfig,
    accelerator: Accelerator,
) -> Watch:
    """Returns the watch over the features of some sentences of all languages, measured on the unprimed encoder."""
    share = -(-PROBED // len(pools))
    rows = [row for pool in pools.values() for row in pool[:share]][:PROBED]
    batch = to_device(task.collate(rows), accelerator.device)
    unprimed = spread(model, batch)
    # A control may do harm, which is its result: it is neither warned of nor stopped.
    if task.config.shuffles:
        return Watch(batch, unprimed, None, shown=False)
    return Watch(batch, unprimed, outer.patience, accelerator.is_main_process)


def _fitted(run: Run) -> Run:
    """Returns the run with an inner loop that suits the encoder and fits into memory.

    Raises:
        MetaprimeError: `inner.compile` is set, but episodes cannot share one pass.
    """
    config, shown = run.asked.inner, run.accelerator.is_main_process
    rows = [group[0] for group in next(iter(run.sampler.pools.values()))]
    pair = Trial(run.learner.step, run.loss, run.state.backbone, run.starts.values(0, (0, 1)))
    inner = choose_execution(pair, run.model, run.task, rows, run.inner, shown)
    if config.compile and inner.execution.way is not Way.ONE_PASS:
        raise MetaprimeError(
            f"inner.compile: with peft.method {run.asked.peft.method} and learner.name {run.asked.learner.name} episodes are "
            "adapted by torch.func.vmap or one after another, which torch cannot compile for every length: set it to false"
        )
    if config.task_chunk == "auto" and inner.execution.way is not Way.LOOP:
        single = Trial(run.learner.step, run.loss, run.state.backbone, run.starts.values(0, (0,)))
        # With an outer gradient through the inner loop every step saves activations, else one pass.
        through = inner.second_order or not run.learner.adapts
        steps = config.steps if through else int(inner.select is not None)
        pools = {language: list(chain(*groups)) for language, groups in run.sampler.pools.items()}
        longest = longest_episode(run.task, pools, run.sampler.shape, steps, run.accelerator.device)
        each = activation_bytes(single, longest, inner) + bytes_of(single.start)
        learned = bytes_of(run.outer.learning)
        inner = fit_to_memory(inner, each, learned, run.sampler.shape.episodes, run.accelerator)
    # A compiled step is recompiled for every size of a chunk, so that all chunks keep one size.
    return replace(run, inner=inner.executed(subwords=None) if config.compile else inner)


def _watched(run: Run) -> Run:
    """Returns the run with a step that can count FLOPs and, with `inner.compile`, is compiled."""
    learner = run.learner
    if not run.asked.inner.compile:
        return replace(run, learner=replace(learner, step=run.meter.watch(learner.step, learner.step)))

    def untrimmed(episodes: Episodes) -> Episodes:
        """Returns the episodes without lengths, which compilation would make constants."""
        return learner.passes(replace(episodes, lengths=(), subwords=()))

    step = run.meter.watch(compiled(learner.step), learner.step)
    return replace(run, learner=replace(learner, step=step, passes=untrimmed))


def _backend_step(config: LearnerConfig) -> MetaStep:
    """Returns the learner's step in the configured backend."""
    return learn2learn.step_of(config.name) if config.backend == "learn2learn" else config.value.step


def _shape(config: EpisodesConfig, inner: InnerConfig, processes: int) -> EpisodeShape:
    """Returns the shape of the episodes.

    Raises:
        MetaprimeError: there are fewer episodes than processes.
    """
    if config.per_step < processes:
        raise MetaprimeError(
            f"episodes.per_step {config.per_step} leaves some of {processes} processes without an episode: raise it or launch "
            "fewer processes"
        )
    return EpisodeShape(
        episodes=config.per_step,
        support=config.support,
        steps=inner.steps,
        query=config.query,
        tau=config.tau,
        same=inner.support == "same",
        bands=config.length_bands,
    )


def _with_rates(model: TaskModel, encoder: Encoder, sections: Sections) -> TaskModel:
    """Returns the model, with learned inner rates added if `inner.learn_rates` is set."""
    if sections.inner.learn_rates:
        state = partition(model, encoder.layout.unused)
        moved = [name for group in sections.learner.value.inner for name in trainable(getattr(state, group))]
        model.learn_rates(moved, sections.inner.steps)
    return model


def _validation(run: Run, task: Task, data: DataConfig, settings: TransferConfig) -> Validation | None:
    """Returns the held-out languages and their model; None without validation.

    Raises:
        MetaprimeError: validation would start from an adapter or head that is not trained.
    """
    learner, name = run.learner, run.asked.learner.name
    if not (run.asked.outer.validate_every and data.validation_languages):
        return None
    check_untrained(settings.model_copy(update={"shots": settings.shots[:1]}), [run.asked.peft])
    if settings.start_adapter == "primed" and not learner.injects:
        raise MetaprimeError(
            f"transfer.start_adapter: learner.name {name!r} learns no adapter to start validation from: set it to fresh"
        )
    if settings.start_head == "primed" and not learner.reads_labels:
        raise MetaprimeError(
            f"transfer.start_head: learner.name {name!r} learns no head of this task to start validation from: set it to "
            "fresh"
        )
    splits = held_out_splits(task, data, settings)
    if learner.injects:
        context = context_over(run.model, task, run.asked.peft, settings, {})
    else:
        source, example = Source(run.encoder, None), next(iter(splits.values())).rows
        context = make_context(source, task, run.asked.peft, settings, example, run.accelerator.device)
    return Validation(context, splits, run.seed)
