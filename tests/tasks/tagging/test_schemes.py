"""Tagging schemes: IOB2 of every scheme against hand-worked cases, and a round trip from random entities."""

from __future__ import annotations

import random

import pytest

from metaprime.tasks.tagging.schemes import parts, repair, scheme

IOB2 = ("B-PER", "I-PER", "O", "B-LOC", "B-LOC", "I-LOC", "B-PER")


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("IOB2", IOB2),
        ("IOB1", ("I-PER", "I-PER", "O", "I-LOC", "B-LOC", "I-LOC", "I-PER")),
        ("a scheme with the prefixes B E S", ("B-PER", "E-PER", "O", "S-LOC", "B-LOC", "E-LOC", "S-PER")),
        ("a scheme with the prefixes B L U", ("B-PER", "L-PER", "O", "U-LOC", "B-LOC", "L-LOC", "U-PER")),
        ("a scheme with the prefixes E I", ("I-PER", "E-PER", "O", "E-LOC", "I-LOC", "E-LOC", "E-PER")),
    ],
)
def test_the_same_entities_in_every_scheme(name: str, tags: tuple[str, ...]) -> None:
    assert repair(tags)[0] == IOB2
    assert scheme([tags]).name == name
    assert bool(repair(tags)[1]) == scheme([tags]).opens_inside


@pytest.mark.parametrize(
    ("raw", "mended", "at"),
    [
        (("I-PER", "I-PER"), ("B-PER", "I-PER"), (0,)),
        (("B-PER", "I-LOC", "I-LOC"), ("B-PER", "B-LOC", "I-LOC"), (1,)),
        (("O", "I-ORG", "O", "I-ORG"), ("O", "B-ORG", "O", "B-ORG"), (1, 3)),
        (("B-ORG", "I-ORG", "B-ORG"), ("B-ORG", "I-ORG", "B-ORG"), ()),
        (("B-PER", "M-PER", "E-PER"), ("B-PER", "I-PER", "I-PER"), ()),
        (("S-PER", "I-PER"), ("B-PER", "B-PER"), (1,)),
        (("B-PER", "E-PER", "E-PER"), ("B-PER", "I-PER", "B-PER"), (2,)),
        (("B-PER", "?", "I-PER"), ("B-PER", "?", "B-PER"), (2,)),
        (("B-A-B", "I-A-B", "I-A"), ("B-A-B", "I-A-B", "B-A"), (2,)),
        ((), (), ()),
    ],
)
def test_what_continues_nothing_opens(raw: tuple[str, ...], mended: tuple[str, ...], at: tuple[int, ...]) -> None:
    assert repair(raw) == (mended, at)
    assert repair(mended) == (mended, ())


@pytest.mark.parametrize(
    ("tagged", "name", "opens_inside"),
    [
        ([["I-PER", "O"], ["I-LOC"]], "IO", True),
        ([["I-PER", "B-PER"], ["O", "I-LOC"]], "IOB1", True),
        ([["I-PER"], ["B-PER"]], "IOB2", False),  # B- that parts nothing: the I- is a mistake
        ([["I-PER", "B-LOC"]], "IOB2", False),
        ([["B-PER", "E-PER"], ["I-PER"]], "a scheme with the prefixes B E I", False),
        ([["O"], ["B-PER"]], "IOB2", False),
        ([["O"], ["what"]], "IOB2", False),
        ([], "IOB2", False),
    ],
)
def test_the_scheme_is_the_whole_files(tagged: list[list[str]], name: str, opens_inside: bool) -> None:
    assert scheme(tagged) == (name, opens_inside)


def test_random_entities_survive_iob1_and_bioes() -> None:
    draw = random.Random(0)
    for _ in range(300):
        entities = [(draw.choice(["O", "O", "PER", "LOC"]), draw.randint(1, 3)) for _ in range(draw.randint(1, 6))]
        iob2, iob1, bioes = [], [], []
        before = "O"
        for name, length in entities:
            if name == "O":
                for tags in (iob2, iob1, bioes):
                    tags += ["O"] * length
            else:
                iob2 += [f"B-{name}"] + [f"I-{name}"] * (length - 1)
                iob1 += [f"{'B' if name == before else 'I'}-{name}"] + [f"I-{name}"] * (length - 1)
                middle = [f"I-{name}"] * (length - 2)
                bioes += [f"S-{name}"] if length == 1 else [f"B-{name}", *middle, f"E-{name}"]
            before = name
        assert repair(iob1)[0] == repair(bioes)[0] == repair(iob2)[0] == tuple(iob2)
        assert repair(bioes)[1] == repair(iob2)[1] == ()


def test_the_parts_of_a_tag() -> None:
    assert [parts(tag) for tag in ("O", "B-PER", "M-a-b", "B-", "X-PER", "o", "", "B-\n")] == [
        ("O", ""),
        ("B", "PER"),
        ("M", "a-b"),
        *[None] * 4,
        ("B", "\n"),
    ]


def word_by_word(tags: list[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The definition: an entity runs on until another prefix, type or text ends it."""
    converted, opened, running = [], [], ""
    for word, tag in enumerate(tags):
        if tag == "O" or tag[1:2] != "-":
            converted.append(tag)
            running = ""
            continue
        prefix, name = tag[0], tag[2:]
        inside = prefix in "IMEL" and name == running
        opened += [word] if prefix in "IMEL" and not inside else []
        converted.append(f"{'I' if inside else 'B'}-{name}")
        running = "" if prefix in "SUEL" else name
    return tuple(converted), tuple(opened)


@pytest.mark.parametrize("letters", ["BI", "BIESLUM"])
def test_random_tags_are_read_as_word_by_word(letters: str) -> None:
    draw = random.Random(letters)
    choices = ["O", "O", "what", *(f"{letter}-{name}" for letter in letters for name in ("X", "Y"))]
    for _ in range(400):
        file = [[draw.choice(choices) for _ in range(draw.randint(0, 5))] for _ in range(draw.randint(1, 3))]
        assert [repair(tags) for tags in file] == [word_by_word(tags) for tags in file]
        # Opening prefixes that directly follow their own type, and something inside that opens.
        names = [["", *(tag[2:] if tag[1:2] == "-" else "" for tag in tags)] for tags in file]
        apart = any(
            tag[0] in "BSU" and tag[1:2] == "-" and tag[2:] != name
            for tags, before in zip(file, names, strict=True)
            for tag, name in zip(tags, before[:-1], strict=True)
        )
        opened = any(word_by_word(tags)[1] for tags in file)
        assert scheme(file).opens_inside == (opened and not apart)
