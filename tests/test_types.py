"""The shared vocabulary: names of values, sections that refuse mistakes, and constants that other code relies on."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch
from pydantic import Field, ValidationError
from torch import nn

from metaprime.tasks.head import LinearHead
from metaprime.types import (
    BESIDE_SLOT,
    HIDDEN,
    IGNORE,
    NOISE,
    PREFIX_SLOT,
    Drawn,
    Episodes,
    MetaprimeError,
    Params,
    Scalar,
    Section,
    State,
    add_prefix,
    settle_scalars,
    strip_prefix,
    trainable,
)


class Sizes(Section):
    """A section with one number and one range."""

    width: int = 4
    share: float = 0.5


VALUES: Params = {
    "adapter.0.weight": torch.ones(2, 3),
    "adapter.0.index": torch.arange(2),
    "adapter.chosen": torch.tensor([True, False]),
    "head.bias": torch.zeros(3, dtype=torch.bfloat16),
}


def test_only_floating_point_values_are_trainable() -> None:
    found = trainable(VALUES)
    assert list(found) == ["adapter.0.weight", "head.bias"]
    # Values are passed on, not copied: an optimizer moves the caller's tensors.
    assert all(found[name] is VALUES[name] for name in found)
    assert trainable({}) == {}


def test_a_prefix_comes_off_whole_path_parts_only() -> None:
    values = {name: torch.zeros(()) for name in ("head.bias", "head.a.head.b", "header.bias", "a.head.bias", "head")}
    found = strip_prefix("head", values)
    assert list(found) == ["bias", "a.head.b"]
    assert found["bias"] is values["head.bias"]
    assert strip_prefix("head.a", values) == {"head.b": values["head.a.head.b"]}
    assert strip_prefix("absent", values) == {}


def test_a_prefix_is_added_to_every_name() -> None:
    bias = torch.zeros(3)
    found = add_prefix("adapter.0", {"bias": bias, "inner.weight": bias})
    assert list(found) == ["adapter.0.bias", "adapter.0.inner.weight"]
    assert found["adapter.0.bias"] is bias
    assert add_prefix("head", {}) == {}


@pytest.mark.parametrize("path", ["adapter", "adapter.0", "head"])
def test_adding_a_prefix_is_undone_by_stripping_it(path: str) -> None:
    assert strip_prefix(path, add_prefix(path, VALUES)) == VALUES
    below = strip_prefix(path, VALUES)
    assert add_prefix(path, below) == {name: value for name, value in VALUES.items() if name.startswith(f"{path}.")}


def test_a_section_cannot_be_changed() -> None:
    sizes = Sizes()
    with pytest.raises(ValidationError, match="frozen"):
        sizes.width = 8
    assert sizes == Sizes(width=4, share=0.5)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"widht": 8}, "widht\n.*Extra inputs are not permitted"),
        ({"share": float("inf")}, "share\n.*finite number"),
        ({"share": float("nan")}, "share\n.*finite number"),
        ({"width": "many"}, "width\n.*valid integer"),
    ],
)
def test_a_section_refuses_unknown_keys_and_numbers_that_are_not_finite(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Sizes(**keys)


def test_a_module_is_drawn_if_it_has_initial_values() -> None:
    assert isinstance(LinearHead(8, 3), Drawn)
    assert not isinstance(nn.Linear(2, 2), Drawn)


def test_ignored_labels_are_those_that_cross_entropy_skips() -> None:
    logits_NC = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    labels_N = torch.tensor([1, IGNORE, 3])
    kept_N = labels_N != IGNORE
    loss = nn.functional.cross_entropy(logits_NC, labels_N)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(logits_NC[kept_N], labels_N[kept_N]))


def test_keys_and_slots_have_names_of_their_own() -> None:
    """A batch is flattened key by key, and slots are attributes of the encoder's modules."""
    batch = ("input_ids", "attention_mask", "labels", "token_type_ids", HIDDEN, NOISE)
    assert len(set(batch)) == len(batch)
    assert PREFIX_SLOT != BESIDE_SLOT
    assert not any(hasattr(nn.Module(), slot) for slot in (PREFIX_SLOT, BESIDE_SLOT, NOISE))


def test_episodes_and_states_start_without_lengths_and_rates_and_cannot_be_changed() -> None:
    episodes = Episodes(("qaa",), (0,), 1, (), {"input_ids": torch.zeros(1, 2, 3)})
    assert episodes.lengths == ()
    one, other = State({}, {}, {}), State({}, {}, {})
    assert one.rates == {}
    # Each state has a dictionary of its own.
    one.rates["rates.0.head"] = torch.zeros(())
    assert other.rates == {}
    for value, name in ((episodes, "total"), (one, "head")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)


def test_the_error_of_users_is_no_programming_error() -> None:
    """Commands catch only this class, and it derives from no other error class that code may catch."""
    assert MetaprimeError.__bases__ == (Exception,)
    assert str(MetaprimeError("config: unknown key inner.stepz")) == "config: unknown key inner.stepz"


def test_importing_the_vocabulary_loads_neither_torch_nor_numpy() -> None:
    code = "import sys, metaprime.types; print({'torch', 'numpy', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


class Inner(Section):
    """A section inside another one."""

    names: tuple[str, ...] = ()
    anything: dict[str, Any] = Field(default_factory=dict)


class Outer(Section):
    """A section with every kind of key that holds text."""

    name: str = ""
    maybe: str | None = None
    number: float | None = None
    pairs: tuple[tuple[str, str], ...] = ()
    named: dict[str, str] = Field(default_factory=dict)
    inner: Inner = Inner()
    several: tuple[Inner | str, ...] = ()


ZEROES, NOTHING = Scalar("010", 10), Scalar("~", None)


def test_a_section_settles_scalars_by_the_types_of_its_keys() -> None:
    inner = {"names": [ZEROES, NOTHING], "anything": {"a": [ZEROES, NOTHING], "b": "x"}}
    settled = Outer.model_validate(
        {
            **{"name": ZEROES, "maybe": NOTHING, "number": ZEROES, "pairs": [[ZEROES, NOTHING]]},
            **{"named": {"a": ZEROES, "b": NOTHING}, "inner": inner, "several": [inner, ZEROES]},
        }
    )
    right = Inner(names=("010", "~"), anything={"a": [10, None], "b": "x"})
    assert settled == Outer(
        name="010",
        maybe=None,
        number=10.0,
        pairs=(("010", "~"),),
        named={"a": "010", "b": "~"},
        inner=right,
        several=(right, "010"),
    )
    assert Outer.model_validate({"maybe": ZEROES, "number": NOTHING}) == Outer(maybe="010")


def test_values_that_are_not_written_are_not_turned_into_text() -> None:
    for value in (10, None, True):
        with pytest.raises(ValidationError, match="should be a valid string"):
            Outer.model_validate({"name": value})
        assert settle_scalars(value, str) is value
    with pytest.raises(ValidationError, match="should be a valid string"):
        Outer.model_validate({"name": Scalar("", None)})


def test_a_scalar_equals_its_value_and_shows_its_text() -> None:
    assert ZEROES == 10 == Scalar("10", 10)
    assert Scalar("010", 8) != ZEROES
    assert hash(ZEROES) == hash(10)
    assert repr([ZEROES, NOTHING]) == "[010, ~]"
