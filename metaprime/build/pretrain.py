"""Pre-trains the embedded encoder: a small BERT and its WordPiece vocabulary, on masked synthetic text.

It takes the place of mBERT or XLM-R: it has seen text of all synthetic languages and no tags.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from metaprime.build.folders import is_pretrained, pretrain_record
from metaprime.config.sections import PretrainConfig
from metaprime.data.readers import synthetic
from metaprime.data.rows import Example
from metaprime.files import write_json, written_aside
from metaprime.models.encoder import save_encoder
from metaprime.optim import ScheduledAdamW, adamw
from metaprime.rng import stream, torch_stream
from metaprime.runs.folder import PRETRAIN_RECORD
from metaprime.tasks.masking import masked
from metaprime.types import IGNORE

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FEWER = 20
"""An encoder that is only looked at has a tokenizer of every 20th sentence."""


def pretrain(config: PretrainConfig, source: str, folder: Path, report: Callable[[int, int, float], None]) -> Path:
    """Pre-trains an encoder into `folder`, unless the same config has already done so.

    Args:
        config: size and training of the encoder.
        source: `synthetic:` or `synthetic:SEED`.
        folder: folder for the Hugging Face files.
        report: called after each step with (steps done, all steps, masked-word loss in nats).

    Returns:
        `folder`.

    Raises:
        MetaprimeError: the folder holds another encoder or other files.

    Example: `pretrain(PretrainConfig(), "synthetic:", Path("base"), lambda *progress: None)`
    """
    if is_pretrained(config, source, folder):
        return folder
    texts = _texts(source)
    tokenizer = make_tokenizer(texts, config)
    torch.manual_seed(config.seed)
    model = _new_model(config, tokenizer)
    _train(model, _blocks(texts, tokenizer, config), config, report)
    with written_aside(folder) as aside:
        save_encoder(model, tokenizer, aside)
        write_json(aside / PRETRAIN_RECORD, pretrain_record(config, source))
    return folder


def untrained(config: PretrainConfig, source: str, folder: Path) -> None:
    """Writes an encoder of a config's shape with random weights: `untrained(config, "synthetic:", Path("aside"))`.

    Its tokenizer has read few of the sentences, which is faster; texts are cut into more sub-words.

    Args:
        config: size and training of the encoder.
        source: `synthetic:` or `synthetic:SEED`.
        folder: an existing folder for the Hugging Face files.
    """
    tokenizer = make_tokenizer(_texts(source)[::FEWER], config)
    save_encoder(_new_model(config, tokenizer), tokenizer, folder)


def _texts(source: str) -> list[Example]:
    """Returns the training sentences of all languages."""
    root = source.partition(":")[2]
    return [s for name in synthetic.LANGUAGES for s in synthetic.read(root, name, "train")]


def _new_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> BertForMaskedLM:
    """Returns a model with random weights without dropout: no text is seen often enough to be memorised."""
    shape = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.hidden,
        max_position_embeddings=512,
        pad_token_id=0,
        initializer_range=0.06,
    )
    model = BertForMaskedLM(shape)
    model.eval()
    return model


def _train(
    model: BertForMaskedLM, blocks_NL: torch.Tensor, config: PretrainConfig, report: Callable[[int, int, float], None]
) -> None:
    """Trains a model on masked words, in place; `blocks_NL` holds token ids (N, L)."""
    special_S, words = torch.arange(len(SPECIAL)), (len(SPECIAL), model.config.vocab_size)
    group = {"params": model.parameters(), "peak": config.rate, "weight_decay": 0.01}
    optimizer = ScheduledAdamW(adamw([group], epsilon=1e-8, fused=False), config.steps, warmup=0.1, clip=1.0)
    for step in range(config.steps):
        rows = stream(config.seed, "pretrain batch", step).choice(len(blocks_NL), size=config.batch)
        ids_BL = blocks_NL[torch.from_numpy(rows)]
        draw = torch_stream(config.seed, "mask", step)
        inputs_BL, labels_BL = masked(ids_BL, special_S, SPECIAL.index("[MASK]"), words, draw)
        hidden_BLD = model.bert(input_ids=inputs_BL, attention_mask=(ids_BL != 0).long()).last_hidden_state
        # Logits over the vocabulary are the expensive part, so they are computed only at masked words.
        masked_BL = labels_BL != IGNORE
        loss = torch.nn.functional.cross_entropy(model.cls(hidden_BLD[masked_BL]), labels_BL[masked_BL])
        loss.backward()
        optimizer.step(step)
        report(step + 1, config.steps, loss.item())


def make_tokenizer(texts: list[Example], config: PretrainConfig) -> PreTrainedTokenizerFast:
    """Trains a WordPiece tokenizer (Wu et al. 2016) with BERT's special tokens first in the vocabulary.

    Args:
        texts: sentences; their labels are not read.
        config: gives the size of the vocabulary.

    Example: `make_tokenizer(synthetic.read("", "qaa", "train"), PretrainConfig(vocabulary=400))`
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.vocabulary, special_tokens=list(SPECIAL), continuing_subword_prefix="##", show_progress=False
    )
    tokenizer.train_from_iterator((" ".join(sentence.words) for sentence in texts), trainer)
    # The trainer numbers pieces differently in every process. Sorted pieces make equal texts give equal tokenizers.
    pieces = [*SPECIAL, *sorted(set(tokenizer.get_vocab()) - set(SPECIAL))]
    tokenizer.model = models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=512,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _blocks(texts: list[Example], tokenizer: PreTrainedTokenizerFast, config: PretrainConfig) -> torch.Tensor:
    """Packs neighbouring sentences into blocks of at most `config.length` sub-words, zero-padded: (N, L) int64."""
    encoded = tokenizer([" ".join(sentence.words) for sentence in texts], add_special_tokens=False)["input_ids"]
    blocks: list[list[int]] = []
    block: list[int] = [2]
    for ids in encoded:
        if len(block) + len(ids) + 1 > config.length and len(block) > 1:
            blocks.append(block)
            block = [2]
        block += [*ids[: config.length - 2], 3]
    blocks.append(block)
    padded = np.zeros((len(blocks), config.length), dtype=np.int64)
    for row, ids in zip(padded, blocks, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(padded)
