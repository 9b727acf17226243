"""Words to sub-word ids, once: what a tokenizer made of a corpus is kept on disk and found again by its content.

The fingerprint is over the words and the tokenizer. Labels, label map, windows and seeds are not in it: they are applied
to what comes out of the cache, so that changing them tokenises nothing. A changed file has other words and another
fingerprint.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tokenizers
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from metaprime.data.rows import Example
from metaprime.types import MetaprimeError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    Numbers = np.ndarray[tuple[int], np.dtype[np.int32]]

CHUNK = 1000
"""Sentences per call of the tokenizer."""

SMALL = 64
"""Fewer sentences than these are tokenised faster than they are found."""

log = logging.getLogger(__name__)


class Pieces(NamedTuple):
    """The sub-words of one sentence without special tokens: ids, and how many of them each word has (0 or more)."""

    ids: Numbers
    lengths: Numbers


def cache_folder() -> Path:
    """`$METAPRIME_CACHE`, else `metaprime` in `$XDG_CACHE_HOME` or `~/.cache`. It may be deleted at any time."""
    if chosen := os.environ.get("METAPRIME_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "metaprime"


class Subwords:
    """One tokenizer, and the folder that keeps what it made; None keeps nothing.

    Attributes:
        before: special tokens that it puts before a sentence.
        after: and after it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, cache: Path | None = None) -> None:
        """Raises:
        MetaprimeError: the tokenizer is a slow one, which cannot align words and sub-words.
        """
        if not tokenizer.is_fast:
            raise MetaprimeError(
                f"{type(tokenizer).__name__} is a slow tokenizer, which does not say which sub-word belongs to which word; "
                "choose an encoder.name that ships a fast one (tokenizer.json)"
            )
        self.tokenizer, self.cache = tokenizer, cache
        framed = tokenizer(["1"], is_split_into_words=True)  # any word will do: what stands around it is the same
        inside = [place for place, word in enumerate(framed.word_ids(0)) if word is not None]
        if not inside:
            raise MetaprimeError(f"{type(tokenizer).__name__} gives no sub-word for '1'; choose another encoder.name")
        ids: list[int] = framed["input_ids"]
        self.before, self.after = tuple(ids[: inside[0]]), tuple(ids[inside[-1] + 1 :])

    def of(self, sentences: Sequence[Example]) -> list[Pieces]:
        """The sub-words of each sentence, out of the cache where they are there whole."""
        if self.cache is None or len(sentences) < SMALL:
            return self._tokenised(sentences)
        fingerprint = self._fingerprint(sentences)
        file = self.cache / f"{fingerprint}.safetensors"
        words = [len(sentence.words) for sentence in sentences]
        if (found := _read(file, words)) is not None:
            return found
        made = self._tokenised(sentences)
        _write(file, made)
        return made

    def _tokenised(self, sentences: Sequence[Example]) -> list[Pieces]:
        made = []
        for begin in range(0, len(sentences), CHUNK):
            chunk = [list(sentence.words) for sentence in sentences[begin : begin + CHUNK]]
            encoded = self.tokenizer(chunk, is_split_into_words=True, add_special_tokens=False, verbose=False)
            for index, words in enumerate(chunk):
                numbers = [word for word in encoded.word_ids(index) if word is not None]
                lengths = np.bincount(numbers, minlength=len(words)) if numbers else np.zeros(len(words))
                made.append(Pieces(np.array(encoded["input_ids"][index], np.int32), lengths.astype(np.int32)))
        return made

    def _fingerprint(self, sentences: Sequence[Example]) -> str:
        digest = self._tokenizer_digest.copy()
        for sentence in sentences:
            for word in sentence.words:
                text = word.encode("utf-8", "surrogatepass")
                digest.update(len(text).to_bytes(4, "little") + text)
            digest.update(b"\xff\xff\xff\xff")  # no word is that long: the end of a sentence
        return digest.hexdigest()

    @cached_property
    def _tokenizer_digest(self) -> hashlib.blake2b:
        """Everything that decides how words are cut: the fast tokenizer with its vocabulary, and the library's version."""
        self.tokenizer(["a"], is_split_into_words=True)  # its state says whether the last call cut or padded
        state = self.tokenizer.backend_tokenizer.to_str()
        return hashlib.blake2b(f"1 {tokenizers.__version__} {state}".encode(), digest_size=20)


def _read(file: Path, words: Sequence[int]) -> list[Pieces] | None:
    """What the file holds; None where there is none, or it is damaged: then it is made again."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="numpy") as stored:
            ids, lengths = stored.get_tensor("ids"), stored.get_tensor("lengths")
            sound = stored.metadata()["digest"] == _digest(ids, lengths)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        log.warning("%s: cannot be read (%s); the text is tokenised again", file, error)
        return None
    if not sound or len(lengths) != sum(words) or int(lengths.sum()) != len(ids):
        log.warning("%s: damaged; the text is tokenised again", file)
        return None
    ends_of_words = np.cumsum(words)
    of_sentences = np.concatenate([[0], np.cumsum(lengths)])[ends_of_words]
    return [
        Pieces(own, of_words)
        for own, of_words in zip(np.split(ids, of_sentences[:-1]), np.split(lengths, ends_of_words[:-1]), strict=True)
    ]


def _write(file: Path, made: Sequence[Pieces]) -> None:
    """Aside and renamed: processes that write the same file write the same bytes."""
    ids = np.concatenate([pieces.ids for pieces in made])
    lengths = np.concatenate([pieces.lengths for pieces in made])
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"ids": ids, "lengths": lengths}, aside, metadata={"digest": _digest(ids, lengths)})
        os.replace(aside, file)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        log.warning("%s: cannot be written (%s); the text will be tokenised again next time", file, error)


def _digest(ids: Numbers, lengths: Numbers) -> str:
    return hashlib.blake2b(ids.tobytes() + lengths.tobytes(), digest_size=20).hexdigest()
