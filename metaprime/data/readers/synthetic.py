"""Twenty languages out of nothing: text with entities for trying, testing and demonstrating metaprime offline.

`synthetic:` (or `synthetic:SEED`) names languages `qaa` ... `qat` (ISO 639-2 reserves these codes for local use), in
four families of five. A family owns a script, a sound system and a proto-lexicon; a language inherits from it through
sound changes and replaced words and has its own word order, affixes and entity cues. What the languages share is
structure, as real ones do: titles go with people, adpositions with places, designators with organisations, each kind
of verb with a kind of subject; and punctuation and digits. Names are an open class and partly ambiguous (a town's name is also a
surname, a company is named after a person), so the cue decides, not the word.

Everything is a function of (seed, language, split).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from metaprime.data.rows import Example
from metaprime.rng import stream_key
from metaprime.types import MetaprimeError

LANGUAGES = tuple(f"qa{chr(ord('a') + index)}" for index in range(20))
SPLITS = {"train": 1000, "validation": 200, "test": 400}
"""Sentences per language and split."""

FAMILY_SIZE = 5
SCRIPTS = (
    ("bdfgklmnprstvz", "aeiou"),
    ("βγδζκλμνπρστφχ", "αεηιου"),
    ("бвгджзклмнпрстш", "аеиоу"),
    ("բգդզթկլմնպստրք", "աեիոու"),
)
"""(consonants, vowels) of each family."""

TYPES = ("PER", "ORG", "LOC")


@dataclass(frozen=True)
class Language:
    """One language: closed classes as tuples (Zipf-ranked), order as flags, the share of cues it spells out."""

    nouns: tuple[str, ...]
    adjectives: tuple[str, ...]
    verbs: dict[str, tuple[str, ...]]  # by the kind of subject they take: PER, ORG, thing
    titles: tuple[str, ...]
    designators: tuple[str, ...]
    place_adpositions: tuple[str, ...]
    other_adpositions: tuple[str, ...]
    article: str
    given: tuple[str, ...]
    family: tuple[str, ...]
    places: tuple[str, ...]
    clause: str  # an order of S, V, O
    adpositions_first: bool
    adjectives_first: bool
    titles_first: bool
    designators_first: bool
    object_affix: str
    object_affix_first: bool


def languages(root: str) -> list[str]:
    """Every language of the source, whatever its seed."""
    _seed(root)
    return list(LANGUAGES)


def read(root: str, language: str, split: str) -> list[Example]:
    """The sentences of one split; `root` is the text behind `synthetic:`, empty or a seed.

    Raises:
        MetaprimeError: the root is not a whole number, or there is no such language or split.
    """
    seed = _seed(root)
    if language not in LANGUAGES:
        raise MetaprimeError(f"synthetic: has no language {language!r}; it has {', '.join(LANGUAGES)}")
    if split not in SPLITS:
        raise MetaprimeError(f"synthetic: has no split {split!r}; it has {', '.join(SPLITS)}")
    return list(_sentences(seed, language, split))


def _seed(root: str) -> int:
    try:
        return int(root or 0)
    except ValueError:
        raise MetaprimeError(f"synthetic:{root}: the part behind the colon is a seed, a whole number") from None


@lru_cache(maxsize=128)
def _sentences(seed: int, language: str, split: str) -> tuple[Example, ...]:
    spoken = _language(seed, language)
    draw = random.Random(stream_key(seed, "synthetic", language, split))
    made: list[Example] = []
    for index in range(SPLITS[split]):
        pairs = _clause(spoken, draw)
        words, tags = zip(*pairs, strict=True)
        made.append(Example(words, tags, f"synthetic:{seed}/{language}/{split}:sentence {index + 1}"))
    return tuple(made)


# The language


class Sounds:
    """A script with the few letters a language uses, and words built of its syllables."""

    def __init__(self, consonants: str, vowels: str, draw: random.Random) -> None:
        self.consonants = draw.sample(consonants, 9)
        self.vowels = draw.sample(vowels, 4)
        self.draw = draw

    def word(self, syllables: int) -> str:
        return "".join(self.draw.choice(self.consonants) + self.draw.choice(self.vowels) for _ in range(syllables))

    def lexicon(self, size: int, shortest: int = 1, longest: int = 3) -> list[str]:
        words: dict[str, None] = {}  # ordered and without repeats
        while len(words) < size:
            words[self.word(self.draw.randint(shortest, longest))] = None
        return list(words)


@dataclass(frozen=True)
class Family:
    """What the languages of a family inherit: letters, words in the order `_language` takes them, names, endings."""

    consonants: str
    vowels: str
    words: tuple[str, ...]
    given: tuple[str, ...]
    endings: tuple[str, str, str]  # of towns, twice, and of surnames


@lru_cache(maxsize=32)
def _family(seed: int, family: int) -> Family:
    draw = random.Random(stream_key(seed, "synthetic family", family))
    sounds = Sounds(*SCRIPTS[family], draw)
    words, given = sounds.lexicon(140, 1, 3), sounds.lexicon(40, 2, 3)
    endings = (sounds.word(1), sounds.word(1), sounds.word(1))
    return Family("".join(sounds.consonants), "".join(sounds.vowels), tuple(words), tuple(given), endings)


@lru_cache(maxsize=32)
def _language(seed: int, name: str) -> Language:
    family = _family(seed, LANGUAGES.index(name) // FAMILY_SIZE)
    draw = random.Random(stream_key(seed, "synthetic language", name))
    own = Sounds(family.consonants, family.vowels, draw)
    changed = draw.sample(own.consonants, 3)  # a chain shift: each of the three becomes the next
    shift = str.maketrans("".join(changed), "".join(changed[1:] + changed[:1]))
    replaced = [own.word(draw.randint(1, 3)) if draw.random() < 0.4 else word for word in family.words]
    inherited = iter([word.translate(shift) for word in replaced])

    def take(count: int) -> tuple[str, ...]:
        return tuple(next(inherited) for _ in range(count))

    names = [word.capitalize() for word in own.lexicon(180, 2, 3)]
    town, other_town, surname = (ending.translate(shift) for ending in family.endings)
    bare_places, bare_family = names[:80], names[65:140]  # fifteen stems are both a town and a surname
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
        object_affix=own.word(1),
        object_affix_first=draw.random() < 0.3,
    )


# The sentence: lists of (word, tag)

Phrase = list[tuple[str, str]]


def _zipf(words: Sequence[str], draw: random.Random) -> str:
    """A word with probability falling roughly as 1 / rank."""
    return words[min(int(len(words) ** draw.random()) - 1, len(words) - 1)]


def _entity(words: list[str], kind: str) -> Phrase:
    return [(word, f"{'I' if place else 'B'}-{kind}") for place, word in enumerate(words)]


def _ordered(first: bool, one: Phrase, other: Phrase) -> Phrase:
    return one + other if first else other + one


def _noun(spoken: Language, draw: random.Random, affix: bool = False) -> Phrase:
    noun = _zipf(spoken.nouns, draw)
    if affix:
        noun = spoken.object_affix + noun if spoken.object_affix_first else noun + spoken.object_affix
    phrase: Phrase = [(noun, "O")]
    if draw.random() < 0.4:
        phrase = _ordered(spoken.adjectives_first, [(_zipf(spoken.adjectives, draw), "O")], phrase)
    return [(spoken.article, "O"), *phrase] if draw.random() < 0.5 else phrase


def _person(spoken: Language, draw: random.Random) -> Phrase:
    names = [_zipf(spoken.given, draw), _zipf(spoken.family, draw)]
    shape = draw.random()
    person = _entity(names if shape < 0.5 else names[:1] if shape < 0.7 else names[1:], "PER")
    if draw.random() < 0.5:
        person = _ordered(spoken.titles_first, [(draw.choice(spoken.titles), "O")], person)
    return person


def _organisation(spoken: Language, draw: random.Random) -> Phrase:
    stem = draw.choice((spoken.family, spoken.places, tuple(noun.capitalize() for noun in spoken.nouns[:30])))
    words = [_zipf(stem, draw)]
    if draw.random() < 0.7:
        designator = draw.choice(spoken.designators).capitalize()
        words = [designator, *words] if spoken.designators_first else [*words, designator]
    phrase = _entity(words, "ORG")
    return [("«", "O"), *phrase, ("»", "O")] if draw.random() < 0.25 else phrase


def _place(spoken: Language, draw: random.Random) -> Phrase:
    words = [_zipf(spoken.places, draw)]
    if draw.random() < 0.2:  # as in New York: an adjective that belongs to the name
        epithet = _zipf(spoken.adjectives, draw).capitalize()
        words = [epithet, *words] if spoken.adjectives_first else [*words, epithet]
    return _entity(words, "LOC")


def _adjunct(spoken: Language, draw: random.Random) -> Phrase:
    if draw.random() < 0.6:
        adposition, inside = draw.choice(spoken.place_adpositions), _place(spoken, draw)
        if draw.random() < 0.25:
            return [("(", "O"), *inside, (")", "O")]
    else:
        adposition, inside = draw.choice(spoken.other_adpositions), _noun(spoken, draw)
    return _ordered(spoken.adpositions_first, [(adposition, "O")], inside)


def _clause(spoken: Language, draw: random.Random) -> Phrase:
    kind = draw.choices(("PER", "ORG", "thing"), (0.4, 0.25, 0.35))[0]
    subject = {"PER": _person, "ORG": _organisation, "thing": _noun}[kind](spoken, draw)
    chance = draw.random()
    if chance < 0.15:
        target = _person(spoken, draw)
    elif chance < 0.3:
        target = _organisation(spoken, draw)
    else:
        target = _noun(spoken, draw, affix=True)
    parts = {"S": subject, "V": [(_zipf(spoken.verbs[kind], draw), "O")], "O": target}
    phrase = [pair for role in spoken.clause for pair in parts[role]]
    if draw.random() < 0.65:
        phrase = _ordered(draw.random() < 0.3, _adjunct(spoken, draw), phrase)
    if draw.random() < 0.15:
        phrase += [(",", "O"), (str(draw.randint(1900, 2030)), "O")]
    first, tag = phrase[0]
    return [(first.capitalize(), tag), *phrase[1:], (".", "O")]
