"""Tokenises sentences into sub-word ids and caches the result on disk by content.

A cache file's name is a digest of the words and the tokenizer, so that a changed corpus gets
another file. Labels, label map, windows and seeds are applied after the cache: changing them
tokenises nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tokenizers
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from metaprime.data.rows import Example
from metaprime.files import file_mode
from metaprime.types import MetaprimeError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    Numbers = np.ndarray[tuple[int], np.dtype[np.int32]]

CHUNK = 1000
"""Sentences per call of the tokenizer."""

SMALL = 64
"""Smallest number of sentences worth caching; fewer are tokenised faster than a file is read."""

log = logging.getLogger(__name__)


class Pieces(NamedTuple):
    """Sub-words of one sentence without special tokens.

    Attributes:
        ids: sub-word ids, (L,).
        lengths: number of sub-words of each word, 0 or more; one entry for each of W words, (W,).
    """

    ids: Numbers
    lengths: Numbers


class PairFrame(NamedTuple):
    """Special tokens of a pair of texts.

    Attributes:
        before: ids that begin a window.
        between: ids between the first text and the second, of the first text's type.
        after: ids that end it, of the second text's type.
        typed: whether the encoder tells the texts apart by `token_type_ids`, 0 and 1.
    """

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    typed: bool


def cache_folder() -> Path | None:
    """Returns the folder of the sub-word cache, which may be deleted at any time: `cache_folder()`.

    The folder is `$METAPRIME_CACHE`, else `metaprime` in `$XDG_CACHE_HOME` or `~/.cache`; None, with a
    notice, if there is no home folder.
    """
    try:
        if chosen := os.environ.get("METAPRIME_CACHE"):
            return Path(chosen).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "metaprime"
    except RuntimeError as error:
        log.warning("no cache of tokenised text (%s): set METAPRIME_CACHE to a folder, or run.cache to false", error)
        return None


class Subwords:
    """A fast tokenizer with a cache of its results.

    Args:
        tokenizer: cuts words into sub-words.
        cache: folder of the cache files; None: nothing is cached.

    Attributes:
        before: ids of the special tokens that begin a window.
        after: ids of the special tokens that end it.

    Raises:
        MetaprimeError: the tokenizer is a slow one, which cannot align words and sub-words.

    Example: `Subwords(tokenizer).of([Example(("Ada",), ("O",))])[0].ids`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, cache: Path | None = None) -> None:
        """Checks the tokenizer and reads off its special tokens."""
        if not tokenizer.is_fast:
            raise MetaprimeError(
                f"{type(tokenizer).__name__} is a slow tokenizer, which cannot align sub-words and words; "
                "choose an encoder.name that ships a fast one (tokenizer.json)"
            )
        self.tokenizer, self.cache = tokenizer, cache
        # The special tokens around a text do not depend on the text: any word will do.
        framed = tokenizer(["1"], is_split_into_words=True)
        inside = [place for place, word in enumerate(framed.word_ids(0)) if word is not None]
        if not inside:
            raise MetaprimeError(f"{type(tokenizer).__name__} gives no sub-word for '1'; choose another encoder.name")
        ids: list[int] = framed["input_ids"]
        self.before, self.after = tuple(ids[: inside[0]]), tuple(ids[inside[-1] + 1 :])

    @cached_property
    def pair(self) -> PairFrame:
        """The special tokens of two texts that the encoder reads at once."""
        framed = self.tokenizer(["1"], ["1"], is_split_into_words=True, return_token_type_ids=True)
        sides, ids = framed.sequence_ids(0), framed["input_ids"]
        places = [[place for place, side in enumerate(sides) if side == number] for number in (0, 1)]
        (first, end), (second, stop) = ((own[0], own[-1] + 1) for own in places)
        types = framed["token_type_ids"]
        named = "token_type_ids" in self.tokenizer.model_input_names and any(types)
        return PairFrame(tuple(ids[:first]), tuple(ids[end:second]), tuple(ids[stop:]), named)

    def of(self, sentences: Sequence[Example]) -> list[Pieces]:
        """Returns the sub-words of each sentence, from the cache if it has all of them."""
        if self.cache is None or len(sentences) < SMALL:
            return self._tokenised(sentences)
        fingerprint = self._fingerprint(sentences)
        file = self.cache / f"{fingerprint}.safetensors"
        words = [len(sentence.words) for sentence in sentences]
        if (cached := _read(file, words)) is not None:
            return cached
        pieces = self._tokenised(sentences)
        _write(file, pieces)
        return pieces

    def _tokenised(self, sentences: Sequence[Example]) -> list[Pieces]:
        """Runs the tokenizer, chunk by chunk."""
        pieces = []
        for begin in range(0, len(sentences), CHUNK):
            chunk = [list(sentence.words) for sentence in sentences[begin : begin + CHUNK]]
            encoded = self.tokenizer(chunk, is_split_into_words=True, add_special_tokens=False, verbose=False)
            for index, words in enumerate(chunk):
                numbers = [word for word in encoded.word_ids(index) if word is not None]
                lengths = np.bincount(numbers, minlength=len(words)) if numbers else np.zeros(len(words))
                pieces.append(Pieces(np.array(encoded["input_ids"][index], np.int32), lengths.astype(np.int32)))
        return pieces

    def _fingerprint(self, sentences: Sequence[Example]) -> str:
        """Returns a digest of the words and the tokenizer."""
        digest = self._tokenizer_digest.copy()
        known: dict[str, bytes] = {}
        for sentence in sentences:
            for word in set(sentence.words).difference(known):
                text = word.encode("utf-8", "surrogatepass")
                known[word] = len(text).to_bytes(4, "little") + text
            # No word has a length of four bytes FF: it marks the end of a sentence.
            digest.update(b"".join(map(known.__getitem__, sentence.words)) + b"\xff\xff\xff\xff")
        return digest.hexdigest()

    @cached_property
    def _tokenizer_digest(self) -> hashlib.blake2b:
        """Returns a digest of the tokenizer's vocabulary and rules and of the library's version."""
        # The serialised state includes the truncation and padding of the last call: reset them.
        self.tokenizer(["a"], is_split_into_words=True)
        state = self.tokenizer.backend_tokenizer.to_str()
        return hashlib.blake2b(f"1 {tokenizers.__version__} {state}".encode(), digest_size=20)


