"""Prompt tuning: l learned vectors before the words' embeddings, and nothing else (Lester et al. 2021).

H_0 = embed([P; E(x)]). They take the first l positions and the words the ones after, as in Hugging Face's peft; what the encoder
gives at theirs is cut off again, so that logits and labels belong to words alone. Entries from N(0, 0.02), not the identity.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import nn

from metaprime.nn import Adapter, for_each
from metaprime.peft.method import Method, MethodConfig
from metaprime.types import Params, Sites


class PromptConfig(MethodConfig):
    """Number l of vectors. A sentence may be that much shorter."""

    method: Literal["prompt"] = "prompt"
    length: PositiveInt = 16

    @property
    def identity(self) -> bool:
        return False

    @property
    def positions(self) -> int:
        return self.length


class Prompt(nn.Module):
    """The vectors, (l, embedding width), for each of so many sentences: (B, l, embedding width)."""

    supports_one_pass = True

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(length, width))

    def forward(self, sentences: int) -> torch.Tensor:
        return for_each(self.vectors, 2, sentences)

    def initial(self, generator: torch.Generator) -> Params:
        return {"vectors": 0.02 * torch.randn(self.vectors.shape, generator=generator)}


def inject(sites: Sites, config: Any) -> Adapter:
    """Hooks what goes into the encoder and what it gives."""
    prompt = Prompt(config.length, sites.words.embedding_dim)

    def before(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = dict(kwargs)
        embeds_BLE, mask_BL = sites.words(given.pop("input_ids")), given.pop("attention_mask")
        visible = mask_BL.new_ones(len(mask_BL), config.length)
        given["inputs_embeds"] = torch.cat([prompt(len(embeds_BLE)), embeds_BLE], dim=1)
        given["attention_mask"] = torch.cat([visible, mask_BL], dim=1)
        return args, given

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[:, config.length :]
        return output

    sites.encoder.register_forward_pre_hook(before, with_kwargs=True)
    sites.encoder.register_forward_hook(after)
    return Adapter(config, {"prompt": prompt})


METHOD = Method(PromptConfig, inject, "Encoder([P; E(x)])", "Lester et al. 2021, arXiv 2104.08691")
