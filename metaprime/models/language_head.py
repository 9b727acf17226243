"""The masked-word head that an encoder was pre-trained with, as an output layer of its own: (B, L, D) -> (B, L, V).

Each architecture builds and calls its head in a way of its own; so the model that transformers makes of both stays whole, and
only its encoder is exchanged for one that gives the hidden states it was handed.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModelForMaskedLM, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from metaprime.models.encoder import Encoder, quiet
from metaprime.types import MetaprimeError, Params


class _Handed(nn.Module):
    """Stands where the encoder was."""

    hidden_BLD: torch.Tensor

    def forward(self, *_: Any, **__: Any) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=self.hidden_BLD)


class LanguageHead(nn.Module):
    """The head of `language_model`, whose output embedding, if it was the input embedding, becomes `embedding`."""

    def __init__(self, language_model: PreTrainedModel, embedding: nn.Embedding) -> None:
        super().__init__()
        shared = language_model.get_input_embeddings().weight
        output = cast(nn.Linear, language_model.get_output_embeddings())
        self.encoder = _Handed()
        setattr(language_model, language_model.base_model_prefix, self.encoder)
        own = {name: value for name, value in language_model.named_parameters() if value is not shared}
        self.pretrained = {name: value.detach().clone() for name, value in own.items()}
        if output.weight is shared:
            output.weight = embedding.weight
        self.language_model = language_model

    def initial(self, generator: torch.Generator) -> Params:
        """As it was pre-trained; nothing is drawn. What it shares with the encoder is the encoder's."""
        return {f"language_model.{name}": value.clone() for name, value in self.pretrained.items()}

    def forward(self, hidden_BLD: torch.Tensor) -> torch.Tensor:
        self.encoder.hidden_BLD = hidden_BLD
        unread_BL = torch.zeros(hidden_BLD.shape[:2], dtype=torch.long, device=hidden_BLD.device)
        logits_BLV: torch.Tensor = self.language_model(input_ids=unread_BL).logits
        return logits_BLV


def load_language_head(encoder: Encoder, embedding: nn.Embedding, trust_remote_code: bool = False) -> LanguageHead:
    """The head out of the encoder's checkpoint.

    Raises:
        MetaprimeError: the checkpoint has none, or the architecture has none in transformers.
    """
    remedy = "choose another learner, or a checkpoint that was saved with its masked-word head (AutoModelForMaskedLM)"
    try:
        with quiet():
            model, info = AutoModelForMaskedLM.from_pretrained(
                encoder.name,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
            )
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise MetaprimeError(f"encoder.name {encoder.name!r} has no masked-word head ({reason}): {remedy}") from None
    if info["missing_keys"]:
        raise MetaprimeError(
            f"encoder.name {encoder.name!r} comes without its masked-word head ({min(info['missing_keys'])} is missing): {remedy}"
        )
    return LanguageHead(model.eval(), embedding)
