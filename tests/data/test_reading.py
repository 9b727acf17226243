"""What a run may go on with: each kind of problem under each policy, and one message that shows them all."""

from __future__ import annotations

import logging
from typing import get_args

import pytest

from metaprime.data.reading import NOTICES, Policy, Problem, ProblemKind, Reading, dropping, drops, settle, shown
from metaprime.data.rows import Example
from metaprime.types import MetaprimeError

SENTENCE = Example(("a",), ("O",), "x:1")


@pytest.mark.parametrize("kind", get_args(ProblemKind))
def test_what_each_policy_leaves_out(kind: ProblemKind) -> None:
    told = kind in NOTICES
    assert drops(kind, "drop") == drops(kind, "error") == (not told)
    assert drops(kind, "repair") == (not told and kind != "invalid tag sequence")


@pytest.mark.parametrize("invalid", get_args(Policy))
@pytest.mark.parametrize("kind", get_args(ProblemKind))
def test_what_each_policy_goes_on_with(kind: ProblemKind, invalid: Policy, caplog: pytest.LogCaptureFixture) -> None:
    reading = Reading([SENTENCE], dropping([Problem(kind, "x:3", "wrong")], invalid), "x")
    if invalid == "drop" or not drops(kind, invalid):
        with caplog.at_level(logging.WARNING):
            assert settle(reading, invalid) == [SENTENCE]
        assert ["x:3" in message and "wrong" in message for message in caplog.messages] == [True]
    else:
        with pytest.raises(MetaprimeError, match=rf"x: 1 x {kind}, refused by task\.invalid: {invalid}\nx:3: wrong\n"):
            settle(reading, invalid)


def test_one_message_counts_by_kind_and_shows_different_places() -> None:
    problems = [Problem("unmapped type", f"x:{n}", "DATE", True) for n in range(500)]
    problems += [Problem("malformed line", f"x:{n}", f"line {n}", True) for n in range(500, 506)]
    problems += [Problem("invalid tag sequence", "x:9", "mended")]
    with pytest.raises(MetaprimeError) as error:
        settle(Reading([SENTENCE], problems, "x"), "repair")
    assert str(error.value).split("\n") == [
        "x: 500 x unmapped type, 6 x malformed line, refused by task.invalid: repair",
        "x:0: DATE (and 499 more like it)",
        *[f"x:{n}: line {n}" for n in range(500, 504)],
        "and 2 more",
        "correct them, or set task.invalid: drop to leave 506 of 507 sentences out",
    ]


def test_a_repair_and_a_drop_are_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        settle(Reading([SENTENCE], [Problem("invalid tag sequence", "x:9", "I-PER")], "x"), "repair")
        settle(Reading([SENTENCE], [Problem("unknown tag", "x:9", "?", True)], "x"), "drop")
    assert caplog.messages == [
        "x: 1 x invalid tag sequence: repaired; x:9: I-PER",
        "x: 1 x unknown tag: 1 of 2 sentences dropped; x:9: ?",
    ]


def test_what_only_informs_is_refused_by_no_policy() -> None:
    assert {
        *("other scheme", "row without tokens", "byte order mark"),
        *("chosen columns", "chosen sentences", "language prefix"),
    } == NOTICES


def test_a_notice_is_told_once_for_all_files_alike(caplog: pytest.LogCaptureFixture) -> None:
    told: set[str] = set()
    with caplog.at_level(logging.WARNING):
        for place, texts in (("x", ("a", "b")), ("y", ("b", "c")), ("z", ("a", "c"))):
            notices = [Problem("chosen columns", place, text) for text in texts]
            settle(Reading([SENTENCE], notices, place), "error", told)
        settle(Reading([SENTENCE], [Problem("chosen columns", "x", "a")] * 2, "x"), "error")
    assert caplog.messages == ["x: a", "x: b", "y: c", "x: a (2 in all)"]


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(MetaprimeError, match=r"^x: no sentence in it; give a file with"):
        settle(Reading([], [], "x"), "drop")
    with pytest.raises(MetaprimeError, match=r"^x: no sentence left; correct the file"):
        settle(Reading([], [Problem("unknown tag", "x:9", "?", True)], "x"), "drop")


def test_a_message_has_room_for_a_piece_of_a_long_line() -> None:
    assert shown("a\tb\u2028") == r"'a\tb\u2028'"
    assert shown("x" * 10_000_000) == f"'{'x' * 80}'..."
