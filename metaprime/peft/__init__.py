"""What phi is. A new method is one file with a METHOD and one line here."""

from metaprime.peft import full, head, lora, pfeiffer, prefix
from metaprime.peft.method import Method, MethodConfig

METHODS: dict[str, Method] = {
    "pfeiffer": pfeiffer.METHOD,
    "prefix": prefix.METHOD,
    "lora": lora.METHOD,
    "head": head.METHOD,
    "full": full.METHOD,
}

__all__ = ["METHODS", "Method", "MethodConfig"]
