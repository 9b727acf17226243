"""Reads data sets of the Hugging Face Hub, or folders with the same layout, through `datasets`.

The source is `hub:NAME[@REVISION]` or `hub:DIR`. A language is a configuration of the data set
(`unimelb-nlp/wikiann`), else the ending or beginning of a split (`train_de`,
`Babelscape/wikineural`), else a value of its column `lang` or `language`. Code is never run and
archives are never unpacked: only parquet, JSON and Arrow files of the data set itself are read.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from metaprime.data.readers import columns, folders
from metaprime.data.reading import (
    UNSTATED,
    Corpus,
    Format,
    MissingLanguage,
    MissingSource,
    MissingSplit,
    Reading,
    TableRows,
)
from metaprime.types import MetaprimeError

if TYPE_CHECKING:
    from datasets import DatasetBuilder  # type: ignore[import-untyped, unused-ignore]

DATASET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)?")
DATA_FILE = re.compile(r".*\.(parquet|jsonl?|ndjson|arrow)(\.(gz|bz2|xz|zst))?", re.DOTALL)
ARCHIVE = re.compile(rb"PK\x03\x04|PK\x05\x06|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|.{257}ustar", re.DOTALL)
LANGUAGE = ("lang", "language")
"""Names of the column of languages."""

COMMIT = re.compile(r"[0-9a-f]{40}")


class Name(NamedTuple):
    """Parsed `NAME[@REVISION]`.

    Attributes:
        path: hub id, or absolute path of a folder.
        revision: branch, tag or commit on the hub; None: its main branch, or a folder.
        local: True for a folder.
    """

    path: str
    revision: str | None
    local: bool

    def __str__(self) -> str:
        """Returns the source's URI, for messages."""
        return f"hub:{self.path}" + (f"@{self.revision}" if self.revision else "")


def languages(root: str) -> list[str]:
    """Lists the languages of a data set: `languages("unimelb-nlp/wikiann")`.

    These are its configurations; if there is only one, the languages that its splits or rows name.

    Raises:
        MetaprimeError: the name is invalid, or the data set cannot be read.
    """
    name = _name(root)
    configs = _configs(name)
    if len(configs) > 1:
        return configs
    builder = _builder(name, configs[0])
    named = {language for split in _splits(name, builder) for language in [_language_of(split)] if language}
    if named:
        return sorted(named)

    # One configuration whose splits name no language: look into the rows of the first split.
    rows = _rows(name, builder, _splits(name, builder)[0])
    column = next((column for column in LANGUAGE if column in rows.schema.names), None)
    return sorted(set(map(str, rows[column].to_pylist()))) if column else configs


def read(root: str, language: str, split: str, form: Format = UNSTATED) -> Reading:
    """Reads one split with the data set's own tags; integers get their ClassLabel names, if any.

    Args:
        root: `NAME[@REVISION]` or a folder.
        language: name of a language of the data set.
        split: name of a split; each of its synonyms finds it too.
        form: names of its columns, as far as they are stated.

    Raises:
        MetaprimeError: there is no such language or split, or the data set cannot be read.

    Example: `read("unimelb-nlp/wikiann", "de", "train").sentences`.
    """
    rows, place, source = _split_of(root, language, split)
    _check_class_names(source, columns.find_columns(place, rows.schema.names, form)[1:], rows)
    return columns.reading(rows, place, form)


def records(root: str, language: str, split: str, names: Mapping[str, str], form: Format = UNSTATED) -> TableRows:
    """Reads some columns of one split; numbers get their ClassLabel names, if any.

    Args:
        root: `NAME[@REVISION]` or a folder.
        language: name of a language of the data set.
        split: name of a split; each of its synonyms finds it too.
        names: columns by the config key that names each.
        form: nothing of it applies to a data set.

    Raises:
        MetaprimeError: there is no such language or split, or the data set cannot be read or lacks a column.

    Example: `records("nyu-mll/glue", "cola", "train", {"task.text": "sentence"}).rows`.
    """
    rows, place, source = _split_of(root, language, split)
    columns.required(place, rows.schema.names, names)
    _check_class_names(source, list(names.values()), rows)
    return columns.records_of(rows, place, names)


class SplitSource(NamedTuple):
    """Where the rows of a split come from: data set, configuration and name of the split."""

    name: Name
    builder: DatasetBuilder
    split: str


