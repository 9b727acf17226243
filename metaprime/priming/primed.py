"""Reads the result of priming: a plain Hugging Face encoder, with adapter and head beside it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from metaprime.models.encoder import Encoder
from metaprime.runs.artifact import Artifact, load_artifact, load_encoder_of
from metaprime.types import Params, strip_prefix


@dataclass(frozen=True)
class PrimedEncoder(os.PathLike[str]):
    """A primed encoder on disk, loaded on first use; the object itself can be passed as a path.

    Attributes:
        path: folder of the encoder, which `transformers.AutoModel.from_pretrained` reads too.
        trust_remote_code: whether Python files that come with the encoder may be run.

    Example:
        >>> encoder = metaprime.PrimedEncoder(primed.path)
        >>> type(encoder.model).__name__
        'BertModel'
        >>> encoder.provenance["kind"]
        'primed'
    """

    path: Path
    trust_remote_code: bool = False

    def __fspath__(self) -> str:
        """Returns the folder, for functions that take a path."""
        return str(self.path)

    # transformers calls `str` on a folder, not `os.fspath`.
    def __str__(self) -> str:
        """Returns the folder."""
        return str(self.path)

    @property
    def model(self) -> PreTrainedModel:
        """The encoder, without adapter and head."""
        return self._encoder.module

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The encoder's tokenizer."""
        return self._encoder.tokenizer

    @property
    def adapter(self) -> Params:
        """Adapter values by name inside it; random if `outer.adapter` was `reset` or `keep`."""
        return strip_prefix("adapter", self._artifact.values)

    @property
    def head(self) -> Params:
        """Head values by name inside it; empty if priming read no labels."""
        return strip_prefix("head", self._artifact.values)

    @property
    def provenance(self) -> dict[str, Any]:
        """Config, seed, steps, validation score, hashes and versions of the priming run."""
        return self._artifact.provenance

    @cached_property
    def _artifact(self) -> Artifact:
        return load_artifact(self.path)

    @cached_property
    def _encoder(self) -> Encoder:
        return load_encoder_of(self._artifact, self.trust_remote_code)
