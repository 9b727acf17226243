"""Toy encoders of every supported architecture: random weights, a word-piece vocabulary of synthetic text, no network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, processors
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, PreTrainedTokenizerFast

from metaprime.models.encoder import Encoder, weights_hash
from metaprime.models.features import feature_scale
from metaprime.rng import torch_stream

ROBERTAS = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Their padding id is 1, and positions count from the one after it."""


SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 130,
    "initializer_range": 0.2,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}


OWN_SHAPE: dict[str, dict[str, Any]] = {
    "electra": {"embedding_size": 16},
    "distilbert": {
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 64,
        "max_position_embeddings": 130,
        "initializer_range": 0.2,
    },
    "deberta-v2": {  # as mDeBERTa-v3 has it
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": "p2c|c2p",
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
    "modernbert": {  # its second layer sees four words to each side
        "local_attention": 8,
        "initializer_cutoff_factor": 3.0,
        **{f"{name}_token_id": number for name, number in (("bos", 2), ("cls", 2), ("sep", 3), ("eos", 3))},
    },
    "eurobert": {"num_key_value_heads": 2, "bos_token_id": 2, "eos_token_id": 3, "mask_token_id": 4},
    "albert": {"embedding_size": 16},  # this and the following have no row: `encoder.sites` must say
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "mpnet": {},
}
"""What an architecture's toy has besides SHAPE, or instead of it where it calls the sizes by other names."""


def numbered_as_roberta(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same pieces with RoBERTa's and XLM-R's first numbers: padding is 1, and positions count from 2."""
    first = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")
    pieces = [*first, *sorted(set(tokenizer.get_vocab()) - set(first))]
    renumbered = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    renumbered.pre_tokenizer = tokenizer.backend_tokenizer.pre_tokenizer
    renumbered.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 0), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=renumbered,
        model_max_length=512,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def make_toy(
    model_type: str, folder: Path, tokenizer: PreTrainedTokenizerFast, speaks: bool = False, **changes: Any
) -> Path:
    own = OWN_SHAPE.get(model_type, {})
    shape = own if "dim" in own else SHAPE | own
    config = AutoConfig.for_model(
        model_type, **{"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **shape, **changes}
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = (AutoModelForMaskedLM if speaks else AutoModel).from_config(config)
    with torch.no_grad():
        for (
            name,
            parameter,
        ) in module.named_parameters():  # some architectures start parts at zero, which hides mistakes
            if not parameter.any():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=torch_stream(0, name)))
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


LAST_NORM = {"bert": "encoder.layer.1.output.LayerNorm", "modernbert": "final_norm", "eurobert": "norm"}
LAST_NORM |= {"deberta-v2": "encoder.layer.1.output.LayerNorm"}


def scaled(encoder: Encoder, factor: float) -> Encoder:
    """Multiplies the encoder's last hidden states, by the parameters of its last norm."""
    norm = encoder.module.get_submodule(LAST_NORM[encoder.module.config.model_type])
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter *= factor
    return replace(
        encoder,
        weights=weights_hash(dict(encoder.module.state_dict())),
        scale=feature_scale(encoder.name, encoder.module, encoder.tokenizer),
    )
