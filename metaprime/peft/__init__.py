"""Lists the PEFT methods.

A new method is one file with a METHOD, or a few lines in its family's file, and one line here: its import.
The imports stand in the order of every list of methods.
"""

# ruff: noqa: F401, I001

from metaprime.peft.method import Method, MethodConfig
from metaprime.peft.bottleneck import PFEIFFER
from metaprime.peft.prefix import METHOD as PREFIX
from metaprime.peft.lora import LORA
from metaprime.peft.no_adapter import HEAD
from metaprime.peft.no_adapter import FULL
from metaprime.peft.bottleneck import HOULSBY
from metaprime.peft.bottleneck import PARALLEL
from metaprime.peft.bottleneck import SCALED_PARALLEL
from metaprime.peft.bottleneck import PARALLEL_ATTENTION
from metaprime.peft.multihead import METHOD as MULTIHEAD
from metaprime.peft.lora import FFN_LORA
from metaprime.peft.mam import METHOD as MAM
from metaprime.peft.prompt import METHOD as PROMPT
from metaprime.peft.ia3 import METHOD as IA3
from metaprime.peft.bitfit import METHOD as BITFIT
from metaprime.peft.sparse.selected import RANDOM
from metaprime.peft.sparse.selected import MAGNITUDE
from metaprime.peft.sparse.selected import SAM
from metaprime.peft.sparse.selected import FISHER
from metaprime.peft.sparse.pruned import CHILD
from metaprime.peft.sparse.pruned import DIFF
from metaprime.peft.sparse.pruned import MIXOUT
from metaprime.peft.bottleneck import BOTTLENECK
from metaprime.peft.hf_peft import METHOD as HF_PEFT

METHODS: dict[str, Method] = {method.name: method for method in list(vars().values()) if isinstance(method, Method)}


def method_of(config: MethodConfig) -> Method:
    """Returns the method of a config: `method_of(LoraConfig(rank=4)).name` is `lora`."""
    return METHODS[config.method]


__all__ = ["METHODS", "Method", "MethodConfig", "method_of"]
