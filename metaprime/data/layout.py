"""Where a corpus on disk keeps its files: `DIR/<language>/<split>.<extension>`."""

from __future__ import annotations

from pathlib import Path

from metaprime.types import MetaprimeError


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
    if not folder.is_dir():
        there = [entry.name for entry in _entries(_folder(root)) if entry.is_dir()]
        raise MetaprimeError(f"{folder}: no such language; {_folder(root)} has {_listing(there)}; use one of these")
    files = _files(folder, extensions)
    matches = [path for path in files if path.stem == split]
    if len(matches) > 1:
        raise MetaprimeError(
            f"{folder}: split {split!r} is there more than once, as {_listing([path.name for path in matches])}; "
            "keep one of the files"
        )
    if not matches:
        have = _listing([path.name for path in files])
        raise MetaprimeError(
            f"{folder / split}.{extensions[0]}: no such split; the folder has {have}; use one of these or rename the "
            f"file (extensions: {', '.join(extensions)})"
        )
    return matches[0]


def splits(root: str, language: str, extensions: tuple[str, ...]) -> list[str]:
    """Splits that one language of `languages(root)` has, sorted."""
    return sorted({path.stem for path in _files(_folder(root) / language, extensions)})


def check_names(language: str, split: str) -> None:
    """Refuse a name that would lead out of the corpus's folder."""
    for kind, name in (("language", language), ("split", split)):
        if not name or name in (".", "..") or any(mark in name for mark in "/\\\0"):
            raise MetaprimeError(f"{kind} {name!r} is not a plain name; give one without path separators, e.g. 'train'")


def _folder(root: str) -> Path:
    if not root:
        raise MetaprimeError("the source names no folder; write it after the colon, e.g. data.source: conll:DIR")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        near = folder.parent
        there = _listing([entry.name for entry in _entries(near)]) if near.is_dir() else "not there either"
        raise MetaprimeError(f"{folder}: no such folder ({near}: {there}); correct the path in data.source")
    return folder


def _entries(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _files(folder: Path, extensions: tuple[str, ...]) -> list[Path]:
    return [path for path in _entries(folder) if path.is_file() and path.suffix[1:] in extensions]


def _listing(names: list[str], limit: int = 20) -> str:
    """Names for a message: the first `limit` of them, and how many more."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "nothing of the kind") + more
