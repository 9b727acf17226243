"""Rates by kind of encoder: what a config leaves null is filled, what it gives stays, what is far above is said."""

from __future__ import annotations

import pytest

from metaprime.config.loading import load_config
from metaprime.config.presets import EMBEDDED, Kind, preset_of, pretrain_rate
from metaprime.peft import METHODS

MINILM, BASE = Kind(384, embedded=False), Kind(768, embedded=False)


def test_the_embedded_encoder_has_the_rates_that_the_recorded_results_were_made_with() -> None:
    config = load_config().at_rates(EMBEDDED, EMBEDDED)
    assert (config.inner.lr, config.outer.lr, config.transfer.lr) == (0.1, 2e-3, (1e-2, 3e-3, 3e-2))
    assert (config.outer.adapter_lr, config.outer.head_lr, config.transfer.head_lr) == (None, None, None)
    assert config.transfer.method_lr is None
    assert config.encoder.pretrain.lr == 2e-3


def test_a_pretrained_encoder_shares_no_outer_rate_with_it() -> None:
    config = load_config().at_rates(MINILM, MINILM)
    assert config.outer.rate <= 2e-3 / 10
    assert config.transfer.method_lr is not None
    assert set(config.transfer.method_lr) == set(METHODS)
    assert all(len(rates) == 1 for rates in config.transfer.all_rates)
    full, lora = (config.transfer.rates(METHODS[name].config()) for name in ("full", "lora"))
    assert full[0] < lora[0]


def test_wider_encoders_have_lower_rates_and_that_is_said() -> None:
    narrow, wide = (load_config().at_rates(kind, kind) for kind in (MINILM, BASE))
    assert wide.outer.rate == narrow.outer.rate / 2
    assert load_config().remarks_on_rates(MINILM, MINILM) == []
    (remark,) = load_config().remarks_on_rates(BASE, BASE)
    assert remark.startswith("rates of an encoder of width 768 were not measured")
    given = load_config(None, ["outer.lr=1e-5", "inner.lr=0.1"])
    assert given.remarks_on_rates(BASE, BASE) == []


def test_a_section_with_a_rate_of_its_own_keeps_all_its_rates() -> None:
    config = load_config(None, ["outer.lr=5e-5", "transfer.lr=1e-3"]).at_rates(MINILM, MINILM)
    assert (config.outer.lr, config.outer.adapter_lr, config.outer.head_lr) == (5e-5, None, None)
    assert (config.transfer.lr, config.transfer.method_lr, config.transfer.head_lr) == ((1e-3,), None, None)
    assert config.inner.lr == preset_of(MINILM, {}).inner["lr"]


def test_a_method_may_have_rates_of_its_own() -> None:
    both = ["transfer.lr=1e-3", "transfer.method_lr={ia3: 3e-2}"]
    settings = load_config(None, both).at_rates(MINILM, MINILM).transfer
    assert settings.rates(METHODS["ia3"].config()) == (3e-2,)
    assert settings.rates(METHODS["lora"].config()) == (1e-3,)
    measured = load_config(None, both[1:]).at_rates(MINILM, MINILM).transfer
    assert measured.rates(METHODS["ia3"].config()) == (3e-2,)
    assert measured.rates(METHODS["lora"].config()) == (METHODS["lora"].rate,)


def test_records_have_the_rates_of_their_method_alone() -> None:
    config = load_config(None, ["transfer.methods=[lora, full]"]).at_rates(MINILM, MINILM)
    rates = {label: values["transfer"]["lr"] for label, values in config.by_method().items()}
    assert rates == {"lora": [METHODS["lora"].rate], "full": [METHODS["full"].rate]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("outer.lr=2e-3", "outer.lr 0.002 is 20 times the preset for encoders of this kind (0.0001)"),
        ("inner.lr=5", "inner.lr 5 is 50 times"),
        ("transfer.lr=0.6", "transfer.lr of head 0.6 is 20 times"),
    ],
)
def test_rates_far_above_the_measured_ones_are_said_before_a_run(change: str, words: str) -> None:
    remarks = load_config(None, [change]).remarks_on_rates(MINILM, MINILM)
    assert any(remark.startswith(words) for remark in remarks), remarks
    assert all("leave " in remark for remark in remarks)


def test_the_pre_training_rate_falls_with_the_width() -> None:
    assert [pretrain_rate(hidden) for hidden in (32, 128, 256, 512)] == [2e-3, 2e-3, 1e-3, 5e-4]
