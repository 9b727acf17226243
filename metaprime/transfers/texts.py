"""Cuts text into words; reads sentences to predict from text, CoNLL or JSON lines and writes the answers beside them.

A file keeps its form: CoNLL gets one more column, a JSON object the key `predicted`; of text, each
word becomes a line `word<TAB>tag`, with an empty line between sentences.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from metaprime.files import check_readable
from metaprime.tasks.task import TaskConfig
from metaprime.types import MetaprimeError

FORMS = ("text", "conll", "jsonl")
"""Forms of input, values of `--format`."""

COLUMNS = (".conll", ".conllu", ".tsv", ".bio", ".iob2")
"""Extensions of files in columns."""

KNOWN = (*COLUMNS, ".txt", ".json", ".jsonl")
"""Extensions by which a missing file is told from a word."""

INDEX = re.compile(r"\d+([-.]\d+)?")
"""Number of a word in CoNLL-U; with a second number, of a line that is no word of its own."""

UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
"""First words of the names of letters of scripts that are written without spaces."""

LETTERS = {"CJK": 4, "HIRAGANA": 4, "KATAKANA": 8}
"""Letters of such a script that one word may well have; 12 of the others."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Input:
    """Sentences to predict, and how their answers are written.

    Attributes:
        sentences: words of each sentence, at least one word.
        written: maps one answer for each sentence to the lines of the output.
        places: file and line of each sentence, for messages; empty: not known.
    """

    sentences: list[list[str]]
    written: Callable[[Sequence[Any]], Iterator[str]]
    places: Sequence[str] = ()


def read_input(given: str, form: str | None = None, tokens: bool = False, task: TaskConfig | None = None) -> Input:
    """Reads what `metaprime predict` is given.

    Args:
        given: one sentence, the path of a file, or `-` for standard input.
        form: one of FORMS; None: by extension and content, which is logged for a file that is not text.
        tokens: whether words of text are cut at white space alone, with punctuation left on them.
        task: what is predicted. Whole texts are not cut into words; several, such as the two of a pair, stand in
            one line with a tab between them. None: a task over words.

    Raises:
        MetaprimeError: the file does not exist, is not UTF-8, or has no word; a line is damaged.

    Example: `read_input("Mali bono.").sentences` is `[["Mali", "bono", "."]]`.
    """
    if form not in (None, *FORMS):
        raise MetaprimeError(f"--format {form!r} is unknown: {', '.join(FORMS)}")
    cut = str.split if tokens else split_words
    if given == "-":
        name, text = "standard input", _decoded("standard input", sys.stdin.buffer.read())
    elif _is_file(given):
        name, text = given, _decoded(given, Path(given).read_bytes())
    else:
        name, text, form = "the text", given if task and task.texts else " ".join(given.split()), form or "text"
    # Of the line ends that Unicode has, a JSON string may hold all but this one.
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    if task and task.texts:
        read = _whole(name, lines, form, task)
    else:
        found = form or _form_of(name, lines)
        in_form = {"conll": _columns, "jsonl": _objects}
        read = in_form[found](name, lines) if found in in_form else _text(lines, cut)
    if not read.sentences:
        raise MetaprimeError(f"{name} has no word: give at least one")
    return read


def _is_file(given: str) -> bool:
    """Returns True for the path of a file; a path by its looks that leads nowhere is refused."""
    path = Path(given)
    try:
        check_readable(path)
        exists, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError):
        # A sentence may be too long for a name, or have characters that no name has.
        return False
    if is_folder:
        raise MetaprimeError(f"{given} is a folder: give a file, a sentence, or - for standard input")
    looks = not any(map(str.isspace, given)) and ("/" in given or path.suffix.lower() in KNOWN)
    if looks and not exists:
        raise MetaprimeError(f"{given}: no such file; a sentence that looks like this goes through standard input (-)")
    return exists


