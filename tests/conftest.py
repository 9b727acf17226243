"""Toy encoders of every supported architecture: random weights, a word-piece vocabulary of synthetic text, no network."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from metaprime.config import PretrainConfig
from metaprime.data import synthetic
from metaprime.loops.pretrain import make_tokenizer

ARCHITECTURES = ("bert", "roberta", "xlm-roberta")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tokenised text of this session alone, also in subprocesses."""
    os.environ["METAPRIME_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def toy_tokenizer() -> PreTrainedTokenizerFast:
    texts = [s for language in ("qaa", "qaf", "qai") for s in synthetic.read("", language, "train")]
    return make_tokenizer(texts, PretrainConfig(vocabulary=400))


@pytest.fixture(scope="session")
def toy_encoder(
    tmp_path_factory: pytest.TempPathFactory, toy_tokenizer: PreTrainedTokenizerFast
) -> Callable[[str], Path]:
    """`toy_encoder("bert")`: folder of a two-layer, 32-wide encoder with large enough weights to make a difference."""
    made: dict[str, Path] = {}

    def folder(model_type: str) -> Path:
        if model_type not in made:
            tokenizer = toy_tokenizer if model_type == "bert" else numbered_as_roberta(toy_tokenizer)
            made[model_type] = make_toy(model_type, tmp_path_factory.mktemp(model_type), tokenizer)
        return made[model_type]

    return folder


@pytest.fixture
def toy_bert(toy_encoder: Callable[[str], Path]) -> Path:
    return toy_encoder("bert")


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


def make_toy(model_type: str, folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    config = AutoConfig.for_model(
        model_type,
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=130,
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
