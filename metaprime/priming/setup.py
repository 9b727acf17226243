"""Sets up a priming run: reads and checks everything that it needs before anything is written (but an embedded encoder)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from accelerate import Accelerator

from metaprime.build.data import build_task, priming_rows, text_alone
from metaprime.build.encoder import open_encoder
from metaprime.build.model import build_model
from metaprime.config.sections import Config, DataConfig, EpisodesConfig, InnerConfig, LearnerConfig, TransferConfig
from metaprime.data.episodes import EpisodeSampler, EpisodeShape
from metaprime.interop import learn2learn
from metaprime.meta import InnerLoop, Learner, MetaStep, Way
from metaprime.meta.compiled import compiled
from metaprime.models.encoder import Encoder
from metaprime.models.task_model import TaskModel, functional_loss, partition
from metaprime.peft import METHODS, MethodConfig
from metaprime.priming.batching import choose_execution
from metaprime.priming.best import Best
from metaprime.priming.guards import Guards
from metaprime.priming.memory import Trial, activation_bytes, bytes_of, fit_to_memory, longest_episode
from metaprime.priming.outer import OuterLoop, outer_loop
from metaprime.priming.settings import Sections, check_sections, inner_loop
from metaprime.priming.starts import Starts, draw_initial, starting_rules
from metaprime.runs.flops import FlopMeter
from metaprime.runs.folder import STATES, Claim
from metaprime.runs.provenance import Provenance, fingerprint, versions
from metaprime.tasks import Task
from metaprime.transfers.held_out import Validation, held_out_splits
from metaprime.transfers.start import Source, context_over, make_context
from metaprime.types import Episodes, Loss, MetaprimeError, State, trainable


@dataclass(frozen=True)
class Run:
    """One priming run's parts.

    Attributes:
        claim: the output directory, and the config as it is recorded.
        config: the whole config as JSON, for the artifact.
        seed: of every draw.
        asked: sections of the config that say how priming learns.
        accelerator: this process, and those beside it.
        encoder: as it was before priming.
        method: of the adapter in the model; without parameters where the learner needs none.
        task: what is learned from.
        sampler: draws episodes.
        model: encoder, adapter and head.
        state: the model's own values, by group.
        loss: of the task over the model, a function of values.
        learner: its `step` counts FLOPs when asked and may be compiled, which a reader may skip.
        inner: the inner loop, fitted to encoder and memory.
        starts: where episodes start.
        outer: the outer optimizer.
        meter: counts the FLOPs of a step.
        best: held-out languages and the best weights.
        guards: watch for divergence.
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

    @property
    def provenance(self) -> Provenance:
        """What the result depends on besides the config."""
        sentences = {name: fingerprint(chain(*groups)) for name, groups in self.sampler.pools.items()}
        for name, split in self.best.validation.splits.items() if self.best.validation else ():
            sentences[f"{name} (held out)"] = fingerprint(chain(split.train, split.scored))
        memory = {}
        # Sums of other parts end in other bits.
        if self.asked.inner.task_chunk == "auto":
            memory["episodes at a time (inner.task_chunk)"] = self.inner.execution.chunk or "all"
        return Provenance(
            versions=versions(), weights={"encoder.name": self.encoder.weights}, sentences=sentences, memory=memory
        )


def set_up(config: Config, accelerator: Accelerator) -> Run:
    """Reads and checks everything.

    Args:
        config: the run's.
        accelerator: this process, and those beside it.

    Raises:
        MetaprimeError: bad data, encoder or combination of settings, or fewer episodes than processes.
    """
    asked = Sections(config.learner, config.inner, config.outer, config.peft)
    check_sections(asked)
    claim, seed, learner = Claim(*config.recorded()), config.run.seed, asked.learner.value
    encoder = open_encoder(config.encoder, claim.output, config.run.threads, accelerator)
    labelled = build_task(config.task, config.data, encoder, config.peft, config.run.cache)
    pools = priming_rows(labelled, config.data, seed)
    sampler = EpisodeSampler(pools, _shape(config.episodes, asked.inner, accelerator.num_processes), seed)
    task = labelled if learner.reads_labels else text_alone(labelled, encoder, config.encoder.trust_remote_code)
    method = config.peft if learner.injects else METHODS["head"].config()
    model = _with_rates(build_model(encoder, task, method, next(iter(pools.values()))), encoder, asked)
    model.to(accelerator.device)
    draw_initial(model, seed, asked.inner.lr)
    state, rules = partition(model, encoder.layout.unused), starting_rules(learner, asked.outer)
    inner = inner_loop(asked, model, state, rules)
    run = Run(
        claim=claim,
        config=config.model_dump(mode="json"),
        seed=seed,
        asked=asked,
        accelerator=accelerator,
        encoder=encoder,
        method=method,
        task=task,
        sampler=sampler,
        model=model,
        state=state,
        loss=functional_loss(model, task.loss),
        learner=replace(learner, step=_backend_step(asked.learner)),
        inner=inner,
        starts=Starts(model, state, rules, seed),
        outer=outer_loop(state, asked.outer, inner.outer),
        meter=FlopMeter(),
        best=Best(None, claim.output / STATES, accelerator),
        guards=Guards(shown=accelerator.is_main_process),
    )
    validation = _validation(run, labelled, config.data, config.transfer)
    return _watched(_fitted(replace(run, best=replace(run.best, validation=validation))))


