"""The pre-trained masked-word head of an encoder as a separate output layer: (B, L, D) -> (B, L, V).

Every architecture builds and calls its head differently. So the complete language model of transformers
is kept, and only its encoder is replaced by a stub that returns given hidden states.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModelForMaskedLM, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from metaprime.models.encoder import Encoder, quiet
from metaprime.types import MetaprimeError, Params


class _StubEncoder(nn.Module):
    """A replacement of the encoder that returns `hidden_BLD` whatever its inputs are."""

    hidden_BLD: torch.Tensor

    def forward(self, *_: Any, **__: Any) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=self.hidden_BLD)


class LanguageHead(nn.Module):
    """The masked-word head of a language model.

    Attributes:
        encoder: the stub in place of the language model's encoder.
        pretrained: the head's weights as loaded, by name.
        language_model: the complete model around the stub. An output embedding that was tied to the
            input embedding is tied to the `embedding` of the constructor.
    """

    def __init__(self, language_model: PreTrainedModel, embedding: nn.Embedding) -> None:
        super().__init__()
        shared = language_model.get_input_embeddings().weight
        output = cast(nn.Linear, language_model.get_output_embeddings())
        self.encoder = _StubEncoder()
        setattr(language_model, language_model.base_model_prefix, self.encoder)
        head = {name: value for name, value in language_model.named_parameters() if value is not shared}
        self.pretrained = {name: value.detach().clone() for name, value in head.items()}
        if output.weight is shared:
            output.weight = embedding.weight
        self.language_model = language_model

    def initial(self, generator: torch.Generator) -> Params:
        """Returns the pre-trained weights, without those shared with the encoder; draws nothing."""
        return {f"language_model.{name}": value.clone() for name, value in self.pretrained.items()}

    def forward(self, hidden_BLD: torch.Tensor) -> torch.Tensor:
        """Returns logits over the vocabulary.

        Args:
            hidden_BLD: the encoder's output `(B, L, D)`.

        Returns:
            `(B, L, V)`.
        """
        self.encoder.hidden_BLD = hidden_BLD
        # The stub ignores its inputs, but the language model asks for their shape.
        unread_BL = torch.zeros(hidden_BLD.shape[:2], dtype=torch.long, device=hidden_BLD.device)
        logits_BLV: torch.Tensor = self.language_model(input_ids=unread_BL).logits
        return logits_BLV


def load_language_head(encoder: Encoder, embedding: nn.Embedding, trust_remote_code: bool = False) -> LanguageHead:
    """Loads the masked-word head from the encoder's checkpoint.

    Args:
        encoder: says which checkpoint.
        embedding: word embeddings `(V, D)` to tie the output to, if the checkpoint ties them.
        trust_remote_code: whether Python files that come with the checkpoint may be run.

    Raises:
        MetaprimeError: the checkpoint has no such head, or the architecture has none in transformers.

    Example: `load_language_head(encoder, sites.words)`
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
