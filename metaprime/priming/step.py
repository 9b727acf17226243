"""One meta-step of a priming run before its outer step: draw the episodes, adapt, add up over the processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from accelerate import Accelerator

from metaprime.data.rows import to_device
from metaprime.meta import LEARNERS, Outcome
from metaprime.meta.chunks import chunks
from metaprime.priming.setup import Run
from metaprime.priming.starts import rules_of, starting_values
from metaprime.runs.flops import Spent, counted, of_all, subwords
from metaprime.transfers.finetune import noise_keys
from metaprime.types import NOISE, Episodes, Loss


def adapted(run: Run, loss: Loss, step: int, *, count: bool = False) -> tuple[Outcome, Spent]:
    """What the episodes of meta-step `step` come to; this process adapts its share. With `count` the FLOPs are counted."""
    batch = meta_batch(run, step)
    start = starting_values(run.model, run.state, rules_of(run.config), run.config.run.seed, step, batch.indices)
    given = (loss, run.state.backbone, start, batch, run.inner)
    outcome, flops = counted(count, run.plain_step if count else run.meta_step, *given)
    if count and run.plain_step is not run.meta_step:  # what is compiled cannot be counted: that was beside it
        outcome = run.meta_step(*given)
    spent = of_all(Spent(subwords_processed(run, batch), flops), run.accelerator)
    return sum_over_processes(outcome, run.accelerator), spent


def subwords_processed(run: Run, batch: Episodes) -> int:
    """Sub-words that the encoder works on in the inner loop and the query pass, padding included."""
    passes = LEARNERS[run.config.learner.name].passes(batch)
    return sum(subwords(*part.support, part.query) for _, part in chunks(passes, run.inner))


def meta_batch(run: Run, step: int) -> Episodes:
    """This process's share of a meta-step's episodes, on its device."""
    mine = range(run.accelerator.process_index, run.config.episodes.per_step, run.accelerator.num_processes)
    return _noised(_moved(drawn(run, step, mine), run.accelerator.device), run, step)


def drawn(run: Run, step: int, indices: Sequence[int]) -> Episodes:
    """Some episodes of a meta-step; to a compiler their lengths would be constants, so that it is not told them."""
    batch = run.episodes.meta_batch(step, indices, run.task.collate, run.task.corrupt)
    return replace(batch, lengths=()) if run.config.inner.compile else batch


def _moved(batch: Episodes, device: torch.device) -> Episodes:
    support = tuple(to_device(tensors, device) for tensors in batch.support)
    return replace(batch, support=support, query=to_device(batch.query, device))


def _noised(batch: Episodes, run: Run, step: int) -> Episodes:
    """What the inner loop trains on with keys, by episode and inner step, for whatever the method draws in training."""
    if not run.model.noisy:
        return batch
    trained = []
    trains_on_query = LEARNERS[run.config.learner.name].adapts_on_query
    for inner, tensors in enumerate((*batch.support, *((batch.query,) if trains_on_query else ()))):
        own = ({name: value[place] for name, value in tensors.items()} for place in range(len(batch.indices)))
        keys = [
            noise_keys(part, run.config.run.seed, step, index, inner)
            for part, index in zip(own, batch.indices, strict=True)
        ]
        trained.append({**tensors, NOISE: torch.stack([one[NOISE] for one in keys])})
    steps = len(batch.support)
    return replace(batch, support=tuple(trained[:steps]), query=trained[steps] if trains_on_query else batch.query)


def sum_over_processes(outcome: Outcome, accelerator: Accelerator) -> Outcome:
    """The whole meta-batch's outcome out of each process's part. One flat vector: one message, not hundreds."""
    if accelerator.num_processes == 1:
        return outcome
    tensors = [*outcome.gradients.values(), *outcome.mean_fast.values(), *outcome.last_fast.values()]
    tensors += [outcome.query_loss, outcome.support_loss]
    flat: torch.Tensor = accelerator.reduce(torch.cat([tensor.reshape(-1) for tensor in tensors]), reduction="sum")
    pieces = flat.split([tensor.numel() for tensor in tensors])
    whole = iter([piece.view(tensor.shape) for piece, tensor in zip(pieces, tensors, strict=True)])
    return Outcome(  # taken up in the order they were put in
        gradients={name: next(whole) for name in outcome.gradients},
        mean_fast={name: next(whole) for name in outcome.mean_fast},
        last_fast={name: next(whole) for name in outcome.last_fast},
        query_loss=next(whole),
        support_loss=next(whole),
    )
