"""Finds the files of a corpus on disk: `DIR/<language>/<split>.<extension>`.

The name of a split's file, without extension, is the split (`train.conll`) or ends in it
(`en_ewt-ud-train.iob2`, `de_train.txt`), and may have the number of a shard behind it
(`train-00000-of-00002.parquet`); `validation`, `dev`, `val` and `valid` are one split.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from metaprime.data.reading import MissingLanguage, MissingSource, MissingSplit
from metaprime.files import check_readable
from metaprime.types import MetaprimeError

SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)", re.DOTALL)
"""The name, number and count of a shard, as in `train-00000-of-00002`."""

VALIDATION = ("validation", "dev", "val", "valid")
"""Synonyms: names of one split."""


def languages(root: str, extensions: tuple[str, ...]) -> list[str]:
    """Lists the folders of `root` that hold a file with one of the extensions, sorted.

    Raises:
        MetaprimeError: `root` is not a folder, cannot be listed, or has no such folder.

    Example: `languages("data", ("conll", "txt"))`.
    """
    names = [folder.name for folder in _entries(_folder(root)) if folder.is_dir() and _files(folder, extensions)]
    if not names:
        raise MissingSource(
            f"{_folder(root)}: no folder in it holds a file named *.{' or *.'.join(extensions)}; "
            f"the layout is DIR/<language>/<split>.{extensions[0]}"
        )
    return names


def locate(root: str, language: str, split: str, extensions: tuple[str, ...]) -> Path:
    """Returns the path of the file of a language and split.

    Args:
        root: folder of the corpus.
        language: name of a folder in it.
        split: name of a split; each of its synonyms finds it too.
        extensions: accepted extensions without a dot.

    Raises:
        MetaprimeError: there is no such language or split, or several files match the split.

    Example: `locate("data", "de", "validation", ("conll",))`.
    """
    paths = locate_all(root, language, split, extensions)
    if len(paths) > 1:
        raise _several(split, paths)
    return paths[0]


def locate_all(root: str, language: str, split: str, extensions: tuple[str, ...]) -> list[Path]:
    """Returns the path of the file of a language and split, or the paths of all its shards, in order.

    Arguments as in `locate`.

    Raises:
        MetaprimeError: there is no such language or split, a shard is missing, or files that are not
            shards of each other match the split.

    Example: `locate_all("data", "de", "train", ("parquet",))`.
    """
    check_names(language, split)
    folder = _folder(root) / language
    if not is_folder(folder):
        existing = listing([entry.name for entry in _entries(_folder(root)) if entry.is_dir()])
        raise MissingLanguage(f"{folder}: no such language; {_folder(root)} has {existing}; use one of these")

    # A file that is named like the split wins over one whose name only ends in it.
    files = _files(folder, extensions)
    synonyms = aliases(split)
    matches = [path for path in files if _name(path) in synonyms] or [
        path for path in files if _name(path).endswith(tuple(mark + name for mark in "-_." for name in synonyms))
    ]
    if not matches:
        existing = listing([path.name for path in files])
        raise MissingSplit(
            f"{folder / split}.{extensions[0]}: no such split; the folder has {existing}; use one of these or rename "
            f"the file (extensions: {', '.join(extensions)})"
        )
    return _whole(split, matches)


def splits(root: str, language: str, extensions: tuple[str, ...]) -> list[str]:
    """Lists the splits of a language, sorted: `splits("data", "de", ("conll",))`.

    A file whose name does not end in a known split is a split of its whole name.

    Raises:
        MetaprimeError: the folder of the language cannot be listed.
    """
    ends = re.compile(rf"(?:.*[-_.])?(train|test|{'|'.join(VALIDATION)})", re.DOTALL)
    stems = [_name(path) for path in _files(_folder(root) / language, extensions)]
    return sorted({match[1] if (match := ends.fullmatch(stem)) else stem for stem in stems})


def aliases(split: str) -> tuple[str, ...]:
    """Returns a split's name, then its synonyms: `aliases("dev")` is `dev`, `validation` ..."""
    return (split, *(name for name in VALIDATION if name != split)) if split in VALIDATION else (split,)


