"""Implements prompt tuning: l learned vectors before the words' embeddings (Lester et al. 2021).

    H_0 = embed([P; E(x)])

The vectors take the first l positions and the words the following ones, as in Hugging Face's peft.
The encoder's output at the first l positions is cut off, so that logits and labels belong to words
alone. Entries are drawn from N(0, 0.02), which changes the encoder from the start.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from metaprime.nn import Adapter, for_each
from metaprime.peft.method import Method
from metaprime.peft.settings import PromptConfig
from metaprime.types import Params, Sites


class Prompt(nn.Module):
    """The prompt's vectors, (l, embedding width)."""

    supports_one_pass = True

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(length, width))

    def forward(self, sentences: int) -> torch.Tensor:
        """Returns the vectors for each of B sentences, (B, l, embedding width): `prompt(8)`."""
        return for_each(self.vectors, 2, sentences)

    def initial(self, generator: torch.Generator) -> Params:
        """Draws the vectors from N(0, 0.02)."""
        return {"vectors": 0.02 * torch.randn(self.vectors.shape, generator=generator)}


def inject(sites: Sites, config: Any) -> Adapter:
    """Hooks the encoder's input and output: `inject(sites, PromptConfig(length=20))`."""
    prompt = Prompt(config.length, sites.words.embedding_dim)

    def before(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        inputs = dict(kwargs)
        embeds_BLE, mask_BL = sites.words(inputs.pop("input_ids")), inputs.pop("attention_mask")
        visible_BP = mask_BL.new_ones(len(mask_BL), config.length)
        inputs["inputs_embeds"] = torch.cat([prompt(len(embeds_BLE)), embeds_BLE], dim=1)
        inputs["attention_mask"] = torch.cat([visible_BP, mask_BL], dim=1)
        return args, inputs

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[:, config.length :]
        return output

    sites.encoder.register_forward_pre_hook(before, with_kwargs=True)
    sites.encoder.register_forward_hook(after)
    return Adapter(config, {"prompt": prompt})


METHOD = Method(PromptConfig, inject, "Encoder([P; E(x)])", "Lester et al. 2021, arXiv 2104.08691")
