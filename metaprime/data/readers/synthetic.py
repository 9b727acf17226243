"""Generates sentences with named entities, or parts of speech, in twenty invented languages, for tests and demos.

`synthetic:` (or `synthetic:SEED`) has the languages `qaa` ... `qat` (ISO 639-2 reserves these codes
for local use), in four families of five. A family has a script, a sound system and a proto-lexicon;
a language inherits them with sound changes and replaced words, and has its own word order, affixes
and entity cues.

As in real languages, structure is shared: titles accompany people, adpositions places, designators
organisations, and each kind of verb takes one kind of subject. Names are an open class and partly
ambiguous (a town's name is also a surname, a company is named after a person), so that the cue
decides and not the word.

For tasks over whole texts each sentence has a class, the kind of its subject, and there are pairs of sentences of the same
meaning, of which one entails the other, or that contradict each other.

All sentences are a pure function of (seed, language, split).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from metaprime.data.readers import columns
from metaprime.data.reading import (
    Corpus,
    Format,
    MissingLanguage,
    MissingSource,
    MissingSplit,
    Reading,
    TableRow,
    TableRows,
)
from metaprime.data.rows import Example
from metaprime.rng import stream_key

LANGUAGES = tuple(f"qa{chr(ord('a') + index)}" for index in range(20))
"""Codes of the languages; those of a family follow one another."""

SPLITS = {"train": 1000, "validation": 200, "test": 400}
"""Sentences per language and split."""

FAMILY_SIZE = 5
"""Languages per family."""

SCRIPTS = (
    ("bdfgklmnprstvz", "aeiou"),
    ("βγδζκλμνπρστφχ", "αεηιου"),
    ("бвгджзклмнпрстш", "аеиоу"),
    ("բգդզթկլմնպստրք", "աեիոու"),
)
"""(consonants, vowels) of each family."""

SUBJECTS = {"PER": "person", "ORG": "organisation", "thing": "thing"}
"""Classes of sentences, by the kind of their subject, which the verb tells."""

CLASS_COLUMNS = {"text", "label"}
"""Columns of sentences with their classes."""

PAIRS = {"first", "second", "relation", "likeness", "choice1", "choice2", "right"}
"""Columns of pairs: `second` is the first sentence with its adjunct at the other end (`same`), without it (`entailed`) or
with another object (`contradicted`); `choice1` and `choice2` have no adjunct, and one of them another object."""

LIKENESS = {"same": 5.0, "entailed": 3.0, "contradicted": 1.0}
"""Target of regression by relation."""

Layer = Literal["tags", "parts", "subject"]
"""Labels of a sentence: entities, parts of speech, or its class."""

TYPES = ("PER", "ORG", "LOC")
"""Entity types."""


@dataclass(frozen=True)
class Language:
    """One language: word classes as tuples, the most frequent word first, and word order as flags.

    Attributes:
        verbs: by the kind of subject that they take: `PER`, `ORG` or `thing`.
        given: given names of people.
        family: surnames of people.
        clause: order of S, V and O, such as `SVO`.
    """

    nouns: tuple[str, ...]
    adjectives: tuple[str, ...]
    verbs: dict[str, tuple[str, ...]]
    titles: tuple[str, ...]
    designators: tuple[str, ...]
    place_adpositions: tuple[str, ...]
    other_adpositions: tuple[str, ...]
    article: str
    given: tuple[str, ...]
    family: tuple[str, ...]
    places: tuple[str, ...]
    clause: str
    adpositions_first: bool
    adjectives_first: bool
    titles_first: bool
    designators_first: bool
    object_affix: str
    object_affix_first: bool


def languages(root: str) -> list[str]:
    """Lists the twenty languages: `languages("")`.

    Raises:
        MissingSource: the root is neither empty nor a whole number.
    """
    _seed(root)
    return list(LANGUAGES)


def read(root: str, language: str, split: str, spans: bool = True) -> list[Example]:
    """Generates the sentences of one split.

    Args:
        root: the text behind `synthetic:`, empty or a seed.
        language: one of LANGUAGES.
        split: a key of SPLITS.
        spans: whether tags mark entities; False: each word has its part of speech.

    Raises:
        MissingSource: the root is not a whole number.
        MissingLanguage: there is no such language.
        MissingSplit: there is no such split.

    Example: `len(read("", "qaa", "train"))` is 1000.
    """
    _find(root, language, split)
    return list(_sentences(_seed(root), language, split, "tags" if spans else "parts"))


def _find(root: str, language: str, split: str) -> tuple[()]:
    """Refuses a seed, a language or a split that there is not; there are no files."""
    _seed(root)
    if language not in LANGUAGES:
        raise MissingLanguage(f"synthetic: has no language {language!r}; it has {', '.join(LANGUAGES)}")
    if split not in SPLITS:
        raise MissingSplit(f"synthetic: has no split {split!r}; it has {', '.join(SPLITS)}")
    return ()


def _seed(root: str) -> int:
    """Returns the seed in a root, 0 for an empty one."""
    try:
        return int(root or 0)
    except ValueError:
        raise MissingSource(f"synthetic:{root}: the part behind the colon is a seed, a whole number") from None


@lru_cache(maxsize=128)
def _sentences(seed: int, language: str, split: str, layer: Layer) -> tuple[Example, ...]:
    """Generates the sentences of one split, once per process; every layer of labels has the same ones."""
    grammar = _language(seed, language)
    draw = random.Random(stream_key(seed, "synthetic", language, split))
    sentences: list[Example] = []
    for index in range(SPLITS[split]):
        kind, phrase = _clause(grammar, draw)
        words, tags, parts = zip(*phrase, strict=True)
        gold = {"tags": tags, "parts": parts, "subject": SUBJECTS[kind]}[layer]
        sentences.append(Example(words, gold, f"synthetic:{seed}/{language}/{split}:sentence {index + 1}"))
    return tuple(sentences)


# The language


class Sounds:
    """Sound system that draws nine consonants and four vowels and builds words of their syllables.

    Args:
        consonants: at least nine letters.
        vowels: at least four letters.
        draw: generator of all draws.

    Raises:
        ValueError: there are too few letters.

    Example: `Sounds(*SCRIPTS[0], random.Random(0)).word(2)` has four letters.
    """

    def __init__(self, consonants: str, vowels: str, draw: random.Random) -> None:
        """Draws the letters."""
        self.consonants = draw.sample(consonants, 9)
        self.vowels = draw.sample(vowels, 4)
        self.draw = draw

    def word(self, syllables: int) -> str:
        """Draws a word of consonant-vowel syllables: `sounds.word(3)`."""
        return "".join(self.draw.choice(self.consonants) + self.draw.choice(self.vowels) for _ in range(syllables))

    def lexicon(self, size: int, shortest: int = 1, longest: int = 3) -> list[str]:
        """Draws different words within limits of syllables: `sounds.lexicon(40, 2, longest=3)`."""
        # A dict keeps the order of the draws and has no duplicates.
        words: dict[str, None] = {}
        while len(words) < size:
            words[self.word(self.draw.randint(shortest, longest))] = None
        return list(words)


@dataclass(frozen=True)
class Family:
    """Letters, words and names that the languages of a family inherit.

    Attributes:
        words: in the order in which `_language` divides them into word classes.
        given: given names of people.
        endings: two endings of towns and one of surnames.
    """

    consonants: str
    vowels: str
    words: tuple[str, ...]
    given: tuple[str, ...]
    endings: tuple[str, str, str]


@lru_cache(maxsize=32)
def _family(seed: int, family: int) -> Family:
    """Draws a family, once per process."""
    draw = random.Random(stream_key(seed, "synthetic family", family))
    sounds = Sounds(*SCRIPTS[family], draw)
    words, given = sounds.lexicon(140, 1, 3), sounds.lexicon(40, 2, 3)
    endings = (sounds.word(1), sounds.word(1), sounds.word(1))
    return Family("".join(sounds.consonants), "".join(sounds.vowels), tuple(words), tuple(given), endings)


@lru_cache(maxsize=32)
def _language(seed: int, name: str) -> Language:
    """Draws a language from its family, once per process."""
    family = _family(seed, LANGUAGES.index(name) // FAMILY_SIZE)
    draw = random.Random(stream_key(seed, "synthetic language", name))
    sounds = Sounds(family.consonants, family.vowels, draw)

    # A chain shift: each of three consonants becomes the next. 40 % of the words are replaced.
    changed = draw.sample(sounds.consonants, 3)
    shift = str.maketrans("".join(changed), "".join(changed[1:] + changed[:1]))
    replaced = [sounds.word(draw.randint(1, 3)) if draw.random() < 0.4 else word for word in family.words]
    inherited = iter([word.translate(shift) for word in replaced])

    def take(count: int) -> tuple[str, ...]:
        """Takes the next words."""
        return tuple(next(inherited) for _ in range(count))

    # Names. Fifteen stems are both a town and a surname.
    names = [word.capitalize() for word in sounds.lexicon(180, 2, 3)]
    town, other_town, surname = (ending.translate(shift) for ending in family.endings)
    bare_places, bare_family = names[:80], names[65:140]
    given = [word.translate(shift).capitalize() for word in family.given] + names[140:]
    draw.shuffle(given)
    return Language(
        nouns=take(44),
        adjectives=take(14),
        verbs={"PER": take(9), "ORG": take(9), "thing": take(9)},
        titles=take(3),
        designators=take(3),
        place_adpositions=take(2),
        other_adpositions=take(3),
        article=take(1)[0],
        given=tuple(given),
        family=tuple(stem + surname if draw.random() < 0.5 else stem for stem in bare_family),
        places=tuple(stem + draw.choice((town, other_town)) if draw.random() < 0.5 else stem for stem in bare_places),
        clause=draw.choice(("SVO", "SOV", "VSO", "OVS")),
        adpositions_first=draw.random() < 0.6,
        adjectives_first=draw.random() < 0.5,
        titles_first=draw.random() < 0.7,
        designators_first=draw.random() < 0.4,
        object_affix=sounds.word(1),
        object_affix_first=draw.random() < 0.3,
    )


# The sentence

Phrase = list[tuple[str, str, str]]
"""Words with their tags and parts of speech: ADJ, ADP, DET, NOUN, NUM, PROPN, PUNCT and VERB."""


def _zipf(words: Sequence[str], draw: random.Random) -> str:
    """Draws a word with a probability of roughly 1 / rank."""
    return words[min(int(len(words) ** draw.random()) - 1, len(words) - 1)]


def _entity(words: list[tuple[str, str]], kind: str) -> Phrase:
    """Tags the words of an entity, each given with its part of speech."""
    return [(word, f"{'I' if place else 'B'}-{kind}", part) for place, (word, part) in enumerate(words)]


def _ordered(modifier_first: bool, modifier: Phrase, head: Phrase) -> Phrase:
    """Joins two phrases in one order or the other."""
    return modifier + head if modifier_first else head + modifier


def _noun(grammar: Language, draw: random.Random, affix: bool = False) -> Phrase:
    """Builds a noun phrase, perhaps with adjective and article; `affix` marks an object."""
    noun = _zipf(grammar.nouns, draw)
    if affix:
        noun = grammar.object_affix + noun if grammar.object_affix_first else noun + grammar.object_affix
    phrase: Phrase = [(noun, "O", "NOUN")]
    if draw.random() < 0.4:
        phrase = _ordered(grammar.adjectives_first, [(_zipf(grammar.adjectives, draw), "O", "ADJ")], phrase)
    return [(grammar.article, "O", "DET"), *phrase] if draw.random() < 0.5 else phrase


def _person(grammar: Language, draw: random.Random) -> Phrase:
    """Builds a person: given name, surname or both, half of the time with a title."""
    names = [(_zipf(grammar.given, draw), "PROPN"), (_zipf(grammar.family, draw), "PROPN")]
    shape = draw.random()
    person = _entity(names if shape < 0.5 else names[:1] if shape < 0.7 else names[1:], "PER")
    if draw.random() < 0.5:
        person = _ordered(grammar.titles_first, [(draw.choice(grammar.titles), "O", "NOUN")], person)
    return person


def _organisation(grammar: Language, draw: random.Random) -> Phrase:
    """Builds an organisation, named after person, place or thing, mostly with a designator."""
    stems = draw.choice((grammar.family, grammar.places, tuple(noun.capitalize() for noun in grammar.nouns[:30])))
    words = [(_zipf(stems, draw), "PROPN")]
    if draw.random() < 0.7:
        designator = (draw.choice(grammar.designators).capitalize(), "NOUN")
        words = [designator, *words] if grammar.designators_first else [*words, designator]
    phrase = _entity(words, "ORG")
    return [("«", "O", "PUNCT"), *phrase, ("»", "O", "PUNCT")] if draw.random() < 0.25 else phrase


def _place(grammar: Language, draw: random.Random) -> Phrase:
    """Builds a place."""
    words = [(_zipf(grammar.places, draw), "PROPN")]
    # An adjective that belongs to the name, as in New York.
    if draw.random() < 0.2:
        epithet = (_zipf(grammar.adjectives, draw).capitalize(), "ADJ")
        words = [epithet, *words] if grammar.adjectives_first else [*words, epithet]
    return _entity(words, "LOC")


def _adjunct(grammar: Language, draw: random.Random) -> Phrase:
    """Builds an adjunct: an adposition and a place or a noun."""
    if draw.random() < 0.6:
        adposition, inside = draw.choice(grammar.place_adpositions), _place(grammar, draw)
        if draw.random() < 0.25:
            return [("(", "O", "PUNCT"), *inside, (")", "O", "PUNCT")]
    else:
        adposition, inside = draw.choice(grammar.other_adpositions), _noun(grammar, draw)
    return _ordered(grammar.adpositions_first, [(adposition, "O", "ADP")], inside)


def _parts(grammar: Language, draw: random.Random) -> tuple[str, dict[str, Phrase]]:
    """Builds subject, verb and object, keyed S, V and O; returns the kind of subject, too."""
    kind = draw.choices(("PER", "ORG", "thing"), (0.4, 0.25, 0.35))[0]
    subject = {"PER": _person, "ORG": _organisation, "thing": _noun}[kind](grammar, draw)
    target = _object(grammar, draw)
    return kind, {"S": subject, "V": [(_zipf(grammar.verbs[kind], draw), "O", "VERB")], "O": target}


def _object(grammar: Language, draw: random.Random) -> Phrase:
    """Builds an object: a person, an organisation, or mostly a thing with an affix."""
    chance = draw.random()
    if chance < 0.15:
        return _person(grammar, draw)
    return _organisation(grammar, draw) if chance < 0.3 else _noun(grammar, draw, affix=True)


def _clause(grammar: Language, draw: random.Random) -> tuple[str, Phrase]:
    """Builds a sentence: subject, verb and object, perhaps an adjunct and a year; returns the kind of subject, too."""
    kind, parts = _parts(grammar, draw)
    phrase = [word for role in grammar.clause for word in parts[role]]
    if draw.random() < 0.65:
        phrase = _ordered(draw.random() < 0.3, _adjunct(grammar, draw), phrase)
    if draw.random() < 0.15:
        phrase += [(",", "O", "PUNCT"), (str(draw.randint(1900, 2030)), "O", "NUM")]

    first, tag, part = phrase[0]
    return kind, [(first.capitalize(), tag, part), *phrase[1:], (".", "O", "PUNCT")]


def _written(words: Phrase) -> str:
    """Returns words as a sentence, with a capital and a full stop."""
    first, *others = [word for word, _, _ in words]
    return " ".join([first.capitalize(), *others, "."])


def _pair(grammar: Language, draw: random.Random) -> dict[str, Any]:
    """Builds a sentence with an adjunct, and others of a known relation to it: the columns of PAIRS."""
    _, parts = _parts(grammar, draw)
    adjunct, target = _adjunct(grammar, draw), parts["O"]
    while (other := _object(grammar, draw)) == target:
        pass

    def clause(target: Phrase) -> Phrase:
        """Returns subject, verb and an object in the language's order."""
        return [word for role in grammar.clause for word in {**parts, "O": target}[role]]

    front = draw.random() < 0.3
    others = {
        "same": _written(_ordered(not front, adjunct, clause(target))),
        "entailed": _written(clause(target)),
        "contradicted": _written(_ordered(front, adjunct, clause(other))),
    }
    relation = draw.choice(tuple(others))
    right = draw.choice(("choice1", "choice2"))
    without = {True: others["entailed"], False: _written(clause(other))}
    return {
        "first": _written(_ordered(front, adjunct, clause(target))),
        "second": others[relation],
        "relation": relation,
        "likeness": LIKENESS[relation],
        "choice1": without[right == "choice1"],
        "choice2": without[right == "choice2"],
        "right": right,
    }


