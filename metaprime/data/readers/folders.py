"""Where a corpus on disk keeps its files: `DIR/<language>/<split>.<extension>`.

The file of a split is named after it (`train.conll`), or ends in it (`en_ewt-ud-train.iob2`, `de_train.txt`);
`validation`, `dev`, `val` and `valid` are one split.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from metaprime.types import MetaprimeError

VALIDATION = ("validation", "dev", "val", "valid")
"""Names of one and the same split."""


def languages(root: str, extensions: tuple[str, ...]) -> list[str]:
    """Folders of `root` that hold at least one file with one of the extensions, sorted."""
    found = [folder.name for folder in _entries(_folder(root)) if folder.is_dir() and _files(folder, extensions)]
    if not found:
        raise MetaprimeError(
            f"{_folder(root)}: no folder in it holds a file named *.{' or *.'.join(extensions)}; "
            f"the layout is DIR/<language>/<split>.{extensions[0]}"
        )
    return found


def locate(root: str, language: str, split: str, extensions: tuple[str, ...]) -> Path:
    """The one file of a language and split; an error lists what is there instead."""
    check_names(language, split)
    folder = _folder(root) / language
    if not is_folder(folder):
        there = [entry.name for entry in _entries(_folder(root)) if entry.is_dir()]
        raise MetaprimeError(f"{folder}: no such language; {_folder(root)} has {listing(there)}; use one of these")
    files = _files(folder, extensions)
    named = aliases(split)
    matches = [path for path in files if path.stem in named] or [
        path for path in files if path.stem.endswith(tuple(mark + name for mark in "-_." for name in named))
    ]
    if len(matches) > 1:
        raise MetaprimeError(
            f"{folder}: split {split!r} is there more than once, as {listing([path.name for path in matches])}; "
            "keep one of the files"
        )
    if not matches:
        have = listing([path.name for path in files])
        raise MetaprimeError(
            f"{folder / split}.{extensions[0]}: no such split; the folder has {have}; use one of these or rename the "
            f"file (extensions: {', '.join(extensions)})"
        )
    return matches[0]


def splits(root: str, language: str, extensions: tuple[str, ...]) -> list[str]:
    """Splits that one language of `languages(root)` has, sorted: the end of a file's name if it is one, else all of it."""
    ends = re.compile(rf"(?:.*[-_.])?(train|test|{'|'.join(VALIDATION)})", re.DOTALL)
    stems = [path.stem for path in _files(_folder(root) / language, extensions)]
    return sorted({match[1] if (match := ends.fullmatch(stem)) else stem for stem in stems})


def aliases(split: str) -> tuple[str, ...]:
    """Every name that a split goes by, its own first."""
    return (split, *(name for name in VALIDATION if name != split)) if split in VALIDATION else (split,)


def check_names(language: str, split: str) -> None:
    """Refuse a name that would lead out of the corpus's folder."""
    for kind, name in (("language", language), ("split", split)):
        if not name or name in (".", "..") or any(mark in name for mark in "/\\\0"):
            raise MetaprimeError(f"{kind} {name!r} is not a plain name; give one without path separators, e.g. 'train'")


def contents(path: Path) -> bytes:
    """The bytes of a text file, without a byte order mark."""
    try:
        return path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise MetaprimeError(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from error


def listing(names: list[str], limit: int = 20) -> str:
    """Names for a message: the first `limit` of them, and how many more."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "nothing of the kind") + more


def is_folder(path: Path) -> bool:
    """Whether a folder is there; no path that cannot be one is an error."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long, not allowed, a NUL in it
        return False


def _folder(root: str) -> Path:
    if not root:
        raise MetaprimeError("the source names no folder; write it after the colon, e.g. data.source: conll:DIR")
    folder = Path(os.path.expanduser(root))
    if not is_folder(folder):
        near = folder.parent
        there = listing([entry.name for entry in _entries(near)]) if is_folder(near) else "not there either"
        raise MetaprimeError(f"{folder}: no such folder ({near}: {there}); correct the path in data.source")
    return folder


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise MetaprimeError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from error


def _files(folder: Path, extensions: tuple[str, ...]) -> list[Path]:
    return [path for path in _entries(folder) if path.is_file() and path.suffix[1:] in extensions]
