"""Lists the PEFT methods.

A new method is one file with a METHOD, or a few lines in its family's file, and one line here.
"""

from metaprime.peft import bitfit, bottleneck, hf_peft, ia3, lora, mam, multihead, no_adapter, prefix, prompt
from metaprime.peft.method import Method, MethodConfig
from metaprime.peft.sparse import pruned, selected

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        bottleneck.PFEIFFER,
        prefix.METHOD,
        lora.LORA,
        no_adapter.HEAD,
        no_adapter.FULL,
        bottleneck.HOULSBY,
        bottleneck.PARALLEL,
        bottleneck.SCALED_PARALLEL,
        bottleneck.PARALLEL_ATTENTION,
        multihead.METHOD,
        lora.FFN_LORA,
        mam.METHOD,
        prompt.METHOD,
        ia3.METHOD,
        bitfit.METHOD,
        selected.RANDOM,
        selected.MAGNITUDE,
        selected.SAM,
        selected.FISHER,
        pruned.CHILD,
        pruned.DIFF,
        pruned.MIXOUT,
        bottleneck.BOTTLENECK,
        hf_peft.METHOD,
    )
}


def method_of(config: MethodConfig) -> Method:
    """Returns the method of a config: `method_of(LoraConfig(rank=4)).name` is `lora`."""
    return METHODS[config.method]


__all__ = ["METHODS", "Method", "MethodConfig", "method_of"]
