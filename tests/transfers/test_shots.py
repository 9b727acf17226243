"""Which sentences are trained on, in which batches, and which are set aside."""

from __future__ import annotations

import pytest

from metaprime.config.sections import TransferConfig
from metaprime.transfers.shots import check_shares
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
