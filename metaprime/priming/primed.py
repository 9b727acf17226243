"""Offers what priming left: a plain Hugging Face encoder, and the adapter and head that it was primed with."""

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
    """A primed encoder on disk, which is read when something of it is asked for.

    Attributes:
        path: its folder, which `transformers.AutoModel.from_pretrained` reads too. The object itself can be
            given wherever a path can.
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
        return str(self.path)

    # transformers takes the text of a folder, not its `os.fspath`.
    def __str__(self) -> str:
        return str(self.path)

    @property
    def model(self) -> PreTrainedModel:
        """The encoder, without adapter and head."""
        return self._encoder.module

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""
        return self._encoder.tokenizer

    @property
    def adapter(self) -> Params:
        """Values of the adapter by their names inside it; what they are worth, `outer.adapter` says."""
        return strip_prefix("adapter", self._artifact.values)

    @property
    def head(self) -> Params:
        """Values of the head by their names inside it; empty where priming read no labels."""
        return strip_prefix("head", self._artifact.values)

    @property
    def provenance(self) -> dict[str, Any]:
        """Where it came from: config, seed, steps, validation score, hashes and versions."""
        return self._artifact.provenance

    @cached_property
    def _artifact(self) -> Artifact:
        return load_artifact(self.path)

    @cached_property
    def _encoder(self) -> Encoder:
        return load_encoder_of(self._artifact, self.trust_remote_code)
