"""What `metaprime peft list` and `show` say, against counts and places taken from the encoder itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModel

from metaprime.config.loading import load_config
from metaprime.peft import METHODS
from metaprime.preflight.methods import COUNTS, METHOD_HEADER, list_rows, show
from metaprime.types import MetaprimeError

D, FFN, LAYERS, TAGS = 32, 64, 2, 7


def counts(encoder: Path) -> dict[str, list[str]]:
    return {row[0]: row[len(METHOD_HEADER) :] for row in list_rows(str(encoder))}


def test_every_method_is_listed_with_its_size(toy_bert: Path) -> None:
    found = counts(toy_bert)
    assert list(found) == list(METHODS)
    last = [f"{TAGS * (D + 1):,}", "packed"]
    assert found["pfeiffer"] == [f"{LAYERS * (2 * D * 48 + 48 + D):,}"] * 2 + last
    assert found["ia3"] == [f"{LAYERS * (2 * D + FFN):,}"] * 2 + last
    assert found["head"] == ["0", "0", *last]
    sizes = {name: value.numel() for name, value in AutoModel.from_pretrained(toy_bert).named_parameters()}
    moved = sum(count for name, count in sizes.items() if not name.startswith("pooler."))
    assert found["full"] == [f"{moved:,}", f"{sum(sizes.values()):,}", *last]
    assert all(len(row) == len(METHOD_HEADER) for row in list_rows(None))


def test_an_encoder_that_stays_padded_says_why(toy_encoder: Callable[[str], Path]) -> None:
    found = {sizes[-1] for sizes in counts(toy_encoder("deberta-v2")).values()}
    assert found == {"padded: its attention has terms of its own, outside transformers' interface"}


def test_what_does_not_fit_has_dashes(toy_encoder: Callable[[str], Path]) -> None:
    found = counts(toy_encoder("modernbert"))
    assert [name for name, sizes in found.items() if sizes == ["–"] * len(COUNTS)] == ["bitfit"]


def test_where_a_method_sits(toy_bert: Path) -> None:
    keys = [f"encoder.name={toy_bert}", "peft.method=mam", "peft.prefix.length=3"]
    size, modules = show(load_config(None, keys))
    assert {m.path: m.site for m in modules} == {
        f"{part}.{layer}{end}": f"encoder.layer.{layer}.{site}"
        for part, end, site in (("prefix", "", "attention.self"), ("scaled_parallel", ".ffn", "intermediate.dense"))
        for layer in range(LAYERS)
    }
    assert modules[0].shapes == {"keys": (4, 3, 8), "values": (4, 3, 8)}
    assert size.trained == LAYERS * (2 * 3 * D + 2 * D * 16 + 16 + D)
    assert size.head == TAGS * (D + 1)


def test_what_the_encoder_itself_calls_has_a_name_and_labels_are_the_users_own(toy_bert: Path) -> None:
    keys = [f"encoder.name={toy_bert}", "peft.method=prompt", "task.labels=[GENE]"]
    size, modules = show(load_config(None, keys))
    assert [(m.path, m.site) for m in modules] == [("prompt", "the encoder")]
    assert size.head == 3 * (D + 1)


def test_what_a_transfer_stores_of_an_mlp_is_less(toy_bert: Path) -> None:
    size, _ = show(load_config(None, [f"encoder.name={toy_bert}", "peft={method: prefix, length: 3, mlp: 50}"]))
    assert size.trained == 3 * D + (D + 1) * 50 + (50 + 1) * 2 * LAYERS * D
    assert size.stored == LAYERS * 2 * 3 * D


def test_a_method_that_does_not_fit_says_why(toy_encoder: Callable[[str], Path]) -> None:
    keys = [f"encoder.name={toy_encoder('modernbert')}", "peft.method=bitfit"]
    with pytest.raises(MetaprimeError, match="no module of this encoder has a bias"):
        show(load_config(None, keys))