def _decoded(name: str, content: bytes) -> str:
    """Decodes UTF-8, with or without a byte order mark."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise MetaprimeError(
            f"{name}, line {line}: not UTF-8 (byte 0x{content[error.start]:02x}): convert it to UTF-8"
        ) from None


def _form_of(name: str, lines: Sequence[str]) -> str:
    """Infers the form of a file from its extension and its first line that is no comment."""
    first = next((line for line in lines if line.strip() and not line.startswith("# ")), "")
    form = "text"
    if first.startswith("{"):
        form = "jsonl"
    elif "\t" in first or Path(name).suffix.lower() in COLUMNS:
        form = "conll"
    if form != "text":
        log.warning("%s is read as %s (--format text, conll or jsonl says otherwise)", name, form)
    return form


def _text(lines: Sequence[str], cut: Callable[[str], list[str]]) -> Input:
    """Reads a sentence from each line that is not empty."""
    return Input([words for line in lines if (words := cut(line))], _as_lines)


def _as_lines(answers: Sequence[Any]) -> Iterator[str]:
    """Yields `word<TAB>tag` for each word, and an empty line between sentences; or one line for each answer."""
    for place, answer in enumerate(answers):
        if not isinstance(answer, list):
            yield str(answer)
            continue
        if place:
            yield ""
        yield from ("\t".join(map(str, pair)) for pair in answer)


def _whole(name: str, lines: Sequence[str], form: str | None, task: TaskConfig) -> Input:
    """Reads one text, or several, from each line that is not empty."""
    texts = task.texts
    if form == "conll":
        raise MetaprimeError("--format conll: this task has one answer for each text: use --format text or jsonl")
    numbered = [(f"{name}, line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    if form == "jsonl" or (form is None and numbered and numbered[0][1].startswith("{")):
        read = _answered([_fields(place, line, task) for place, line in numbered])
        return replace(read, places=[place for place, _ in numbered])
    found = []
    for place, line in numbered:
        parts = line.split("\t") if len(texts) > 1 else [line]
        if len(parts) != len(texts) or not all(map(str.strip, parts)):
            several = f"write {len(texts)} texts with a tab between them, or JSON lines"
            raise MetaprimeError(f"{place}: this task reads {read_together(texts)}: {several}")
        found.append([part.strip() for part in parts])
    return Input(found, _as_lines, [place for place, _ in numbered])


def read_together(texts: Sequence[str]) -> str:
    """Returns what a task reads for one answer, by its columns: `read_together(["premise", "hypothesis"])`."""
    return f"pairs ({', '.join(texts)})" if len(texts) == 2 else f"{len(texts)} texts together ({', '.join(texts)})"


def _fields(place: str, line: str, task: TaskConfig) -> tuple[dict[str, Any], list[str]]:
    """Returns the values and the texts of a line of JSON."""
    try:
        values = json.loads(line)
        found = task.texts_in(values)
    except MetaprimeError as error:
        raise MetaprimeError(f"{place}: {error}") from None
    except (ValueError, TypeError, LookupError):
        found = []
    if not found or not all(isinstance(text, str) and text.strip() for text in found):
        example = ", ".join(f'"{name}": "..."' for name in task.texts)
        raise MetaprimeError(f"{place}: no JSON object with its text: write {{{example}}}")
    return values, found


def _objects(name: str, lines: Sequence[str]) -> Input:
    """Reads a sentence from the key `tokens` (or `words`) of each JSON object."""
    return _answered([_object(f"{name}, line {number}", line) for number, line in enumerate(lines, 1) if line.strip()])


def _answered(objects: Sequence[tuple[dict[str, Any], list[str]]]) -> Input:
    """Returns the sentences of JSON objects, whose answers are written beside what they hold."""

    def written(answers: Sequence[Any]) -> Iterator[str]:
        """Yields the objects with what was predicted."""
        for (values, _), answer in zip(objects, answers, strict=True):
            predicted = [tag for _, tag in answer] if isinstance(answer, list) else answer
            yield json.dumps({**values, "predicted": predicted}, ensure_ascii=False)

    return Input([words for _, words in objects], written)


def _object(place: str, line: str) -> tuple[dict[str, Any], list[str]]:
    """Returns the values and the words of a line."""
    try:
        values = json.loads(line)
        words = values["tokens"] if "tokens" in values else values["words"]
    except (ValueError, TypeError, KeyError):
        words = None
    if not words or not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
        raise MetaprimeError(f'{place}: no JSON object with words: write {{"tokens": ["Mali", "bono"]}}')
    return values, words


def _columns(name: str, lines: Sequence[str]) -> Input:
    """Reads a sentence from each block of lines: the first column that is no index holds the words."""
    split = [
        None if not line.strip() or _is_comment(line, before) else line.split("\t" if "\t" in line else None)
        for before, line in pairwise(["", *lines])
    ]
    rows = [columns for columns in split if columns]
    indexed = bool(rows) and all(len(columns) > 1 and INDEX.fullmatch(columns[0]) for columns in rows)
    words = [
        None if columns is None or (indexed and not columns[0].isdecimal()) else columns[indexed] for columns in split
    ]
    for number, word in enumerate(words, 1):
        if word is not None and not word.strip():
            raise MetaprimeError(f"{name}, line {number}: the column of words is empty: give a word")

    sentences: list[list[str]] = [[]]
    for line, word in zip(lines, words, strict=True):
        if not line.strip() and sentences[-1]:
            sentences.append([])
        elif word is not None:
            sentences[-1].append(word)

    def written(answers: Sequence[Any]) -> Iterator[str]:
        """Yields the lines as they are, with the tag as the last column."""
        if not all(isinstance(answer, list) for answer in answers):
            raise MetaprimeError(
                "this task has one answer for each sentence, not for each word: use --format text or jsonl"
            )
        tags = iter(chain.from_iterable([tag for _, tag in answer] for answer in answers))
        for line, columns, word in zip(lines, split, words, strict=True):
            tag = "_" if word is None else next(tags)
            yield line if columns is None else line + ("\t" if "\t" in line or len(columns) == 1 else " ") + tag

    return Input([sentence for sentence in sentences if sentence], written)


def _is_comment(line: str, before: str) -> bool:
    """Returns True for a comment of CoNLL-U, which stands before a sentence's words, or a mark between documents."""
    if line.startswith("-DOCSTART-"):
        return True
    return line.startswith("# ") and "\t" not in line and (not before.strip() or before.startswith("# "))


