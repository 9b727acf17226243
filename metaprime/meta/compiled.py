"""Compiles a meta-step into one program: inner loop, query pass and both gradients, traced whole by `torch.compile`.

Compiling the model alone would not do: a compiled forward pass has no second derivative, and a small
episode mostly waits for the launches of many small kernels outside it. Skip this file on a first reading.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch._dynamo.exc import BackendCompilerFailed, FailOnRecompileLimitHit, TorchDynamoException

from metaprime.meta.learner import InnerLoop, MetaStep, Outcome
from metaprime.types import Episodes, Loss, MetaprimeError, Params

BACKEND = "inductor"


def compiled(step: MetaStep) -> MetaStep:
    """Returns the same meta-step, compiled when it is first called, for any number of windows and any length.

    It takes as many episodes at a time as `Execution.chunk` says, since each other number would be
    another program.

    Raises:
        MetaprimeError: (when called) torch cannot compile the meta-step whole.
    """
    traced = torch.compile(step, fullgraph=True, backend=BACKEND)

    def run(loss: Loss, backbone: Params, start: Params, episodes: Episodes, inner: InnerLoop, /) -> Outcome:
        for tensors in (*episodes.support, episodes.query):
            for tensor in tensors.values():
                for dimension in range(1, tensor.dim()):
                    torch._dynamo.maybe_mark_dynamic(tensor, dimension)
        # Names and numbers are constants to a compiler: each set of languages, or of lengths, would be another program.
        nameless = replace(episodes, languages=("",) * len(episodes.languages), lengths=())
        try:
            with torch._dynamo.config.patch(trace_autograd_ops=True):
                found = traced(loss, backbone, start, nameless, inner.executed(subwords=None))
        except (TorchDynamoException, BackendCompilerFailed, FailOnRecompileLimitHit) as error:
            reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
            raise MetaprimeError(
                f"inner.compile: torch cannot compile this meta-step ({reason}): set it to false"
            ) from error
        assert isinstance(found, Outcome)
        return found

    return run
