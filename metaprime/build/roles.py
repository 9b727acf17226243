"""Defines the uses of languages, and finds their corpora without reading them.

Nothing here loads torch: a command asks for what it will read before it loads what it needs to carry on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from metaprime.config.sections import DataConfig
from metaprime.data.readers.folders import listing
from metaprime.data.reading import MissingLanguage, MissingSource, MissingSplit
from metaprime.data.sources import check_split, languages
from metaprime.types import MetaprimeError


@dataclass(frozen=True)
class Role:
    """A use of languages, by the keys of the section `data` that describe it.

    Attributes:
        languages: key of the languages.
        source: key of their corpus; null there: `source`.
        scored: key of the split that is scored; None: none is.
        purpose: words that say what the languages are for.
    """

    languages: str
    source: str
    scored: str | None
    purpose: str

    def names(self, data: DataConfig) -> tuple[str, ...]:
        """Returns the languages, at least one: `TARGETS.names(config.data)`.

        Raises:
            MetaprimeError: there is none; the message lists those of the corpus.
        """
        names: tuple[str, ...] = getattr(data, self.languages)
        if names:
            return names
        try:
            known = listing(languages(self.uri(data)))
        except MetaprimeError as error:
            raise MetaprimeError(f"data.{self.source_key(data)}: {error}") from None
        raise MetaprimeError(
            f"data.{self.languages} is empty: name at least one language {self.purpose}; {self.uri(data)} has {known}"
        )

    def uri(self, data: DataConfig) -> str:
        """Returns the URI of the corpus: `TARGETS.uri(config.data)`."""
        return str(getattr(data, self.source) or data.source)

    def source_key(self, data: DataConfig) -> str:
        """Returns the key that names the corpus: `source` if the role's own is null."""
        return self.source if getattr(data, self.source) else "source"


PRIMED_ON = Role("languages", "source", None, "to draw episodes from")
HELD_OUT = Role("validation_languages", "validation_source", "validation_split", "to choose on")
TARGETS = Role("target_languages", "target_source", "test_split", "to transfer to")
"""The languages of episodes, those that choose stopping points and rates, and those that are transferred to."""


@contextlib.contextmanager
def by_key(role: Role, data: DataConfig, split: str) -> Iterator[None]:
    """Names the key that asks for what a corpus lacks: `with by_key(PRIMED_ON, data, "train_split"): ...`.

    Args:
        role: use of the language.
        data: the section `data`.
        split: key of the split.

    Raises:
        MetaprimeError: the block raised the error of a corpus, a language or a split that is missing.
    """
    try:
        yield
    except MissingSource as error:
        raise MetaprimeError(f"data.{role.source_key(data)}: {error}") from None
    except MissingLanguage as error:
        raise MetaprimeError(f"data.{role.languages}: {error}") from None
    except MissingSplit as error:
        raise MetaprimeError(f"data.{split}: {error}") from None


def check_corpus(role: Role, data: DataConfig, trains: bool = True) -> None:
    """Refuses languages or splits that their corpus lacks, as reading them would: `check_corpus(TARGETS, data)`.

    Args:
        role: use of the languages.
        data: the section `data`.
        trains: whether the languages' training splits are read.

    Raises:
        MetaprimeError: there is no language, or a corpus, a language or a split is missing.
    """
    keys = [*(["train_split"] if trains else []), *([role.scored] if role.scored else [])]
    for language in role.names(data):
        for key in keys:
            with by_key(role, data, key):
                check_split(role.uri(data), language, getattr(data, key))
