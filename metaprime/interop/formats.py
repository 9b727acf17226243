"""Lists the file formats of other packages that a tuned model can be written in. Names alone import nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaprime.table import Table

if TYPE_CHECKING:
    from metaprime.interop.classifier import Tuned


@dataclass(frozen=True)
class Format:
    """A file format of another package.

    Attributes:
        convert: returns the converted model, or says why there is none.
        save: writes the converted model into a folder.
    """

    convert: Callable[[Tuned], Any]
    save: Callable[[Tuned, Path], None]


FORMATS: Table[Format] = Table(
    peft="metaprime.interop.hf_peft:PEFT",
    adapterhub="metaprime.interop.adapterhub:ADAPTERHUB",
    transformers="metaprime.interop.transformers_folder:TRANSFORMERS",
)
"""Value of `--format` -> format."""
