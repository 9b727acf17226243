"""Our meta-step against the one computed with the real learn2learn package."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from inner_loops import changed
from torch.nn.attention import SDPBackend, sdpa_kernel

from metaprime.build.model import build_model
from metaprime.data.episodes import EpisodeSampler, EpisodeShape
from metaprime.data.readers import synthetic
from metaprime.data.rows import Lengths
from metaprime.data.subwords import Subwords
from metaprime.interop import learn2learn
from metaprime.meta import LEARNERS, InnerLoop, Way
from metaprime.meta.maml import step as maml_step
from metaprime.models.encoder import load_encoder
from metaprime.models.task_model import TaskModel, functional_loss, partition
from metaprime.peft import METHODS
from metaprime.priming.starts import Starts
from metaprime.rng import torch_stream
from metaprime.tasks import TASKS
from metaprime.tasks.tagging.task import TaggingConfig
from metaprime.tasks.task import Text
from metaprime.types import Episodes, Loss, MetaprimeError, Params

T = 2
SETTINGS = InnerLoop(lr=0.1, outer=("backbone", "adapter", "head"))


@pytest.fixture
def package() -> None:
    """The real package, or a skip with its reason; where METAPRIME_REQUIRE_LEARN2LEARN is set, a failure."""
    if not learn2learn.installed():
        if os.environ.get("METAPRIME_REQUIRE_LEARN2LEARN"):
            pytest.fail("learn2learn is required here and not installed: run `make learn2learn`")
        pytest.skip("learn2learn is not installed (`make learn2learn` installs it)")


def parts(folder: Path, method: str, attention: str) -> tuple[TaskModel, Loss, Episodes]:
    encoder = load_encoder(str(folder), attention)
    text = Text(Subwords(encoder.tokenizer), Lengths(64))
    task = TASKS["tagging"].build(TaggingConfig(labels=("PER", "ORG", "LOC")), text)
    pools = {name: task.encode(synthetic.read("", name, "train")[:30]) for name in ("qaa", "qaf")}
    model = build_model(encoder, task, METHODS[method].config(), pools["qaa"])
    shape = EpisodeShape(episodes=T, support=2, steps=3, query=3, tau=0)
    batch = EpisodeSampler(pools, shape, seed=1).meta_batch(0, range(T), task.collate)
    return model, functional_loss(model, task.loss), batch


def random_start(model: TaskModel) -> Params:
    rules = {"adapter": "reset", "head": "reset"}
    values = Starts(model, partition(model), rules, seed=0).values(step=0, indices=range(T))
    draw = torch_stream(0, "start")
    own = next(model.parameters()).dtype
    return {name: (value + 0.2 * torch.randn(value.shape, generator=draw)).to(own) for name, value in values.items()}


KINDS = [
    *(("peft_maml", method, attention) for method in ("pfeiffer", "prefix", "lora") for attention in ("sdpa", "eager")),
    *((learner, "pfeiffer", "sdpa") for learner in learn2learn.LEARNERS_HERE if learner != "peft_maml"),
    ("maml", "prefix", "eager"),
]


@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize(("learner", "method", "attention"), KINDS)
@pytest.mark.usefixtures("package")
def test_both_backends_compute_the_same(
    toy_bert: Path, learner: str, method: str, attention: str, second_order: bool
) -> None:
    model, loss, batch = parts(toy_bert, method, attention)
    inner = LEARNERS[learner].inner
    # Priming loops there as well.
    way = Way.LOOP if second_order and "backbone" in inner else Way.VMAP
    settings = changed(SETTINGS, moves=inner, second_order=second_order, way=way)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        model.to(dtype)
        theta, start = partition(model, unused=("pooler.",)).backbone, random_start(model)
        ours = LEARNERS[learner].step(loss, theta, start, batch, settings)
        with sdpa_kernel(SDPBackend.MATH):
            theirs = learn2learn.step_of(learner)(loss, theta, start, batch, settings)
        assert set(ours.gradients) == set(theirs.gradients) == {*theta, *start}
        largest = max(float(gradient.abs().max()) for gradient in ours.gradients.values())
        assert largest > 1e-2
        for name, gradient in theirs.gradients.items():
            assert float((ours.gradients[name] - gradient).abs().max()) < tolerance * max(1.0, largest), name
        torch.testing.assert_close(theirs.query_loss, ours.query_loss, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(theirs.support_loss, ours.support_loss, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("package")
def test_the_learners_and_the_orders_are_not_the_same(toy_bert: Path) -> None:
    """Or the comparison above would not tell one from another."""
    model, loss, batch = parts(toy_bert, "pfeiffer", "eager")
    model.double()
    theta, start = partition(model, unused=("pooler.",)).backbone, random_start(model)
    name = "backbone.encoder.layer.0.attention.self.value.weight"
    found = [
        learn2learn.step(
            loss, theta, start, batch, changed(SETTINGS, moves=LEARNERS[learner].inner, second_order=second_order)
        ).gradients[name]
        for learner in learn2learn.LEARNERS_HERE
        for second_order in (False, True)
    ]
    for one, other in itertools.combinations(found, 2):
        assert float((one - other).norm() / other.norm()) > 1e-3


@pytest.mark.usefixtures("package")
def test_a_slice_of_the_meta_batch_lands_at_its_places(toy_bert: Path) -> None:
    model, loss, batch = parts(toy_bert, "lora", "eager")
    theta = partition(model, unused=("pooler.",)).backbone
    second = Episodes(
        languages=batch.languages[1:],
        indices=(1,),
        total=T,
        support=tuple({name: value[1:] for name, value in tensors.items()} for tensors in batch.support),
        query={name: value[1:] for name, value in batch.query.items()},
    )
    start = {name: value[1:] for name, value in random_start(model).items()}
    ours = maml_step(loss, theta, start, second, SETTINGS)
    theirs = learn2learn.step(loss, theta, start, second, SETTINGS)
    torch.testing.assert_close(theirs.query_loss, ours.query_loss)
    torch.testing.assert_close(theirs.gradients, ours.gradients, rtol=1e-5, atol=1e-6)
    assert theirs.query_loss[0] == 0
    assert theirs.query_loss[1] > 0


def test_a_learner_it_cannot_compute_is_refused() -> None:
    with pytest.raises(MetaprimeError, match=r"computes peft_maml, .* only, not 'multitask'"):
        learn2learn.step_of("multitask")


def test_carried_values_are_refused(toy_bert: Path) -> None:
    model, loss, batch = parts(toy_bert, "lora", "eager")
    settings = changed(SETTINGS, carry=True)
    with pytest.raises(MetaprimeError, match=r"does not carry adapted values: set outer\.adapter and outer\.head"):
        learn2learn.step(loss, partition(model).backbone, random_start(model), batch, settings)


@pytest.mark.parametrize("changes", [{"optimizer": "adam"}, {"clip": 1.0}])
def test_another_inner_loop_than_plain_sgd_is_refused(toy_bert: Path, changes: dict[str, Any]) -> None:
    model, loss, batch = parts(toy_bert, "lora", "eager")
    with pytest.raises(MetaprimeError, match=r"plain SGD: set inner\.optimizer to sgd and inner\.clip to null"):
        learn2learn.step(loss, partition(model).backbone, random_start(model), batch, changed(SETTINGS, **changes))


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found: Callable[..., object] = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: found(name, *rest) if name != "learn2learn" else None
    )
    assert not learn2learn.installed()
    with pytest.raises(MetaprimeError, match="not installed; run `make learn2learn`"):
        learn2learn.step_of("peft_maml")


@pytest.mark.usefixtures("package")
def test_nothing_of_the_package_stays_behind() -> None:
    learn2learn.step_of("peft_maml")
    assert [name for name in sys.modules if name.split(".")[0] == "learn2learn"] == []


def test_importing_interop_does_not_import_the_package() -> None:
    program = (
        "import sys, metaprime.interop, metaprime.interop.learn2learn as backend\n"
        "backend.installed()\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('learn2learn', 'gym', 'torchvision')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
