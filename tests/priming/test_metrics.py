"""What a meta-step leaves in metrics.jsonl and on the display."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from toy_config import MakeConfig

from metaprime.config.sections import Config
from metaprime.meta import Outcome
from metaprime.priming.metrics import metrics, note
from metaprime.priming.prime import prime
from metaprime.priming.setup import set_up
from metaprime.runs.flops import Spent
from metaprime.runs.log import read_metrics

QUICK = ("outer.validate_every=0", "outer.steps=2")


def test_one_line_of_metrics_for_each_step(primed_run: Config) -> None:
    lines = read_metrics(Path(primed_run.run.output))
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    assert ["validation_f1" in line for line in lines] == [True, True, True, False, True]
    before, *lines = lines
    assert before == {"step": 0, "validation_f1": before["validation_f1"], "best_step": 0}
    for line in lines:
        assert len(line["languages"]) == 2
        assert set(line["languages"]) <= {"qaa", "qaf"}
        assert all(
            line[key] > 0 for key in ("query_loss", "support_loss_before", "support_loss_after", "gradient_norm")
        )
        assert line["subwords"] > 0
        assert set(line["volatile"]) == ({"seconds", "flops"} if line is lines[0] else {"seconds"})
    assert [line["lr"] for line in lines] == pytest.approx([1e-3, 0.75e-3, 0.5e-3, 0.25e-3])


def test_a_line_holds_the_means_over_the_meta_batch(tiny: MakeConfig, tmp_path: Path) -> None:
    run = set_up(tiny(tmp_path / "run", *QUICK, "episodes.per_step=4", "inner.support=same"), Accelerator())
    support = torch.tensor([[2.0, 1.0], [1.0, 2.0], [3.0, 1.0], [1.0, 1.0]])
    outcome = Outcome({}, {}, {}, torch.tensor([1.0, 2.0, 3.0, 6.0]), support)
    expected = {
        "step": 6,
        "languages": run.sampler.languages_of(5),
        "query_loss": 3.0,
        "gradient_norm": 0.5,
        # Before the first step, the peak.
        "lr": 1e-3,
        "subwords": 90,
        "volatile": {"seconds": 0.1},
        "support_loss_before": 1.75,
        "support_loss_after": 1.25,
        "support_falls": 0.5,
    }
    assert metrics(run, 5, outcome, 0.5, Spent(90, None), 0.1) == expected
    run.guards.slow_down(2)
    counted = metrics(run, 5, outcome, 0.5, Spent(90, 7), 0.1)
    assert counted == {**expected, "volatile": {"seconds": 0.1, "flops": 7}, "outer_halvings": 2}


def test_a_learner_without_an_inner_loop_has_no_support_loss(tiny: MakeConfig, tmp_path: Path) -> None:
    run = set_up(tiny(tmp_path / "run", *QUICK, "learner.name=multitask", "outer.head=reset"), Accelerator())
    outcome = Outcome({}, {}, {}, torch.ones(2), torch.ones(2, 2))
    line = metrics(run, 0, outcome, 0.5, Spent(90, None), 0.1)
    assert not [key for key in line if key.startswith("support")]


def test_a_note_names_the_tasks_own_metric() -> None:
    line = {"query_loss": 1.23456, "validation_f1": 45.67, "best_step": 3}
    assert note(line, "F1") == "query loss 1.235  held-out F1 45.7"
    assert note({"query_loss": 1.0}, "F1") == "query loss 1.000"


def test_an_inner_loop_that_does_not_lower_the_support_loss_is_shown(
    tiny: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, lr, falls in (("small", "inner.lr=1e-9", False), ("good", "inner.lr=0.3", True)):
        prime(tiny(tmp_path / name, *QUICK, lr, "outer.adapter=reset", "inner.steps=4", "inner.support=same"))
        shown = capsys.readouterr().err
        for line in read_metrics(tmp_path / name):
            fell = line["support_loss_after"] < line["support_loss_before"]
            said = f"support {line['support_loss_before']:.3f} -> {line['support_loss_after']:.3f}"
            assert (f"{said} (not falling)" in shown) == (not fell)
            assert 0 <= line["support_falls"] <= 1
            if falls:
                assert line["support_falls"] == 1
    curve = {"query_loss": 1.0, "support_loss_before": 1.2, "support_loss_after": 1.31}
    assert note(curve | {"support_falls": 0.25}, "F1").endswith("support 1.200 -> 1.310 (not falling)")
    assert note(curve, "F1").endswith("support 1.200 -> 1.310")
    prime(tiny(tmp_path / "single", *QUICK, "inner.steps=1"))
    # Of one step nothing can be said.
    assert "not falling" not in capsys.readouterr().err
    assert all("support_falls" not in line for line in read_metrics(tmp_path / "single"))


def test_losses_of_different_sentences_are_not_compared(tiny: MakeConfig, tmp_path: Path) -> None:
    """Fresh sentences can be harder than those before; what is compared is a batch with itself."""
    prime(tiny(tmp_path / "run", *QUICK, "inner.support=fresh"), quiet=True)
    lines = read_metrics(tmp_path / "run")
    assert all("support_falls" not in line for line in lines)
    assert [line["step"] for line in lines if "same_support_before" in line] == [1]
    rising = {"query_loss": 1.0, "support_loss_before": 1.2, "support_loss_after": 1.31}
    assert "not falling" not in note(rising | {"same_support_before": 1.2, "same_support_after": 0.9}, "F1")
    assert note(rising | {"same_support_before": 1.2, "same_support_after": 1.2}, "F1").endswith("(not falling)")
