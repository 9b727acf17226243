"""Data sets on the Hugging Face Hub, or in a local folder laid out like one: `hub:NAME[@REVISION]`, through `datasets`.

A language is a configuration of the set (`unimelb-nlp/wikiann`), else the ending or beginning of a split
(`train_de`, `Babelscape/wikineural`), else a value of its column `lang` or `language`. Code is never run and archives
are never unpacked: only parquet, JSON and Arrow files of the set itself are read.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from metaprime.data.readers import columns, folders
from metaprime.data.reading import Reading
from metaprime.types import MetaprimeError

if TYPE_CHECKING:
    from datasets import DatasetBuilder  # type: ignore[import-untyped, unused-ignore]

DATASET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)?")
DATA_FILE = re.compile(r".*\.(parquet|jsonl?|ndjson|arrow)(\.(gz|bz2|xz|zst))?", re.DOTALL)
ARCHIVE = re.compile(rb"PK\x03\x04|PK\x05\x06|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|.{257}ustar", re.DOTALL)
LANGUAGE = ("lang", "language")
COMMIT = re.compile(r"[0-9a-f]{40}")


class Name(NamedTuple):
    """`NAME[@REVISION]`: a hub id, or the path of a folder."""

    path: str
    revision: str | None
    local: bool

    def __str__(self) -> str:
        return f"hub:{self.path}" + (f"@{self.revision}" if self.revision else "")


def languages(root: str) -> list[str]:
    """Configurations; of a set with only one, the languages its splits or its rows name."""
    name = _name(root)
    configs = _configs(name)
    if len(configs) > 1:
        return configs
    builder = _builder(name, configs[0])
    named = {language for split in _splits(name, builder) for language in [_language_of(split)] if language}
    if named:
        return sorted(named)
    rows = _rows(name, builder, _splits(name, builder)[0])
    column = next((column for column in LANGUAGE if column in rows.schema.names), None)
    return sorted(set(map(str, rows[column].to_pylist()))) if column else configs


def read(root: str, language: str, split: str) -> Reading:
    """One split with the tags as the set has them, integers named by its features where they are."""
    folders.check_names(language, split)
    name = _name(root)
    builder = _of_language(name, language)
    splits = _splits(name, builder)
    wanted = folders.aliases(split)
    own = [] if builder.config.name == language else _own_splits(splits, language, wanted)
    found = own or [there for there in splits if there in wanted]
    if len(found) != 1:
        there = folders.listing(splits)
        raise MetaprimeError(
            f"{name}: {f'more than one split {split!r}' if found else f'no split {split!r}'} for {language!r}; "
            f"it has {there}; set data.train_split and its neighbours to one of these"
        )
    rows = _rows(name, builder, found[0])
    if not own and builder.config.name != language:
        rows = _in_language(name, builder.config.name, rows, language)
    return columns.reading(rows, f"{name} {builder.config.name}/{found[0]}")


def _name(root: str) -> Name:
    """Refuses what is neither a folder nor a plain hub id: nothing leads out of the hub's namespace."""
    folder = Path(os.path.expanduser(root))
    if root and folders.is_folder(folder):
        return Name(str(folder.resolve()), None, True)
    path, at, revision = root.partition("@")
    if not DATASET_NAME.fullmatch(path) or (at and not revision) or any(".." in part for part in (path, revision)):
        raise MetaprimeError(
            f"hub:{root}: neither a folder nor a data set's name; write hub:OWNER/NAME, hub:OWNER/NAME@REVISION or hub:DIR"
        )
    return Name(path, revision or None, False)


def _configs(name: Name) -> list[str]:
    import datasets

    with _asking(name):
        return list(datasets.get_dataset_config_names(name.path, revision=name.revision))


def _of_language(name: Name, language: str) -> DatasetBuilder:
    """The builder of the language's configuration, else of the only one there is."""
    configs = _configs(name)
    if language in configs:
        return _builder(name, language)
    if len(configs) > 1:
        raise MetaprimeError(
            f"{name}: no configuration {language!r}; it has {folders.listing(configs)}; use one of these"
        )
    if not name.local and (cached := _cached(name, language)):
        return cached
    return _builder(name, configs[0])


def _cached(name: Name, language: str) -> DatasetBuilder | None:
    """Without a connection `datasets` knows only what it has prepared before, and not which configurations there are."""
    import datasets
    from datasets.packaged_modules.cache.cache import Cache  # type: ignore[import-untyped, unused-ignore]

    try:
        with _asking(name):
            builder = datasets.load_dataset_builder(name.path, language, revision=name.revision)
    except MetaprimeError as error:
        if isinstance(error.__cause__, ValueError):  # there is no such configuration
            return None
        raise
    return _checked(name, builder) if isinstance(builder, Cache) else None


def _builder(name: Name, config: str) -> DatasetBuilder:
    import datasets

    with _asking(name):
        builder = datasets.load_dataset_builder(name.path, config, revision=name.revision)
    return _checked(name, builder)


