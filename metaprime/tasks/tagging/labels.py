"""Maps the entity types and tags of a corpus to those of a run, in IOB2, or its classes of words to those of a run.

Tags are mapped by name, never by label id: `B-LOC` is 3 in one data set and 5 in the next.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from metaprime.data.reading import UNSTATED, Format, Policy, Problem, Reading, dropping, shown
from metaprime.data.rows import Example
from metaprime.tasks.tagging.schemes import SchemeName, parts, repair, scheme
from metaprime.tasks.tagging.spelling import TYPELESS, spelling
from metaprime.types import MetaprimeError


@dataclass(frozen=True)
class LabelSet:
    """Entity types of a run, or its classes of words, and the mapping of others to them.

    Attributes:
        types: `task.labels`.
        mapping: `task.label_map`, from types of a corpus to one of `types` or O, from classes to one
            of `types`.
        spans: whether tags mark spans; False: each word has one of `types` as its class.

    Raises:
        MetaprimeError: a type is missing, invalid or a duplicate, or a target of the mapping is
            unknown.

    Example: `LabelSet(("PER", "LOC"), {"MISC": "O"}).tags` is O, B-PER, I-PER, B-LOC, I-LOC.
    """

    types: tuple[str, ...]
    mapping: dict[str, str] = field(default_factory=dict, hash=False)
    spans: bool = True

    def __post_init__(self) -> None:
        """Validates types and mapping."""
        if not self.types:
            which = "the entity types, e.g. task.labels: [PER, ORG, LOC]" if self.spans else "the classes"
            raise MetaprimeError(f"task.labels is empty; list {which}")
        for name in self.types:
            if self.types.count(name) > 1:
                raise MetaprimeError(f"task.labels names {name!r} twice; keep one of them")
            if not self.spans and (not name or name != name.strip() or not name.isprintable()):
                raise MetaprimeError(f"task.labels: {name!r} is not a class of words; list names such as NOUN")
            if self.spans and (name == "O" or not name or name != "".join(name.split())):
                raise MetaprimeError(
                    f"task.labels: {name!r} is not an entity type; list types such as PER, without O, B- or I-"
                )
        outside = ("O",) if self.spans else ()
        for source, target in self.mapping.items():
            # O may map to itself only: a version of Universal NER has the tag B-O.
            if self.spans and source == "O" != target:
                raise MetaprimeError("task.label_map maps 'O', which is not an entity type; remove that key")
            if target not in (*self.types, *outside):
                listed = (
                    f"neither in task.labels {list(self.types)} nor O"
                    if outside
                    else f"not in task.labels {list(self.types)}"
                )
                raise MetaprimeError(
                    f"task.label_map maps {source!r} to {target!r}, which is {listed}; choose one of these"
                )

    @property
    def tags(self) -> tuple[str, ...]:
        """Classes, or IOB2 tags, in the order of their label ids: O, then B- and I- of each type."""
        if not self.spans:
            return self.types
        return ("O", *(f"{prefix}-{name}" for name in self.types for prefix in "BI"))

    @cached_property
    def _ids(self) -> dict[str, int]:
        """Label ids by tag."""
        return {tag: index for index, tag in enumerate(self.tags)}

    def index(self, tag: str) -> int:
        """Returns the label id of an IOB2 tag or a class: `labels.index("B-PER")`.

        Raises:
            MetaprimeError: the tag is not one of `tags`.
        """
        if tag not in self._ids:
            raise MetaprimeError(f"tag {tag!r} is not one of {list(self.tags)}; add its type to task.labels")
        return self._ids[tag]

    def target(self, name: str) -> str | None:
        """Maps a type to one of `types` or O, an unknown one to None: `labels.target("MISC")`."""
        return self.mapping.get(name, name if name in self.types else None)


@dataclass(frozen=True)
class Rules:
    """Rules by which the sentences of a corpus are read as those of a run.

    Attributes:
        labels: types of the run and the mapping of other types; None: every type is kept.
        invalid: policy for sentences with problems.
        tag_names: meaning of the tags 0, 1, 2 ... of a corpus with integer tags.
        form: facts about the files.
        scheme: the tagging scheme of every file; `auto`: each file's is found.
    """

    labels: LabelSet | None
    invalid: Policy = "repair"
    tag_names: Sequence[str] = ()
    form: Format = UNSTATED
    scheme: SchemeName = "auto"


def labelled(reading: Reading, rules: Rules) -> Reading:
    """Converts a split to IOB2 and to the types of a run; adds the problems of its tags.

    Args:
        reading: sentences with the corpus's own tags, and their problems.
        rules: types of the run, names of integer tags, and the policy that drops sentences.

    Example: `labelled(read_raw("conll:data", "de", "train"), Rules(None)).sentences`.
    """
    labels, tag_names = rules.labels, rules.tag_names
    named = [_named(sentence, tag_names) for sentence in reading.sentences]
    converted = Reading(problems=list(reading.problems), place=reading.place)
    written = spelling(
        (sentence.gold for sentence in named),
        rules.scheme,
        labels.types if labels else None,
        tuple(labels.mapping) if labels else (),
    )
    if written:
        named = [replace(sentence, gold=tuple(map(written.rewrite, sentence.gold))) for sentence in named]
    if written and written.text:
        converted.problems.append(Problem("other scheme", reading.place, written.text))
    form = scheme(dict.fromkeys(sentence.gold for sentence in named), rules.scheme)
    if form.name != "IOB2" and rules.scheme == "auto" and not (written and written.bare):
        converted.problems.append(Problem("other scheme", reading.place, f"tags are in {form.name}, converted to IOB2"))

    # Many sentences have equal tags: those without a problem are converted once.
    sound: dict[tuple[str, ...], tuple[str, ...]] = {}
    for sentence in named:
        if (gold := sound.get(sentence.gold)) is not None:
            converted.sentences.append(_with_gold(sentence, gold))
            continue
        tags, opened = repair(sentence.gold)
        problems = _unknown(sentence, labels, tag_names)
        if not form.opens_inside:
            problems += _out_of_sequence(sentence, opened, labels)
        if problems:
            problems = dropping(problems, rules.invalid)
            converted.problems.extend(problems)
        if not any(problem.dropped for problem in problems):
            gold = tags if labels is None else tuple(_mapped(tag, labels) for tag in tags)
            converted.sentences.append(_with_gold(sentence, gold))
            if not problems:
                sound[sentence.gold] = gold
    return converted


def classified(reading: Reading, rules: Rules) -> Reading:
    """Converts the words' classes of a split to those of a run; adds the problems of unknown ones.

    Args:
        reading: sentences with the corpus's own classes, and their problems.
        rules: classes of the run, names of numbers, and the policy that drops sentences.

    Example: `classified(read_raw("conll:data", "de", "train", form), rules).sentences`.
    """
    labels = rules.labels
    converted = Reading(problems=list(reading.problems), place=reading.place)
    for raw in reading.sentences:
        sentence = _named(raw, rules.tag_names)
        problems = dropping(_unknown_classes(sentence, labels, rules.tag_names), rules.invalid)
        converted.problems.extend(problems)
        if not any(problem.dropped for problem in problems):
            gold = sentence.gold if labels is None else tuple(labels.target(name) or name for name in sentence.gold)
            converted.sentences.append(_with_gold(sentence, gold))
    return converted


def _unknown_classes(sentence: Example, labels: LabelSet | None, tag_names: Sequence[str]) -> list[Problem]:
    """Finds classes that the run does not know, and numbers that nothing names."""
    problems: list[Problem] = []
    unknown = {name for name in set(sentence.gold) if labels and labels.target(name) is None}
    for word, name in enumerate(sentence.gold):
        if name not in unknown or labels is None:
            continue
        if name.isdecimal():
            known = f"task.tag_names names 0 to {len(tag_names) - 1}" if tag_names else "nothing says what numbers mean"
            text = (
                f"class {shown(name)}, but {known}; list the classes in their order, e.g. task.tag_names: [NOUN, VERB]"
            )
            problems.append(Problem("unknown tag", where(sentence, word), text))
            continue
        key = name if len(name) <= 40 and name.isprintable() else shown(name)
        alike = next((label for label in labels.types if label.casefold() == name.casefold()), labels.types[-1])
        text = (
            f"class {shown(name)} is neither in task.labels {list(labels.types)} nor in task.label_map; add e.g. "
            f"task.label_map: {{{key}: {alike}}}"
        )
        problems.append(Problem("unmapped type", where(sentence, word), text))
    return problems


def _with_gold(sentence: Example, gold: tuple[str, ...]) -> Example:
    """Returns the sentence with these tags."""
    return sentence if gold == sentence.gold else Example(sentence.words, gold, sentence.origin)


def _named(sentence: Example, tag_names: Sequence[str]) -> Example:
    """Replaces integer tags by their names; those without a name stay."""
    if not tag_names or not any(map(str.isdecimal, sentence.gold)):
        return sentence
    known = {str(number): name for number, name in enumerate(tag_names)}
    return replace(sentence, gold=tuple(known.get(tag, tag) for tag in sentence.gold))


def _mapped(tag: str, labels: LabelSet | None) -> str:
    """Maps an IOB2 tag to the run's types."""
    if tag == "O" or labels is None:
        return tag
    target = labels.target(tag[2:])
    return "O" if target == "O" else f"{tag[:2]}{target}"