def _read(file: Path, words: Sequence[int]) -> list[Pieces] | None:
    """Reads a cache file; returns None if it is missing or damaged.

    Args:
        file: path of the cache file.
        words: number of words of each sentence.
    """
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
    # Cut the concatenated arrays at the sentences' last words and last sub-words.
    word_ends = np.cumsum(words)
    id_ends = np.concatenate([[0], np.cumsum(lengths)])[word_ends]
    edges = zip(pairwise([0, *id_ends.tolist()]), pairwise([0, *word_ends.tolist()]), strict=True)
    return [Pieces(ids[first:end], lengths[begin:stop]) for (first, end), (begin, stop) in edges]


def _write(file: Path, pieces: Sequence[Pieces]) -> None:
    """Writes a cache file under a temporary name and renames it; logs a failure.

    Processes that write the same file write the same bytes, so that the last rename is harmless.
    """
    ids = np.concatenate([sentence.ids for sentence in pieces])
    lengths = np.concatenate([sentence.lengths for sentence in pieces])
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"ids": ids, "lengths": lengths}, aside, metadata={"digest": _digest(ids, lengths)})
        # safetensors writes with mode 600, whatever the umask.
        aside.chmod(file_mode(file.parent))
        os.replace(aside, file)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        log.warning("%s: cannot be written (%s); the text will be tokenised again next time", file, error)


def _digest(ids: Numbers, lengths: Numbers) -> str:
    """Returns a digest of a cache file's arrays, which detects damage."""
    return hashlib.blake2b(ids.tobytes() + lengths.tobytes(), digest_size=20).hexdigest()