def check_names(language: str, split: str) -> None:
    """Refuses names that would lead out of the corpus folder: `check_names("de", "train")`.

    Raises:
        MetaprimeError: a name is empty, `.` or `..`, or has a path separator or a NUL in it.
    """
    for kind, name, error in (("language", language, MissingLanguage), ("split", split, MissingSplit)):
        if not name or name in (".", "..") or any(mark in name for mark in "/\\\0"):
            raise error(f"{kind} {name!r} is not a plain name; give one without path separators, e.g. 'train'")


def listing(names: list[str], limit: int = 20) -> str:
    """Joins names for a message: `listing(["a", "b", "c"], limit=2)` is `a, b and 1 more`."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "none") + more


def is_folder(path: Path) -> bool:
    """Returns True if a folder exists, False for an impossible path: `is_folder(Path("data"))`.

    Raises:
        MetaprimeError: there is no permission to look.
    """
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except PermissionError:
        check_readable(path)
        return False
    except (OSError, ValueError):
        # There is nothing, or the path is too long or has a NUL in it.
        return False


def _name(path: Path) -> str:
    """Returns the name of a file without its extension and the number of its shard."""
    shard = SHARD.fullmatch(path.stem)
    return shard[1] if shard else path.stem


def _whole(split: str, matches: list[Path]) -> list[Path]:
    """Returns the one file of a split, or all its shards in order."""
    shards = {path: shard for path in matches if (shard := SHARD.fullmatch(path.stem))}
    kinds = {(shard[1], shard[3], path.suffix) for path, shard in shards.items()}
    if len(matches) > 1 and (len(kinds) > 1 or len(shards) < len(matches)):
        raise _several(split, matches)
    if not shards:
        return matches
    there = {int(shard[2]): path for path, shard in shards.items()}
    first = next(iter(shards.values()))
    names = {n: f"{first[1]}-{n:0{len(first[2])}d}-of-{first[3]}{matches[0].suffix}" for n in range(int(first[3]))}
    if missing := [name for number, name in names.items() if number not in there]:
        raise MetaprimeError(f"{matches[0].parent}: split {split!r} lacks {listing(missing)}; download what is missing")
    if len(there) > len(names):
        raise _several(split, matches)
    return [there[number] for number in sorted(there)]


def _several(split: str, paths: list[Path]) -> MissingSplit:
    """Returns the error of files that are not one split."""
    names = listing([path.name for path in paths])
    return MissingSplit(f"{paths[0].parent}: several files for split {split!r}: {names}; keep one of the files")


def _folder(root: str) -> Path:
    """Returns the folder of a source, or refuses it with a list of its neighbours."""
    if not root:
        raise MissingSource("the source names no folder; write it after the colon, e.g. conll:DIR")
    folder = Path(os.path.expanduser(root))
    if not is_folder(folder):
        parent = folder.parent
        existing = listing([entry.name for entry in _entries(parent)]) if is_folder(parent) else "no such folder either"
        raise MissingSource(f"{folder}: no such folder ({parent}: {existing}); correct the path")
    return folder


def _entries(folder: Path) -> list[Path]:
    """Lists a folder, sorted, without hidden entries."""
    if os.access(folder, os.F_OK) and not os.access(folder, os.R_OK | os.X_OK):
        raise MetaprimeError(f"{folder}: permission denied: have its owner make it readable for you (chmod)")
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise MetaprimeError(f"{folder}: cannot be listed ({error.strerror}); check the path") from error


def _files(folder: Path, extensions: tuple[str, ...]) -> list[Path]:
    """Lists the files of a folder that have one of the extensions."""
    return [path for path in _entries(folder) if path.is_file() and path.suffix[1:] in extensions]