@lru_cache(maxsize=64)
def _pairs(seed: int, language: str, split: str) -> tuple[dict[str, Any], ...]:
    """Generates the pairs of one split, once per process."""
    grammar = _language(seed, language)
    draw = random.Random(stream_key(seed, "synthetic pairs", language, split))
    return tuple(_pair(grammar, draw) for _ in range(SPLITS[split]))


def _reading(root: str, language: str, split: str, form: Format) -> Reading:
    """Wraps synthetic sentences, which have no problems, in a Reading."""
    return Reading(read(root, language, split, form.spans), place=f"synthetic:{root} {language}/{split}")


def _records(root: str, language: str, split: str, names: Mapping[str, str], form: Format) -> TableRows:
    """Returns sentences with their classes, in the columns CLASS_COLUMNS, or pairs of sentences, in the columns PAIRS."""
    _find(root, language, split)
    place, seed = f"synthetic:{root} {language}/{split}", _seed(root)
    known = PAIRS if PAIRS & set(names.values()) else CLASS_COLUMNS
    columns.required(place, sorted(known), names)
    if known is PAIRS:
        texts = list(_pairs(seed, language, split))
    else:
        texts = [
            {"text": " ".join(one.words), "label": one.gold} for one in _sentences(seed, language, split, "subject")
        ]
    rows = [
        TableRow(f"synthetic:{seed}/{language}/{split}:sentence {number}", {name: own[name] for name in names.values()})
        for number, own in enumerate(texts, 1)
    ]
    return TableRows(rows, place=place)


CORPUS = Corpus(_reading, languages, _find, _records)