def _split_of(root: str, language: str, split: str) -> tuple[Any, str, SplitSource]:
    """Reads the rows of one split as a pyarrow Table; returns its name for messages, and its source, too."""
    _find(root, language, split)
    name = _name(root)
    builder = _of_language(name, language)
    config = builder.config.name

    # Unless the configuration is the language, a split of the language wins over one of all.
    splits = _splits(name, builder)
    synonyms = folders.aliases(split)
    own = [] if config == language else _own_splits(splits, language, synonyms)
    matches = own or [existing for existing in splits if existing in synonyms]
    if len(matches) != 1:
        raise MissingSplit(
            f"{name}: {f'more than one split {split!r}' if matches else f'no split {split!r}'} for {language!r}; "
            f"it has {folders.listing(splits)}; set data.train_split, data.validation_split and data.test_split to "
            "one of these"
        )

    rows = _rows(name, builder, matches[0])
    if not own and config != language:
        rows = _in_language(name, config, rows, language)
    return rows, f"{name} {config}/{matches[0]}", SplitSource(name, builder, matches[0])


def _find(root: str, language: str, split: str) -> tuple[()]:
    """Refuses names that no data set has; the data set itself is asked when it is read, which takes seconds."""
    folders.check_names(language, split)
    _name(root)
    return ()


def _name(root: str) -> Name:
    """Parses a root, and refuses one that is neither a folder nor a plain hub id."""
    folder = Path(os.path.expanduser(root))
    if root and folders.is_folder(folder):
        return Name(str(folder.resolve()), None, True)
    path, at, revision = root.partition("@")
    if not DATASET_NAME.fullmatch(path) or (at and not revision) or any(".." in part for part in (path, revision)):
        raise MissingSource(
            f"hub:{root}: neither a folder nor a data set's name; write hub:OWNER/NAME, hub:OWNER/NAME@REVISION or hub:DIR"
        )
    return Name(path, revision or None, False)


def _configs(name: Name) -> list[str]:
    """Lists the configurations of a data set."""
    import datasets

    with _asking(name):
        return list(datasets.get_dataset_config_names(name.path, revision=name.revision))


def _of_language(name: Name, language: str) -> DatasetBuilder:
    """Opens the language's configuration, else the only one."""
    configs = _configs(name)
    if language in configs:
        return _builder(name, language)
    if len(configs) > 1:
        raise MissingLanguage(
            f"{name}: no configuration {language!r}; it has {folders.listing(configs)}; use one of these"
        )
    if not name.local and (cached := _cached(name, language)):
        return cached
    return _builder(name, configs[0])


def _cached(name: Name, language: str) -> DatasetBuilder | None:
    """Opens a configuration from the cache of `datasets`; None if it is not there.

    Offline, `datasets` reads what it has prepared before, but cannot list the configurations.
    """
    import datasets
    from datasets.packaged_modules.cache.cache import Cache  # type: ignore[import-untyped, unused-ignore]

    try:
        with _asking(name):
            builder = datasets.load_dataset_builder(name.path, language, revision=name.revision)
    except MetaprimeError as error:
        # A ValueError means that there is no such configuration.
        if isinstance(error.__cause__, ValueError):
            return None
        raise
    return _checked(name, builder) if isinstance(builder, Cache) else None


def _builder(name: Name, config: str) -> DatasetBuilder:
    """Opens a configuration."""
    import datasets

    with _asking(name):
        builder = datasets.load_dataset_builder(name.path, config, revision=name.revision)
    return _checked(name, builder)


def _checked(name: Name, builder: DatasetBuilder) -> DatasetBuilder:
    """Refuses files that are not plain data of the data set, and a cache of another revision."""
    for file in (str(file) for files in (builder.config.data_files or {}).values() for file in files):
        inside = (
            file.startswith((f"hf://datasets/{name.path}@", f"{name.path}{os.sep}")) and ".." not in Path(file).parts
        )
        if not inside or "::" in file or not DATA_FILE.fullmatch(file):
            raise MetaprimeError(
                f"{name}: {file} is not a parquet, JSON or Arrow file of the data set, and nothing else is read; "
                "convert it (data_scripts/conll_to_parquet.py), or unpack it yourself, and use parquet:DIR or jsonl:DIR"
            )
        if name.local and _is_archive(Path(file)):
            raise MetaprimeError(f"{name}: {file} is an archive under another name; unpack it yourself")
    commit = str(builder.hash)
    if builder.config.data_files is None and COMMIT.fullmatch(name.revision or "") and commit != name.revision:
        raise MetaprimeError(f"{name}: cannot be reached, and the cached copy is revision {commit}; connect once")
    return builder


