"""What phi is. A new method is one file with a METHOD, or a few lines in its family's file, and one line here."""

from metaprime.peft import bitfit, bottleneck, full, head, heads, hf, ia3, lora, mam, prefix, prompt, pruned, sparse
from metaprime.peft.method import Method, MethodConfig

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        bottleneck.PFEIFFER,
        prefix.METHOD,
        lora.LORA,
        head.METHOD,
        full.METHOD,
        bottleneck.HOULSBY,
        bottleneck.PARALLEL,
        bottleneck.SCALED_PARALLEL,
        bottleneck.PARALLEL_ATTENTION,
        heads.METHOD,
        lora.FFN_LORA,
        mam.METHOD,
        prompt.METHOD,
        ia3.METHOD,
        bitfit.METHOD,
        sparse.RANDOM,
        sparse.MAGNITUDE,
        sparse.SAM,
        sparse.FISHER,
        pruned.CHILD,
        pruned.DIFF,
        pruned.MIXOUT,
        bottleneck.BOTTLENECK,
        hf.METHOD,
    )
}

__all__ = ["METHODS", "Method", "MethodConfig"]
