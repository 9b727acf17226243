"""Lists the PEFT methods, in the order of every list of them.

A new method is one file with a METHOD, or a few lines in its family's file, and one line here: its name and place.
"""

from metaprime.peft.method import USUAL_RATE, Method, MethodConfig
from metaprime.peft.settings import MOVES_BACKBONE, OWN_RATES, SETTINGS
from metaprime.table import Table

METHODS: Table[Method] = Table(
    pfeiffer="metaprime.peft.bottleneck:PFEIFFER",
    prefix="metaprime.peft.prefix:METHOD",
    lora="metaprime.peft.lora:LORA",
    head="metaprime.peft.no_adapter:HEAD",
    full="metaprime.peft.no_adapter:FULL",
    houlsby="metaprime.peft.bottleneck:HOULSBY",
    parallel="metaprime.peft.bottleneck:PARALLEL",
    scaled_parallel="metaprime.peft.bottleneck:SCALED_PARALLEL",
    parallel_attention="metaprime.peft.bottleneck:PARALLEL_ATTENTION",
    multihead_parallel="metaprime.peft.multihead:METHOD",
    ffn_lora="metaprime.peft.lora:FFN_LORA",
    mam="metaprime.peft.mam:METHOD",
    prompt="metaprime.peft.prompt:METHOD",
    ia3="metaprime.peft.ia3:METHOD",
    bitfit="metaprime.peft.bitfit:METHOD",
    random_mask="metaprime.peft.sparse.selected:RANDOM",
    magnitude="metaprime.peft.sparse.selected:MAGNITUDE",
    sam="metaprime.peft.sparse.selected:SAM",
    fisher="metaprime.peft.sparse.selected:FISHER",
    child_pruning="metaprime.peft.sparse.pruned:CHILD",
    diff_pruning="metaprime.peft.sparse.pruned:DIFF",
    mixout="metaprime.peft.sparse.pruned:MIXOUT",
    bottleneck="metaprime.peft.bottleneck:BOTTLENECK",
    hf="metaprime.peft.hf_peft:METHOD",
)


def method_of(config: MethodConfig) -> Method:
    """Returns the method of a config: `method_of(LoraConfig(rank=4)).name` is `lora`."""
    return METHODS[config.method]


def settings_of(name: str) -> type[MethodConfig]:
    """Returns the class of a method's settings; torch is loaded only for a method that declares them in its own file.

    Example: `settings_of("lora")()` is `LoraConfig()`.
    """
    return SETTINGS.get(name) or METHODS[name].config


def rates() -> dict[str, float]:
    """Returns the peak rate of each method's transfers by its name, without torch as `settings_of`.

    Example: `rates()["lora"]` is 0.003.
    """
    return {name: OWN_RATES.get(name, USUAL_RATE) if name in SETTINGS else METHODS[name].rate for name in METHODS}


def moves_backbone(config: MethodConfig) -> bool:
    """Tells whether fine-tuning by a method moves theta too, without torch as `settings_of`.

    Example: `moves_backbone(FullConfig())` is True.
    """
    return config.method in MOVES_BACKBONE if config.method in SETTINGS else method_of(config).moves_backbone


__all__ = ["METHODS", "Method", "MethodConfig", "method_of", "moves_backbone", "rates", "settings_of"]
