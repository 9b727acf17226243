"""A dry run makes the checks of priming and of the transfers that would start from it, and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_config import MakeConfig

from metaprime.config.loading import override
from metaprime.config.sections import Config
from metaprime.preflight.dry_run import DryRun
from metaprime.types import MetaprimeError


def test_a_config_without_a_mistake_has_no_refusals_and_leaves_nothing(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny(tmp_path / "run")
    assert DryRun(config).refusals() == []
    # Priming will learn the adapter and the head.
    assert DryRun(override(config, "transfer.start_adapter=primed", "transfer.start_head=primed")).refusals() == []
    small = "encoder.pretrain={layers: 1, hidden: 16, heads: 2, vocabulary: 400}"
    assert DryRun(override(config, "encoder.name=synthetic:", small)).refusals() == []
    assert not (tmp_path / "run").exists()


def test_mistakes_of_both_commands_are_listed_with_the_command(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", "data.languages=[xx]", "data.target_languages=[yy]")
    prime, transfer = DryRun(config).refusals()
    assert prime.startswith("prime: data.languages: synthetic: has no language 'xx'")
    assert transfer.startswith("transfer: data.target_languages: synthetic: has no language 'yy'")
    (reset,) = DryRun(tiny(tmp_path / "run", "transfer.start_adapter=primed", "outer.adapter=reset")).refusals()
    assert reset.startswith("transfer: transfer.start_adapter: the encoder was primed with outer.adapter reset")


def test_a_run_that_is_there_may_be_validated_and_another_may_not(primed_run: Config, tiny: MakeConfig) -> None:
    assert DryRun(primed_run).refusals() == []
    with pytest.raises(MetaprimeError, match=r"holds another run(.|\n)*inner\.lr: 0\.3 -> 0\.4"):
        DryRun(override(primed_run, "inner.lr=0.4")).refusals()