def _fitted(run: Run) -> Run:
    """Fits the execution: episodes together or one after another, and as many at a time as memory has room for.

    Raises:
        MetaprimeError: `inner.compile` is set, and these episodes cannot go in one pass.
    """
    asked, shown = run.asked.inner, run.accelerator.is_main_process
    rows = [group[0] for group in next(iter(run.sampler.pools.values()))]
    two = Trial(run.learner.step, run.loss, run.state.backbone, run.starts.values(0, (0, 1)))
    inner = choose_execution(two, run.model, run.task, rows, run.inner, shown)
    if asked.compile and inner.execution.way is not Way.ONE_PASS:
        raise MetaprimeError(
            f"inner.compile: with peft.method {run.asked.peft.method} and learner.name {run.asked.learner.name} episodes are "
            "adapted by torch.func.vmap or one after another, which torch cannot compile for every length: set it to false"
        )
    if asked.task_chunk == "auto" and inner.execution.way is not Way.LOOP:
        one = Trial(run.learner.step, run.loss, run.state.backbone, run.starts.values(0, (0,)))
        # All passes leave something behind where the outer gradient goes through them; otherwise one does.
        through = inner.second_order or not run.learner.adapts
        steps = asked.steps if through else int(inner.select is not None)
        pools = {language: list(chain(*groups)) for language, groups in run.sampler.pools.items()}
        longest = longest_episode(run.task, pools, run.sampler.shape, steps, run.accelerator.device)
        each = activation_bytes(one, longest, inner) + bytes_of(one.start)
        learned = bytes_of(run.outer.learning)
        inner = fit_to_memory(inner, each, learned, run.sampler.shape.episodes, run.accelerator)
    # Chunks of other sizes would be other programs.
    return replace(run, inner=inner.executed(subwords=None) if asked.compile else inner)


def _watched(run: Run) -> Run:
    """Returns the run with a step that counts FLOPs when asked and, with `inner.compile`, is one program."""
    learner = run.learner
    if not run.asked.inner.compile:
        return replace(run, learner=replace(learner, step=run.meter.watch(learner.step, learner.step)))

    def untrimmed(episodes: Episodes) -> Episodes:
        """Returns what the program works on: lengths would be constants in it, so that it is not given them."""
        return learner.passes(replace(episodes, lengths=()))

    step = run.meter.watch(compiled(learner.step), learner.step)
    return replace(run, learner=replace(learner, step=step, passes=untrimmed))


def _backend_step(asked: LearnerConfig) -> MetaStep:
    """Returns the learner's step as the backend computes it."""
    return learn2learn.step_of(asked.name) if asked.backend == "learn2learn" else asked.value.step


def _shape(asked: EpisodesConfig, inner: InnerConfig, processes: int) -> EpisodeShape:
    """Returns the shape of episodes.

    Raises:
        MetaprimeError: there are fewer episodes than processes.
    """
    if asked.per_step < processes:
        raise MetaprimeError(
            f"episodes.per_step {asked.per_step} leaves some of {processes} processes without an episode: raise it or launch "
            "fewer"
        )
    return EpisodeShape(
        episodes=asked.per_step,
        support=asked.support,
        steps=inner.steps,
        query=asked.query,
        tau=asked.tau,
        same=inner.support == "same",
        bands=asked.length_bands,
    )


def _with_rates(model: TaskModel, encoder: Encoder, asked: Sections) -> TaskModel:
    """Adds learned inner rates to the model, if they are asked for."""
    if asked.inner.learn_rates:
        bare = partition(model, encoder.layout.unused)
        moved = [name for group in asked.learner.value.inner for name in trainable(getattr(bare, group))]
        model.learn_rates(moved, asked.inner.steps)
    return model


def _validation(run: Run, task: Task, data: DataConfig, settings: TransferConfig) -> Validation | None:
    """Returns the held-out languages with the model that they are fine-tuned with; None where none is asked for.

    Raises:
        MetaprimeError: validation is to start from an adapter or head that the learner does not learn.
    """
    learner, name = run.learner, run.asked.learner.name
    if not (run.asked.outer.validate_every and data.validation_languages):
        return None
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
        source, example = Source(run.encoder, None), next(iter(splits.values())).train
        context = make_context(source, task, run.asked.peft, settings, example, run.accelerator.device)
    return Validation(context, splits, run.seed)
