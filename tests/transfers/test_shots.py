"""Which sentences are trained on, in which batches, and which are set aside."""

from __future__ import annotations

import pytest

from metaprime.config.sections import TransferConfig
from metaprime.peft import METHODS
from metaprime.transfers.shots import check_shares, check_untrained
from metaprime.types import MetaprimeError

SETTINGS = TransferConfig(steps=8, batch=4, shots=8, leave_out=2)


@pytest.mark.parametrize(("share", "shots"), [(0.2, (2,)), (0.9, (50, 4)), (0.01, (10,))])
def test_a_share_that_leaves_nothing_is_refused_before_training(share: float, shots: tuple[int, ...]) -> None:
    settings = TransferConfig(stop="development", development_share=share, shots=shots)
    with pytest.raises(MetaprimeError, match=rf"development_share {share} of {shots[-1]} sentences leaves no"):
        check_shares(settings)
    check_shares(settings.model_copy(update={"stop": "fixed"}))


def test_a_split_that_chooses_the_steps_is_refused() -> None:
    with pytest.raises(MetaprimeError, match=r"a left-out sentence may be a development sentence: use stop: fixed"):
        check_shares(SETTINGS.model_copy(update={"stop": "development"}))


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(MetaprimeError, match=r"leave_out 9 exceeds K = 8 sentences: lower it"):
        check_shares(SETTINGS.model_copy(update={"leave_out": 9}))


@pytest.mark.parametrize(
    ("methods", "starts", "named"),
    [
        (("pfeiffer",), {}, "start_adapter: primed and transfer.start_head: primed"),
        (("head", "lora"), {"start_head": "primed"}, "start_adapter: primed"),
        (("pfeiffer",), {"start_adapter": "primed"}, "start_head: primed"),
        (("head",), {}, "start_head: primed"),
        (("full",), {"start_adapter": "primed"}, "start_head: primed"),
    ],
)
def test_no_sentence_needs_values_that_priming_trained(
    methods: tuple[str, ...], starts: dict[str, str], named: str
) -> None:
    configs = [METHODS[name].config() for name in methods]
    settings = TransferConfig(shots=(0, 8), **starts)
    with pytest.raises(MetaprimeError, match=rf"shots 0 .* drawn at random: set transfer\.{named} \(with .*outer\."):
        check_untrained(settings, configs)
    check_untrained(settings.model_copy(update={"shots": (8,)}), configs)
    check_untrained(settings.model_copy(update={"start_adapter": "primed", "start_head": "primed"}), configs)


def test_a_head_alone_needs_no_primed_adapter() -> None:
    for name in ("head", "full"):
        check_untrained(TransferConfig(shots=0, start_head="primed"), [METHODS[name].config()])


def test_no_sentence_has_no_development_sentence() -> None:
    check_shares(TransferConfig(stop="development", shots=(0, 10)))
