"""A meta-step as one compiled program: inner loop, query pass and both gradients, traced whole by `torch.compile`.

Compiling the model alone would not do: a compiled forward pass has no second derivative, and what a small episode waits for is
mostly the launch of many small kernels, which is outside it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch._dynamo.exc import BackendCompilerFailed, FailOnRecompileLimitHit, TorchDynamoException

from metaprime.meta.learner import MetaStep, Outcome, Settings
from metaprime.types import Episodes, Loss, MetaprimeError, Params

BACKEND = "inductor"


def compiled(step: MetaStep) -> MetaStep:
    """The same meta-step, compiled when it is first called, for any number of windows and any length; as many episodes at a time
    as `Settings.chunk` says, since each other number would be another program.

    Raises:
        MetaprimeError: when called, if torch cannot compile it whole.
    """
    traced = torch.compile(step, fullgraph=True, backend=BACKEND)

    def run(loss: Loss, backbone: Params, start: Params, batch: Episodes, settings: Settings) -> Outcome:
        for tensors in (*batch.support, batch.query):
            for tensor in tensors.values():
                for dimension in range(1, tensor.dim()):
                    torch._dynamo.maybe_mark_dynamic(tensor, dimension)
        # Names and numbers are constants to a compiler: each set of languages, or of lengths, would be another program.
        nameless = replace(batch, languages=("",) * len(batch.languages), lengths=())
        try:
            with torch._dynamo.config.patch(trace_autograd_ops=True):
                found = traced(loss, backbone, start, nameless, replace(settings, subwords=None))
        except (TorchDynamoException, BackendCompilerFailed, FailOnRecompileLimitHit) as error:
            reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
            raise MetaprimeError(
                f"inner.compile: torch cannot compile this meta-step ({reason}): set it to false"
            ) from error
        assert isinstance(found, Outcome)
        return found

    return run
