"""Measures single changes of the engine, apart from other changes that hid their effect.

    python benchmarks/by_itself.py later|now|loss

`later` and `now` run the episodes one by one at (T, B, L, n) = (4, 4, 16, 5) and either keep all
gradients until the end or add them up one by one; the script prints the peak resident memory, in
MiB above that at the start, and seconds. `loss` prints the time of the losses of T episodes by T
calls, as a ratio to `torch.func.vmap`. The results are in notes.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import meta_step
import torch
from growth import _status
from problem import Size, make_problem
from timing import in_turn, quartiles

from metaprime.meta import InnerLoop, MetaStep, Outcome, Way, maml
from metaprime.meta.chunks import chunks, take
from metaprime.models import task_model
from metaprime.types import Batch, Episodes, Loss, Params

ROUNDS = 9


def added_later(
    step: MetaStep, loss: Loss, backbone: Params, start: Params, episodes: Episodes, inner: InnerLoop
) -> Outcome:
    """Runs a meta-step as `maml.in_chunks`, but keeps every chunk's gradients until the end."""
    found = [step(loss, backbone, take(start, places), part, inner) for places, part in chunks(episodes, inner)]
    total = found[0]
    for one in found[1:]:
        total += one
    return total


def by_vmap(model: task_model.TaskModel, measure: Callable[[torch.Tensor, Batch], torch.Tensor]) -> Loss:
    """Returns a loss as `functional_loss` does, with the T losses of a pass computed by vmap."""
    shared = task_model._shares_parameters(model)

    def loss(backbone: Params, fast: Params, batch: Batch) -> torch.Tensor:
        flat = {name: tensor.flatten(0, 1) for name, tensor in batch.items()}
        logits = torch.func.functional_call(model, {**backbone, **fast}, (flat,), tie_weights=shared)
        found: torch.Tensor = torch.func.vmap(measure)(logits.unflatten(0, batch["labels"].shape[:2]), batch)
        return found

    return loss


def main(what: str) -> None:
    torch.set_num_threads(1)
    problem = make_problem(meta_step.SHAPES[0], Size())
    if what == "loss":
        calls = meta_step.ours(**meta_step.AS_PICKED)(problem)
        meta_step.functional_loss = by_vmap
        took = in_turn({"calls": calls, "vmap": meta_step.ours(**meta_step.AS_PICKED)(problem)}, ROUNDS)
        print(quartiles([one / other for one, other in zip(*took.values(), strict=True)]))
        return
    if what == "later":
        maml.in_chunks = added_later
    before = _status("VmHWM")
    took = in_turn({what: meta_step.ours(way=Way.LOOP)(problem)}, ROUNDS)
    print(f"{_status('VmHWM') - before:.0f} MiB, {quartiles(took[what])} seconds")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("later", "now", "loss"))
    main(parser.parse_args().what)