def split_words(text: str) -> list[str]:
    """Splits text at white space, and splits punctuation and symbols off both ends of words.

    Example: `split_words("Well, no.")` is `["Well", ",", "no", "."]`.
    """
    words: list[str] = []
    for token in text.split():
        first, last = 0, len(token)
        while first < last and _mark(token[first]):
            first += 1
        while last > first and _mark(token[last - 1]):
            last -= 1
        words += [*token[:first], *([token[first:last]] if first < last else []), *token[last:]]
    return words


def notice_unspaced(sentences: Sequence[Sequence[str]]) -> None:
    """Logs that words are whole phrases, as they are in scripts that are written without spaces.

    Args:
        sentences: the words of each sentence.

    Example: `notice_unspaced([["李雷住在小河镇", "。"]])` logs a notice.
    """
    phrases = [word for words in sentences for word in words if _is_phrase(word, [w for w in words if not _mark(w[0])])]
    if phrases:
        log.warning(
            "%d word(s), the first %r, are in a script that is written without spaces and are taken for one word each: put a "
            "space between words, or give sentences that are cut into words",
            len(phrases),
            phrases[0],
        )


def _is_phrase(word: str, beside: Sequence[str]) -> bool:
    """Returns True for a word of an unspaced script that is long, or a sentence of its own."""
    scripts = [name for letter in word if (name := unicodedata.name(letter, "").partition(" ")[0]) in UNSPACED]
    return bool(scripts) and (len(scripts) > LETTERS.get(scripts[0], 12) or (len(beside) == 1 and len(scripts) > 2))


def _mark(character: str) -> bool:
    """Returns True for punctuation and symbols."""
    return unicodedata.category(character)[0] in "PS"
