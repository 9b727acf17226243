"""Compiles a whole meta-step: inner loop, query pass and both gradients in one graph.

Compiling the model alone is not enough: a compiled forward pass has no second derivative, and a
small episode mostly waits for launches of small kernels outside the model. Skip this file on a
first reading.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch._dynamo.exc import BackendCompilerFailed, FailOnRecompileLimitHit, TorchDynamoException

from metaprime.meta.learner import InnerLoop, MetaStep, Outcome
from metaprime.types import Episodes, Loss, MetaprimeError, Params

BACKEND = "inductor"


def compiled(step: MetaStep) -> MetaStep:
    """Returns the meta-step compiled: `compiled(LEARNERS["peft_maml"].step)`.

    It is compiled at its first call, for any number of windows and any length. Episodes share
    passes in order, `Execution.chunk` at a time, since each other number of episodes would be
    compiled anew.

    Raises:
        MetaprimeError: (when called) torch cannot compile the meta-step as one graph.
    """
    traced = torch.compile(step, fullgraph=True, backend=BACKEND)

    def run(loss: Loss, backbone: Params, start: Params, episodes: Episodes, inner: InnerLoop, /) -> Outcome:
        for tensors in (*episodes.support, episodes.query):
            for tensor in tensors.values():
                for dimension in range(1, tensor.dim()):
                    torch._dynamo.maybe_mark_dynamic(tensor, dimension)
        # The compiler treats strings and numbers as constants: it would compile anew for each set
        # of languages or lengths.
        nameless = replace(episodes, languages=("",) * len(episodes.languages), lengths=(), subwords=())
        try:
            with torch._dynamo.config.patch(trace_autograd_ops=True):
                outcome = traced(loss, backbone, start, nameless, inner.executed(subwords=None))
        except (TorchDynamoException, BackendCompilerFailed, FailOnRecompileLimitHit) as error:
            reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
            raise MetaprimeError(
                f"inner.compile: torch cannot compile this meta-step ({reason}): set it to false"
            ) from error
        assert isinstance(outcome, Outcome)
        return outcome

    return run