def _checked(name: Name, builder: DatasetBuilder) -> DatasetBuilder:
    """Refuses files that are not plain data, or lie outside the set, and a cached copy of another revision."""
    for file in (str(file) for files in (builder.config.data_files or {}).values() for file in files):
        inside = (
            file.startswith((f"hf://datasets/{name.path}@", f"{name.path}{os.sep}")) and ".." not in Path(file).parts
        )
        if not inside or "::" in file or not DATA_FILE.fullmatch(file):
            raise MetaprimeError(
                f"{name}: {file} is not a parquet, JSON or Arrow file of the set, and nothing else is read; "
                "convert it (data_scripts/conll_to_parquet.py), or unpack it yourself, and use parquet:DIR or jsonl:DIR"
            )
        if name.local and _is_archive(Path(file)):
            raise MetaprimeError(f"{name}: {file} is an archive under another name; unpack it yourself")
    commit = str(builder.hash)
    if builder.config.data_files is None and COMMIT.fullmatch(name.revision or "") and commit != name.revision:
        raise MetaprimeError(f"{name}: cannot be reached, and the copy at hand is revision {commit}; connect once")
    return builder


def _is_archive(file: Path) -> bool:
    with file.open("rb") as opened:
        return ARCHIVE.match(opened.read(264)) is not None


def _splits(name: Name, builder: DatasetBuilder) -> list[str]:
    found = builder.config.data_files or builder.info.splits or {}
    if not found:
        raise MetaprimeError(f"{name}: it has no split; give its files names such as train.parquet")
    return [str(split) for split in found]


def _rows(name: Name, builder: DatasetBuilder, split: str) -> Any:
    """One split as a pyarrow Table.

    Of a set on the hub, `datasets` downloads and converts the whole configuration the first time and keeps it. A folder
    is converted anew each time, and only this split: what `datasets` keeps of one it gives again when a file has changed.
    """
    import datasets

    with _asking(name), tempfile.TemporaryDirectory() as aside:
        if name.local:
            files = builder.config.data_files[split]
            builder = datasets.load_dataset_builder(name.path, builder.config.name, cache_dir=aside)
            builder.config.data_files = datasets.data_files.DataFilesDict({split: files})
        builder.download_and_prepare(verification_mode="no_checks" if name.local else None)
        rows: Any = builder.as_dataset(split=split, in_memory=name.local)
        return rows.with_format("arrow")[:].replace_schema_metadata(rows.features.arrow_schema.metadata)


def _own_splits(splits: Sequence[str], language: str, wanted: Sequence[str]) -> list[str]:
    """Splits named after a language too: `train_de`, `de_train`."""
    both = {
        ends for name in wanted for mark in "_-." for ends in (f"{name}{mark}{language}", f"{language}{mark}{name}")
    }
    return [split for split in splits if split in both]


def _language_of(split: str) -> str:
    """`de` of `train_de` and of `de_train`, nothing of `train`."""
    known = "|".join(("train", "test", *folders.VALIDATION))
    match = re.fullmatch(rf"(?:{known})[-_.](.+)|(.+)[-_.](?:{known})", split)
    return (match[1] or match[2]) if match else ""


def _in_language(name: Name, config: str, rows: Any, language: str) -> Any:
    column = next((column for column in LANGUAGE if column in rows.schema.names), None)
    if column is None:
        raise MetaprimeError(
            f"{name}: no configuration, no split and no column {' or '.join(LANGUAGE)} says which rows are {language!r}; "
            f"write {config!r} for the language, if all are in one"
        )
    values = rows[column].to_pylist()
    chosen = rows.filter(pa.array([str(value) == language for value in values], pa.bool_()))
    if not chosen.num_rows:
        there = folders.listing(sorted(set(map(str, values))))
        raise MetaprimeError(f"{name}: no row in {language!r}; its column {column} has {there}; use one of these")
    return chosen


@contextlib.contextmanager
def _asking(name: Name) -> Iterator[None]:
    """`datasets` at work: without progress bars, and whatever stops it is told with the remedy."""
    import datasets

    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    except Exception as error:  # a set's files and card can stop it in any way
        said = (str(error).strip().splitlines() or [""])[0][:300]
        if "Dataset scripts" in said:
            there = "OWNER/NAME" if name.local else name.path
            remedy = (
                f"no code of a set is run: try hub:{there}@refs/convert/parquet, the hub's own conversion, "
                "or convert its raw files with data_scripts/conll_to_parquet.py and write parquet:DIR"
            )
        elif isinstance(error, ConnectionError):
            remedy = "read it once with a connection and without HF_HUB_OFFLINE, or download it and write hub:DIR"
        else:
            remedy = "check its name and revision, log in if it is private, or download its files and write hub:DIR"
        raise MetaprimeError(f"{name}: {type(error).__name__}: {said}; {remedy}") from error
    finally:
        if bars:
            datasets.enable_progress_bars()
