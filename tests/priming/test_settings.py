"""Which combinations cannot be primed with, and the inner loop that the others ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_config import MakeConfig, Parts

from metaprime.config.loading import override
from metaprime.config.sections import Config
from metaprime.meta import LEARNERS, Way
from metaprime.priming.prime import prime
from metaprime.priming.settings import Sections, check_sections, inner_loop, shared_way
from metaprime.priming.starts import starting_rules
from metaprime.types import MetaprimeError


def sections_of(config: Config) -> Sections:
    return Sections(config.learner, config.inner, config.outer, config.peft)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("inner.steps=0",), r"^inner\.steps must be at least 1 for learner\.name 'peft_maml'"),
        (("peft={method: full}",), r"^peft\.method 'full' has no adapter for learner\.name 'peft_maml'"),
        (
            ("learner.name=reptile", "inner.learn_rates=true"),
            r"^inner\.learn_rates: learner\.name 'reptile' with backend torch has no inner rates to learn",
        ),
        (("learner.name=multitask", "inner.learn_rates=true"), r"'multitask' with backend torch has no inner rates"),
        (("learner.backend=learn2learn", "inner.learn_rates=true"), r"with backend learn2learn has no inner rates"),
        (("inner.compile=true", "inner.batched=false"), r"^inner\.compile needs inner\.batched: true"),
        (("inner.compile=true", "learner.backend=learn2learn"), r"^inner\.compile needs .* learner\.backend: torch"),
        (
            ("learner.name=reptile", "inner.order=second"),
            r"^inner\.order second: learner\.name 'reptile' cannot differentiate through its inner loop",
        ),
    ],
)
def test_what_cannot_be_combined_is_refused_by_the_key_to_change(
    tiny: MakeConfig, tmp_path: Path, changes: tuple[str, ...], message: str
) -> None:
    config = tiny(tmp_path / "run", "peft={method: head}", *changes)
    with pytest.raises(MetaprimeError, match=message):
        check_sections(sections_of(config))


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("learner.name=multitask", "inner.steps=0", "peft={method: head}", "peft={method: full}"),
        ("inner.learn_rates=true", "inner.order=second", "inner.compile=true"),
        ("learner.name=maml", "inner.order=second"),
    ],
    ids=lambda changes: " ".join(changes),
)
def test_what_can_be_combined_is_not(tiny: MakeConfig, tmp_path: Path, changes: tuple[str, ...]) -> None:
    check_sections(sections_of(tiny(tmp_path / "run", *changes)))


@pytest.mark.parametrize(
    ("changes", "moves", "outer", "carry"),
    [
        ((), ("adapter", "head"), ("backbone", "adapter", "head"), False),
        (("outer.adapter=carry_one",), ("adapter", "head"), ("backbone", "head"), True),
        (("outer.adapter=reset", "outer.head=keep"), ("adapter", "head"), ("backbone",), False),
        (("learner.name=anil",), ("head",), ("backbone", "adapter", "head"), False),
        (("learner.name=multitask_peft", "outer.head=reset"), (), ("adapter", "head"), False),
    ],
    ids=lambda changes: " ".join(changes) if isinstance(changes, tuple) else str(changes),
)
def test_the_inner_loop_moves_what_the_learner_says_and_learns_what_the_rules_say(
    parts: Parts, changes: tuple[str, ...], moves: tuple[str, ...], outer: tuple[str, ...], carry: bool
) -> None:
    asked = sections_of(override(parts.config, *changes))
    inner = inner_loop(asked, parts.model, parts.state, starting_rules(asked.learner.value, asked.outer))
    assert (inner.moves, inner.outer, inner.carry) == (moves, outer, carry)
    assert (inner.lr, inner.optimizer, inner.clip, inner.second_order) == (0.3, "sgd", None, False)
    assert (inner.select, inner.project) == (None, None)


def test_the_execution_is_the_fastest_that_is_asked_for(parts: Parts) -> None:
    one_pass, one_by_one = (parts.model.variant(supports_one_pass=able) for able in (True, False))
    padded = "by this test"
    assert shared_way(LEARNERS["peft_maml"], one_pass) is Way.ONE_PASS
    assert shared_way(LEARNERS["peft_maml"], one_pass.variant(padded=padded)) is Way.ONE_PASS
    # Each episode has a theta of its own, or the method's modules cannot share a pass.
    for learner, model in (("maml", one_pass), ("peft_maml", one_by_one)):
        assert shared_way(LEARNERS[learner], model) is Way.LOOP
        assert shared_way(LEARNERS[learner], model.variant(padded=padded)) is Way.VMAP
    for changes, way, chunk in (
        ((), Way.ONE_PASS, None),
        (("inner.task_chunk=3",), Way.ONE_PASS, 3),
        (("inner.batched=false",), Way.LOOP, None),
        (("learner.backend=learn2learn",), Way.LOOP, None),
    ):
        asked = sections_of(override(parts.config, "inner.micro_batch=2", *changes))
        rules = starting_rules(asked.learner.value, asked.outer)
        execution = inner_loop(asked, one_pass, parts.state, rules).execution
        assert (execution.way, execution.chunk, execution.micro) == (way, chunk, 2)


@pytest.mark.parametrize("wrong", ["inner.optimizer=adam", "inner.clip=0.5"])
def test_learn2learn_knows_plain_sgd_alone(parts: Parts, wrong: str) -> None:
    asked = sections_of(override(parts.config, "learner.backend=learn2learn", wrong))
    with pytest.raises(MetaprimeError, match=r"supports only plain SGD: use inner\.optimizer: sgd without inner\.clip"):
        inner_loop(asked, parts.model, parts.state, starting_rules(asked.learner.value, asked.outer))


@pytest.mark.parametrize("wrong", ["outer.adapter=carry_one", "outer.head=carry_mean", "learner.name=multitask"])
def test_learn2learn_says_what_it_cannot_do_before_anything_is_written(
    tiny: MakeConfig, tmp_path: Path, wrong: str
) -> None:
    with pytest.raises(MetaprimeError, match="learn2learn"):
        prime(tiny(tmp_path / "run", "learner.backend=learn2learn", wrong))
    assert not (tmp_path / "run").exists()