def _known(tag: str, labels: LabelSet | None) -> bool:
    """Returns True for a tag whose type the run knows."""
    split = parts(tag)
    return split is not None and (labels is None or not split[1] or labels.target(split[1]) is not None)


def _unknown(sentence: Example, labels: LabelSet | None, tag_names: Sequence[str]) -> list[Problem]:
    """Finds text that is not a tag, and types that the run does not know."""
    problems: list[Problem] = []
    # Most sentences have few different tags, and all of them right.
    if all(_known(tag, labels) for tag in set(sentence.gold)):
        return problems
    for word, tag in enumerate(sentence.gold):
        prefix, name = parts(tag) or ("", "")
        if not prefix and re.fullmatch("-?[0-9]+", tag):
            known = f"task.tag_names names 0 to {len(tag_names) - 1}" if tag_names else "nothing says what numbers mean"
            remedy = "list the tags in their order, e.g. task.tag_names: [O, B-PER, I-PER]"
            problems.append(Problem("unknown tag", where(sentence, word), f"tag {shown(tag)}, but {known}; {remedy}"))
        elif not prefix and TYPELESS.fullmatch(tag):
            remedy = "correct it, or name the one type that it stands for, e.g. task.labels: [PER]"
            text = f"tag {shown(tag)} is neither O nor PREFIX-TYPE such as B-PER; {remedy}"
            problems.append(Problem("unknown tag", where(sentence, word), text))
        elif not prefix:
            remedy = "correct it, or name the column of the tags by task.tags, or their scheme by task.scheme"
            text = f"tag {shown(tag)} is neither O nor PREFIX-TYPE such as B-PER; {remedy}"
            problems.append(Problem("unknown tag", where(sentence, word), text))
        elif labels is not None and name and labels.target(name) is None:
            key = name if len(name) <= 40 and name.isprintable() else shown(name)
            alike = next((label for label in labels.types if label.casefold() == name.casefold()), "O")
            remedy = f"add e.g. task.label_map: {{{key}: {alike}}}"
            text = f"type {shown(name)} is neither in task.labels {list(labels.types)} nor in task.label_map; {remedy}"
            problems.append(Problem("unmapped type", where(sentence, word), text))
    return problems


def _out_of_sequence(sentence: Example, opened: Sequence[int], labels: LabelSet | None) -> list[Problem]:
    """Finds entities that open with a continuing prefix, unless their type maps to O."""
    problems = []
    for word in opened:
        tag = sentence.gold[word]
        if _mapped(tag, labels) != "O":
            text = f"{shown(tag)} continues no entity of its type; make it B-"
            problems.append(Problem("invalid tag sequence", where(sentence, word), text))
    return problems


def where(sentence: Example, word: int) -> str:
    """Returns the place of a word: `where(Example(("a", "b"), ("O", "O"), "f:7"), 1)` is `f:8`.

    A sentence with another kind of origin gives the origin and the word's number, counted from 1.

    Args:
        sentence: contains the word.
        word: number of the word, counted from 0.
    """
    line = re.fullmatch(r"(.*):(\d+)", sentence.origin, flags=re.DOTALL)
    if line:
        return f"{line[1]}:{int(line[2]) + word}"
    return f"{sentence.origin or 'sentence'}, word {word + 1}"
