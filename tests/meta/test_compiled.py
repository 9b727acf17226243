"""A compiled meta-step is the meta-step, whatever the lengths, from one compilation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from inner_loops import changed

from metaprime.config.sections import Config
from metaprime.meta import LEARNERS, compiled
from metaprime.meta.chunks import chunks
from metaprime.priming.prime import prime
from metaprime.priming.setup import set_up
from metaprime.priming.step import draw, subwords_processed
from metaprime.types import MetaprimeError

MakeConfig = Callable[..., Config]
"""`aot_eager` traces all that the real backend does, and generates no code: that takes minutes, and one test."""
WAYS = [
    pytest.param("pfeiffer", {}, id="pfeiffer"),
    *(
        pytest.param(method, changes, id=name, marks=pytest.mark.slow)
        for name, method, changes in (
            ("second-order", "pfeiffer", {"second_order": True}),
            ("adam", "pfeiffer", {"optimizer": "adam", "clip": 0.5, "carry": True}),
            ("lora", "lora", {}),
            ("prefix", "prefix", {}),
        )
    ),
]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(("method", "changes"), WAYS)
def test_it_is_the_meta_step_and_is_compiled_once(
    method: str, changes: dict[str, object], tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    config = tiny(tmp_path / "run", f"peft={{method: {method}}}", "inner.steps=2")
    run = set_up(config, Accelerator())
    # Adam divides by gradients near zero: in float32 their last bits show.
    run.model.double()
    drawn = [draw(run, step) for step in range(4)]
    each = sorted(max(tensors["labels"][0].numel() for tensors in (*batch.support, batch.query)) for batch in drawn)
    # Not always all episodes.
    settings = changed(run.inner, **{"subwords": 2 * each[1], "packed": False, **changes})
    plain = LEARNERS["peft_maml"].step
    fast = compiled.compiled(plain)
    shapes, sizes = set(), set()
    for step, batch in enumerate(drawn):
        start = {name: value.double() for name, value in run.starts.values(step, batch.indices).items()}
        found, expected = (each(run.loss, run.state.backbone, start, batch, settings) for each in (fast, plain))
        for part in ("gradients", "mean_fast", "last_fast", "query_loss", "support_loss"):
            torch.testing.assert_close(getattr(found, part), getattr(expected, part), rtol=1e-7, atol=1e-10)
        sizes.add(len(chunks(batch, settings)))
        shapes.add(tuple(tuple(tensors["labels"].shape) for tensors in (*batch.support, batch.query)))
    assert len(shapes) > 2
    assert len(sizes) > 1
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_what_is_compiled_works_on_all_that_is_stacked(tiny: MakeConfig, tmp_path: Path) -> None:
    run = set_up(tiny(tmp_path / "run", "inner.compile=true", "episodes.per_step=4"), Accelerator())
    batch = draw(run, 0)
    stacked = sum(tensors["labels"].numel() for tensors in (*batch.support, batch.query))
    assert subwords_processed(run, batch) == stacked
    plain = set_up(tiny(tmp_path / "plain", "inner.batched=false", "episodes.per_step=4"), Accelerator())
    assert subwords_processed(plain, draw(plain, 0)) < stacked


def test_what_cannot_be_compiled_says_so(tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "BACKEND", "eager")

    def asks(*given: object) -> object:
        batch = given[3]
        if float(batch.query["labels"].sum()) > 0:  # type: ignore[attr-defined]
            return batch
        return None

    run = set_up(tiny(tmp_path / "run"), Accelerator())
    step = compiled.compiled(asks)  # type: ignore[arg-type]
    with pytest.raises(
        MetaprimeError, match=r"inner\.compile: torch cannot compile this meta-step \(.*set it to false"
    ):
        step(lambda *_: torch.ones(()), {}, {}, draw(run, 0), run.inner)


@pytest.mark.parametrize(
    "change", ["learner.name=maml", "peft={method: hf, config: {peft_type: IA3, target_modules: [key]}}"]
)
def test_what_goes_by_vmap_or_one_by_one_is_refused(tiny: MakeConfig, tmp_path: Path, change: str) -> None:
    with pytest.raises(MetaprimeError, match=r"inner\.compile: with peft\.method .* set it to false"):
        set_up(tiny(tmp_path / "run", "inner.compile=true", change), Accelerator())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own, while it compiles
def test_a_run_with_the_real_backend_goes_as_without(tiny: MakeConfig, tmp_path: Path) -> None:
    quick = ("inner.steps=1", "outer.steps=3", "outer.validate_every=0")
    lines = {}
    for name, more in (("plain", ()), ("compiled", ("inner.compile=true",))):
        config = tiny(tmp_path / name, *quick, *more)
        prime(config, quiet=True)
        lines[name] = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
    for one, other in zip(*lines.values(), strict=True):
        plain, fast = json.loads(one), json.loads(other)
        assert fast["query_loss"] == pytest.approx(plain["query_loss"], rel=1e-4)
        assert fast["gradient_norm"] == pytest.approx(plain["gradient_norm"], rel=1e-3)
        assert fast["volatile"].get("flops") == plain["volatile"].get("flops")