def _is_archive(file: Path) -> bool:
    """Returns True if a file begins like a zip, 7z, rar or tar archive."""
    with file.open("rb") as opened:
        return ARCHIVE.match(opened.read(264)) is not None


def _splits(name: Name, builder: DatasetBuilder) -> list[str]:
    """Lists the splits of a configuration."""
    splits = builder.config.data_files or builder.info.splits or {}
    if not splits:
        raise MetaprimeError(f"{name}: it has no split; give its files names such as train.parquet")
    return [str(split) for split in splits]


def _rows(name: Name, builder: DatasetBuilder, split: str) -> Any:
    """Reads one split into a pyarrow Table.

    A configuration on the hub is downloaded and converted as a whole once, and then cached by
    `datasets`. A split of a folder is converted each time, as the cache would hide changes of its
    files.
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


def _check_class_names(source: SplitSource, named: Sequence[str], rows: Any) -> None:
    """Refuses files that name the classes of a column in another order than the rows, which have one order for all."""
    for column in named:
        _check_names_of(source, column, rows)


def _check_names_of(source: SplitSource, tags: str, rows: Any) -> None:
    """Refuses files that name the classes of one column in another order than the rows."""
    name, builder, split = source
    import fsspec  # type: ignore[import-untyped, unused-ignore]
    import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

    taken = columns.class_names(rows.schema.metadata, tags)
    # A configuration from the cache has no files.
    for file in map(str, (builder.config.data_files or {}).get(split, ())):
        if not taken or not file.endswith(".parquet"):
            continue
        with _asking(name), fsspec.open(file) as opened:
            own = columns.class_names(pq.read_schema(opened).metadata, tags)
        if own and own != taken:
            raise MetaprimeError(
                f"{name}: {file} names the numbers in {tags} {', '.join(own)}, but `datasets` reads all files of the set "
                f"with {', '.join(taken)}; download it and write parquet:DIR, which reads each file by its own names"
            )


def _own_splits(splits: Sequence[str], language: str, synonyms: Sequence[str]) -> list[str]:
    """Lists the splits of one language, such as `train_de` or `de_train`."""
    names = {
        name
        for split in synonyms
        for mark in "_-."
        for name in (f"{split}{mark}{language}", f"{language}{mark}{split}")
    }
    return [split for split in splits if split in names]


def _language_of(split: str) -> str:
    """Returns `de` for `train_de` and `de_train`, and the empty string for `train`."""
    known = "|".join(("train", "test", *folders.VALIDATION))
    match = re.fullmatch(rf"(?:{known})[-_.](.+)|(.+)[-_.](?:{known})", split)
    return (match[1] or match[2]) if match else ""


def _in_language(name: Name, config: str, rows: Any, language: str) -> Any:
    """Selects the rows whose column of languages has a language."""
    column = next((column for column in LANGUAGE if column in rows.schema.names), None)
    if column is None:
        raise MissingLanguage(
            f"{name}: no configuration, split or column {' or '.join(LANGUAGE)} identifies rows in {language!r}; "
            f"if the data set has only one language, write {config!r} for it"
        )
    values = rows[column].to_pylist()
    chosen = rows.filter(pa.array([str(value) == language for value in values], pa.bool_()))
    if not chosen.num_rows:
        existing = folders.listing(sorted(set(map(str, values))))
        raise MissingLanguage(f"{name}: no row in {language!r}; its column {column} has {existing}; use one of these")
    return chosen


@contextlib.contextmanager
def _asking(name: Name) -> Iterator[None]:
    """Hides the progress bars of `datasets` and turns its exceptions into MetaprimeErrors."""
    import datasets

    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    # Damaged files and cards of a data set raise exceptions of any type.
    except Exception as error:
        message = (str(error).strip().splitlines() or [""])[0][:300]
        if "Dataset scripts" in message:
            path = "OWNER/NAME" if name.local else name.path
            remedy = (
                f"no code of a data set is run: try hub:{path}@refs/convert/parquet, the hub's own conversion, "
                "or convert its raw files with data_scripts/conll_to_parquet.py and write parquet:DIR"
            )
        elif isinstance(error, ConnectionError):
            remedy = "read it once with a connection and without HF_HUB_OFFLINE, or download it and write hub:DIR"
        else:
            remedy = "check its name and revision, log in if it is private, or download its files and write hub:DIR"
        raise MetaprimeError(f"{name}: {type(error).__name__}: {message}; {remedy}") from error
    finally:
        if bars:
            datasets.enable_progress_bars()


CORPUS = Corpus(read, languages, _find, records)
