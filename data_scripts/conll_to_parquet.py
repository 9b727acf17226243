"""Converts CoNLL files to OUT_DIR/<language>/<split>.parquet and writes OUT_DIR/manifest.json.

    python data_scripts/conll_to_parquet.py IN_DIR OUT_DIR
    python data_scripts/conll_to_parquet.py --file swa_dev.txt --language swa --split validation OUT_DIR

Tags are stored unchanged. All files are parsed before the first is written; a file with mistakes is
refused with a list of them. An existing manifest keeps the entries of other files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

from metaprime.data.readers import conll, folders
from metaprime.data.reading import settle
from metaprime.data.rows import Example
from metaprime.tasks.tagging.schemes import parts, repair, scheme
from metaprime.types import MetaprimeError


class Source(NamedTuple):
    """One raw file with its language and split."""

    path: Path
    language: str
    split: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Converts as the command line says: `main(["raw", "out"])`.

    Returns:
        The exit code: 0, or 2 after a message on stderr.
    """
    options = parse_arguments(arguments)
    try:
        sources = [options.source] if options.source else tree(options.folders[0])
        convert(sources, Path(options.folders[-1]))
    except (MetaprimeError, OSError) as error:
        print(f"conll_to_parquet: {error}", file=sys.stderr)
        return 2
    return 0


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line; sets `source` from --file, --language and --split, or to None.

    Example: `parse_arguments(["raw", "out"]).folders`.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="DIR", help="IN_DIR OUT_DIR, or OUT_DIR alone with --file")
    parser.add_argument("--file", type=Path, help="convert this one file")
    parser.add_argument("--language", help="its language: the name of the output folder")
    parser.add_argument("--split", help="its split: the name of the output file")
    options = parser.parse_args(arguments)
    one_file = [options.file, options.language, options.split]
    if any(one_file) and not all(one_file):
        parser.error("--file, --language and --split go together")
    if len(options.folders) != (1 if options.file else 2):
        parser.error("give OUT_DIR alone with --file" if options.file else "give IN_DIR and OUT_DIR")
    options.source = Source(*one_file) if options.file else None
    return options


def tree(root: str) -> list[Source]:
    """Lists every CoNLL file of a `<language>/<split>.<extension>` tree: `tree("raw")`.

    Raises:
        MetaprimeError: the folder has no such file, or several files for one split.
    """
    return [
        Source(folders.locate(root, language, split, conll.EXTENSIONS), language, split)
        for language in conll.languages(root)
        for split in folders.splits(root, language, conll.EXTENSIONS)
    ]


def convert(sources: Sequence[Source], out: Path) -> None:
    """Converts files and updates the manifest: `convert(tree("raw"), Path("out"))`.

    Raises:
        MetaprimeError: a name, a file or the existing manifest is invalid; nothing was written.
        OSError: a file cannot be written.
    """
    for source in sources:
        folders.check_names(source.language, source.split)
    parsed = [settle(conll.parse(source.path), "repair") for source in sources]
    manifest = read_manifest(out / "manifest.json")

    # Write everything to a temporary folder, then move it into place, the manifest last.
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".aside-") as aside:
        written = []
        for source, sentences in zip(sources, parsed, strict=True):
            name = f"{source.language}/{source.split}.parquet"
            path = Path(aside, name)
            path.parent.mkdir(exist_ok=True)
            write(sentences, path)
            manifest[name] = entry(source, sentences, path)
            written.append(name)
        text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        Path(aside, "manifest.json").write_text(text, encoding="utf-8")
        for source in sources:
            (out / source.language).mkdir(exist_ok=True)
        for name in (*written, "manifest.json"):
            os.replace(Path(aside, name), out / name)

    for name in written:
        print(f"{out / name}: {manifest[name]['sentences']} sentences, {manifest[name]['entities']}")


def read_manifest(path: Path) -> dict[str, Any]:
    """Reads the entries of a manifest by output file: `read_manifest(Path("out/manifest.json"))`.

    Without a manifest there are none.

    Raises:
        MetaprimeError: the file is not a JSON object.
    """
    if not path.exists():
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MetaprimeError(f"{path}: not JSON ({error}); remove it and convert all files again") from error
    if not isinstance(manifest, dict):
        raise MetaprimeError(f"{path}: not a JSON object; remove it and convert all files again")
    return manifest


def write(sentences: Sequence[Example], path: Path) -> None:
    """Writes a row of two list<string> per sentence: `write(sentences, Path("train.parquet"))`."""
    columns = {"tokens": [list(s.words) for s in sentences], "ner_tags": [list(s.gold) for s in sentences]}
    text = pa.list_(pa.string())
    pq.write_table(pa.table(columns, schema=pa.schema([("tokens", text), ("ner_tags", text)])), path)


def entry(source: Source, sentences: Sequence[Example], output: Path) -> dict[str, Any]:
    """Returns the manifest's entry of one file: digests, sizes, entities by type, and tag scheme.

    Args:
        source: the raw file.
        sentences: its content.
        output: the parquet file written from it.

    Example: `entry(source, sentences, Path("out/de/train.parquet"))["entities"]`.
    """
    entities = Counter(tag[2:] for s in sentences for tag in repair(s.gold)[0] if tag.startswith("B-"))
    return {
        "source": source.path.name,
        "source_sha256": hashlib.sha256(source.path.read_bytes()).hexdigest(),
        "sha256": hashlib.sha256(output.read_bytes()).hexdigest(),
        "sentences": len(sentences),
        "tokens": sum(len(s.words) for s in sentences),
        "entities": dict(sorted(entities.items())),
        "tag_scheme": tag_scheme(sentences),
    }


def tag_scheme(sentences: Sequence[Example]) -> str:
    """Describes the tag scheme of a file: IOB2, IOB1, IO, or the prefixes of another scheme.

    IOB2 with invalid sequences has their number: `IOB2 with 3 I- tags that open an entity`.

    Example: `tag_scheme([Example(("Ada",), ("B-PER",))])` is `IOB2`.
    """
    prefixes = {(parts(tag) or (tag, ""))[0] for s in sentences for tag in s.gold}
    if not prefixes <= set("BIO"):
        return f"prefixes {' '.join(sorted(prefixes))}"
    form = scheme(s.gold for s in sentences)
    opened = 0 if form.opens_inside else sum(len(repair(s.gold)[1]) for s in sentences)
    return f"IOB2 with {opened} I- tags that open an entity" if opened else form.name


if __name__ == "__main__":
    raise SystemExit(main())
