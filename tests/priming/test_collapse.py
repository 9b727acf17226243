"""What is noticed of a run that does harm, when it warns and when it stops."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from toy_config import MakeConfig, Parts

from metaprime.config.loading import override
from metaprime.meta import Execution, InnerLoop, Way
from metaprime.models.task_model import functional_loss
from metaprime.priming.collapse import ALIKE, Watch, is_due, same_support, spread
from metaprime.priming.guards import Diverged
from metaprime.priming.prime import prime
from metaprime.types import Batch, Episodes

ABOVE = float.__pos__


def watch(patience: int | None = 3, unprimed: float = 0.8) -> Watch:
    return Watch({}, unprimed, patience)


@pytest.fixture
def batch(parts: Parts) -> Batch:
    return parts.task.collate(parts.rows[:6])


def test_the_first_steps_are_checked_and_every_twentieth() -> None:
    assert [step + 1 for step in range(61) if is_due(step)] == [1, 5, 10, 20, 40, 60]


def test_the_spread_is_one_less_the_mean_cosine_of_all_pairs(parts: Parts, batch: Batch) -> None:
    with torch.no_grad():
        features = parts.model.encode(batch)[batch["attention_mask"].bool()].double()
    cosines = [
        torch.nn.functional.cosine_similarity(features[i], features[j], dim=0).item()
        for i in range(len(features))
        for j in range(len(features))
        if i != j
    ]
    assert spread(parts.model, batch) == pytest.approx(1 - sum(cosines) / len(cosines), rel=1e-6)


def test_an_encoder_that_gives_every_word_the_same_features_has_no_spread(parts: Parts, batch: Batch) -> None:
    with torch.no_grad():
        for name, parameter in parts.model.backbone.named_parameters():
            if name.startswith("encoder.layer.1.output.LayerNorm"):
                parameter.fill_(1.0 if name.endswith("bias") else 0.0)
    assert spread(parts.model, batch) == pytest.approx(0.0, abs=1e-6)


def test_the_same_support_batch_is_compared_before_and_after_plain_steps(parts: Parts, batch: Batch) -> None:
    """The reference takes the steps with torch.optim.SGD on the parameters themselves."""
    loss = functional_loss(parts.model, parts.task.loss)
    start = {name: value.detach().expand(2, *value.shape) for name, value in parts.start.items()}
    doubled = {name: torch.stack([value, value.flip(0)]) for name, value in batch.items()}
    episodes = Episodes(("qaa", "qaf"), (0, 1), 2, (doubled, doubled, doubled), doubled)
    inner = InnerLoop(lr=0.3, execution=Execution(Way.LOOP))
    before, after = same_support(loss, parts.state.backbone, start, episodes, inner)

    values = {name: value.detach().clone().requires_grad_() for name, value in parts.start.items()}
    optimizer, each = torch.optim.SGD(values.values(), lr=0.3), []
    for _ in range(3):
        each.append(loss(parts.state.backbone, values, batch))
        each[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    each.append(loss(parts.state.backbone, values, batch))
    assert before.item() == pytest.approx(each[0].item(), rel=1e-6)
    assert after.item() == pytest.approx(each[3].item(), rel=1e-5)
    assert after < before


def test_features_that_are_alike_warn_once_and_stop_after_the_patience(
    parts: Parts, batch: Batch, caplog: pytest.LogCaptureFixture
) -> None:
    now = spread(parts.model, batch)
    watched = Watch(batch, now / (ALIKE / 2), 3)
    with caplog.at_level(logging.WARNING):
        assert watched.features(parts.model, 0) == {"spread": now}
        watched.features(parts.model, 4)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "step 1: the hidden states of different words are alike, their mean cosine is "
    )
    assert record.getMessage().endswith(": lower outer.lr or inner.lr, or set outer.clip")
    with pytest.raises(Diverged, match=r"step 10: .* at 3 checks in a row; lower outer\.lr .* outer\.patience"):
        watched.features(parts.model, 9)
    healthy = Watch(batch, now, 1)
    healthy.features(parts.model, 0)
    assert healthy.bad == {"features": 0}


def test_one_good_check_ends_the_count_and_without_patience_nothing_stops() -> None:
    patient, never = watch(2), watch(None)
    for step in range(3):
        patient.support(0.5, 0.6, 2 * step)
        patient.support(0.5, 0.4, 2 * step + 1)
        never.support(0.5, 0.6, step)
    assert (patient.bad, never.bad) == ({"support": 0}, {"support": 3})


def test_a_loss_that_is_learned_already_need_not_fall() -> None:
    watched = watch(1)
    watched.support(0.01, 0.02, 0)
    with pytest.raises(Diverged, match="does not lower the loss of its own support sentences"):
        watched.support(0.5, 0.5, 1)


def test_scores_below_the_unprimed_ones_are_said_and_far_below_stop(caplog: pytest.LogCaptureFixture) -> None:
    watched = watch(2)
    with caplog.at_level(logging.WARNING):
        watched.held_out(ABOVE, (20.0, 21.0), 0)
        assert caplog.records == []
        watched.held_out(ABOVE, (20.0, 19.0), 1)
    assert [record.getMessage() for record in caplog.records] == [
        "step 2: the held-out score 19.0 is below that of the unprimed encoder, 20.0"
    ]
    watched.held_out(ABOVE, (20.0, 1.0), 2)
    with pytest.raises(Diverged, match=r"step 4: the held-out score 1\.0 is below .* at 2 checks in a row"):
        watched.held_out(ABOVE, (20.0, 1.0), 3)


def test_a_metric_that_is_better_when_lower_is_compared_so() -> None:
    watched = watch(1)
    watched.held_out(float.__neg__, (2.0, 2.5), 0)
    with pytest.raises(Diverged):
        watched.held_out(float.__neg__, (2.0, 4.0), 1)


def lines_of(output: Path) -> list[dict[str, float]]:
    return [json.loads(text) for text in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_run_at_a_rate_that_destroys_the_encoder_warns_and_stops(
    tiny: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = ("outer.lr=3", "outer.clip=null", "outer.steps=40", "outer.validate_every=0", "outer.warmup=0")
    config = tiny(tmp_path / "run", *changes, "inner.lr=0.01", "outer.divergence=null")
    with caplog.at_level(logging.WARNING), pytest.raises(Diverged, match=r"lower outer\.lr"):
        prime(config, quiet=True)
    assert any("outer.lr 3 is " in record.getMessage() for record in caplog.records)


def test_a_control_on_shuffled_tags_may_do_harm_and_is_only_recorded(
    tiny: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = ("outer.lr=3", "outer.clip=null", "outer.steps=60", "outer.validate_every=0", "outer.warmup=0")
    config = tiny(tmp_path / "run", *changes, "inner.lr=0.01", "outer.divergence=null", "task.shuffle_tags=true")
    prime(config, quiet=True)
    assert sum("spread" in line for line in lines_of(tmp_path / "run")) == 6
    assert "alike" not in caplog.text


def test_a_run_at_the_measured_rates_is_checked_and_ends(tiny: MakeConfig, tmp_path: Path) -> None:
    config = override(tiny(tmp_path / "run"), "outer.lr=null", "inner.lr=null")
    prime(config, quiet=True)
    checked = [line for line in lines_of(tmp_path / "run") if "spread" in line]
    assert [line["step"] for line in checked] == [1]
    assert checked[0]["same_support_after"] < checked[0]["same_support_before"]


@pytest.mark.parametrize("learner", ["peft_maml", "anil", "maml", "reptile", "multitask"])
def test_every_learner_is_checked(tiny: MakeConfig, tmp_path: Path, learner: str) -> None:
    prime(tiny(tmp_path / "run", f"learner.name={learner}", "outer.steps=1", "outer.validate_every=0"), quiet=True)
    (line,) = lines_of(tmp_path / "run")
    assert "spread" in line
    assert ("same_support_before" in line) == (learner != "multitask")


def test_the_checks_change_no_result(tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def weights(name: str) -> bytes:
        prime(tiny(tmp_path / name), quiet=True)
        return (tmp_path / name / "primed/model.safetensors").read_bytes()

    checked = weights("checked")
    monkeypatch.setattr("metaprime.priming.step.is_due", lambda step: False)
    assert weights("unchecked") == checked
