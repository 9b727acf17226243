"""A meta-step beside its peers: equal gradients packed and padded, ratios of the same round, memory by its own account."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import meta_step
import pytest
import real
import torch
from memory import peak_allocated, peak_saved
from meta_step import AUTO, CLASS, COMPILED, CONTENDERS, FLOOR, IDIOM, PADDED
from peers import Step
from problem import Problem, Shape, Size, make_problem
from timing import without_folders

from metaprime import packing

TINY = Size(layers=2, hidden=16, heads=2)
WITHOUT_PEERS = {name: make for name, make in CONTENDERS.items() if name.startswith(("ours", "floor", "deepcopy"))}


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem(Shape(2, 3, 12, 2), TINY)


def in_one_round(works: Mapping[str, Step]) -> dict[str, list[float]]:
    return {name: [1.0 + place] for place, name in enumerate(works)}


def test_all_contenders_have_the_gradient_of_padded_episodes_one_by_one(problem: Problem) -> None:
    contenders = {name: make for name, make in WITHOUT_PEERS.items() if name != COMPILED}
    found = meta_step.compare(problem, contenders, in_one_round)
    assert not found["errors"]
    # The reference is our own padded loop; the deep copies run another model with torch's own optimizer.
    assert found["gradient_error"].keys() == contenders.keys() - {FLOOR}
    assert found["gradient_error"]["deepcopy loop"] < 1e-5
    assert found["shape"] == [2, 3, 12, 2]
    assert found["to_floor"][PADDED]["middle"] == list(contenders).index(PADDED) + 1


def test_another_gradient_ends_the_benchmark(problem: Problem) -> None:
    def wrong(problem: Problem) -> Step:
        loss, gradient = CONTENDERS[AUTO](problem)()
        return lambda: (loss, {name: 1.01 * value for name, value in gradient.items()})

    with pytest.raises(AssertionError, match="wrong gives another gradient"):
        meta_step.compare(problem, {FLOOR: CONTENDERS[FLOOR], "wrong": wrong}, in_one_round)


def test_ours_packs_unless_its_name_says_otherwise(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[int] = []
    of = packing.Packing.of

    def noted(mask_BL: torch.Tensor) -> packing.Packing:
        packed.append(len(mask_BL))
        return of(mask_BL)

    monkeypatch.setattr(packing.Packing, "of", noted)
    passes = {}
    for name in (AUTO, PADDED, "ours, looped", "ours, vmapped"):
        packed.clear()
        CONTENDERS[name](problem)()
        passes[name] = list(packed)
    # Two support batches and a query: both episodes' windows in one pass, or one episode's at a time.
    assert passes == {AUTO: [6] * 3, PADDED: [], "ours, looped": [3] * 6, "ours, vmapped": []}


def test_a_meta_batch_knows_its_lengths(problem: Problem) -> None:
    batches = (*problem.batch.support, problem.batch.query)
    for batch, longest, real_ones in zip(batches, problem.batch.lengths, problem.batch.subwords, strict=True):
        mask_TBL = batch["attention_mask"]
        assert longest == (12, 12)
        assert list(real_ones) == [int(mask_BL.sum()) for mask_BL in mask_TBL]


def test_a_kept_tensor_counts_once_and_while_a_graph_needs_it() -> None:
    x = torch.ones(2**18, requires_grad=True)

    def twice() -> None:
        for _ in range(2):
            # An exponential keeps its result, a product both factors: one of them is that result, the other is `x`.
            torch.autograd.grad((x.exp() * x).sum(), x)

    # One MiB for exp(x), one for x: the second graph begins after the first one's end.
    assert peak_saved(twice) == 2
    assert peak_saved(twice, [x]) == 1


def test_what_is_allocated_is_a_peak() -> None:
    def two_at_once_of_three() -> None:
        first = torch.empty(2**18)
        second = torch.empty(2**18)
        del first, second
        torch.empty(2**18)

    assert peak_allocated(two_at_once_of_three) == pytest.approx(2, abs=0.01)


@pytest.fixture
def of_source(toy_bert: Path) -> real.Sentences:
    return real.read("synthetic:", ["qaa", "qab"], str(toy_bert))


def test_every_meta_batch_of_a_source_is_another_draw_over_equal_values(of_source: real.Sentences) -> None:
    draw = real.draws(of_source, Shape(2, 2, 0, 2))
    first, second, again = draw(0), draw(1), draw(0)
    assert first.shape.sizes == [2, 2, 2]
    assert not torch.equal(first.batch.query["input_ids"], second.batch.query["input_ids"])
    assert torch.equal(first.batch.query["input_ids"], again.batch.query["input_ids"])
    assert first.backbone is second.backbone
    # Support sentences are sorted by length within an episode: steps do not overlap.
    lengths = [batch["attention_mask"].sum(2) for batch in first.batch.support]
    shorter, longer = sorted(lengths, key=lambda lengths_TB: int(lengths_TB.sum()))
    assert (shorter.amax(1) <= longer.amin(1)).all()


def test_a_source_is_measured_beside_the_same_padded_tensors(
    of_source: real.Sentences, monkeypatch: pytest.MonkeyPatch
) -> None:
    contenders = {name: CONTENDERS[name] for name in (FLOOR, AUTO, PADDED)}
    found = meta_step.compare_real(of_source, Shape(2, 2, 0, 2), contenders, rounds=2)
    assert found["rounds"] == 2
    assert 0 < found["padding"] < 1
    # Passes as picked hold no more than all of it, and these few sub-words are one pass.
    memory = found["memory"]
    for account in ("kept for backward passes", "allocated"):
        assert memory[f"{account}, passes as picked"] == memory[f"{account}, all episodes in one pass"]
        assert all(value > 0 for value in memory[f"{account}, passes as picked"].values())


def test_an_encoder_that_the_peers_cannot_run_is_refused(toy_encoder: Any) -> None:
    sentences = real.read("synthetic:", ["qaa"], str(toy_encoder("xlm-roberta")))
    with pytest.raises(SystemExit, match="a XLMRobertaModel, the peers' model is made of a BERT"):
        real.draws(sentences, Shape(1, 2, 0, 1))


def one(shape: list[int], seconds: Mapping[str, float], **others: Any) -> dict[str, Any]:
    def around(value: float) -> dict[str, float]:
        return {"low": value, "middle": value, "high": value}

    def beside(name: str) -> dict[str, Any]:
        return {key: around(value / seconds[name]) for key, value in seconds.items()}

    return {
        "shape": shape,
        "seconds": {name: around(value) for name, value in seconds.items()},
        "to_floor": beside(FLOOR),
        "of_auto": beside(AUTO),
        "of_idiom": beside(IDIOM),
        "first_call": {},
        "gradient_error": {AUTO: 1e-6},
        "errors": {"higher": "ModuleNotFoundError: no"},
        **others,
    }


def test_ratios_to_floor_and_idiom_and_memory_stand_on_the_page() -> None:
    memory = {"allocated": {"packed": 30.0, "padded": 60.0}}
    seconds = {FLOOR: 2.0, AUTO: 1.0, PADDED: 1.8, IDIOM: 4.0}
    page = meta_step.as_markdown(
        {
            "command": "python meta_step.py",
            "work": "some work",
            "machine": {"device": "a processor", "threads": 1, "processors": 2, "versions": {"python": "3"}},
            "peers": {"higher": "not installed"},
            "shapes": [one([4, 4, 5], seconds, memory=memory, padding=0.4)],
        }
    )
    to_floor, of_idiom = (
        page.split(f"## Time, as a ratio to {what}\n")[1] for what in ("the bare work", "learn2learn's idiom")
    )
    assert "| ours, auto | 0.50 [0.50, 0.50] |" in to_floor.split("##")[0]
    assert "| ours, padded | 0.90 [0.90, 0.90] |" in to_floor.split("##")[0]
    assert "| ours, auto | 0.25 [0.25, 0.25] |" in of_idiom.split("##")[0]
    assert "| higher | does not run |" in page
    assert "| allocated | 30 / 60 = 0.50 |" in page
    assert "stacked: 40 % at (4, 4, 5)" in page
    # What was not tried has no row.
    assert COMPILED not in page
    assert f"| {CLASS} |" not in page


def test_the_command_refuses_a_source_without_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["meta_step.py", "--source", "synthetic:"])
    with pytest.raises(SystemExit):
        meta_step.main()


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    monkeypatch.setattr(sys, "argv", ["meta_step.py", "--rounds=1", "--shapes=0", f"--out={folder}", *arguments])
    meta_step.main()
    (file,) = folder.glob("*.json")
    return json.loads(file.read_text("utf-8")), file.with_suffix(".md").read_text("utf-8")


def test_random_lengths_are_measured_and_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(meta_step, "SHAPES", (Shape(2, 2, 8, 1),))
    monkeypatch.setattr(meta_step, "Size", lambda *_: TINY)
    monkeypatch.setattr(meta_step, "CONTENDERS", WITHOUT_PEERS)
    result, page = run(monkeypatch, tmp_path, "--eager")
    assert result["shapes"][0]["seconds"].keys() == WITHOUT_PEERS.keys() - {COMPILED}
    assert "| (2, 2, 8, 1) |" in page
    assert "as a ratio to learn2learn" not in page
    assert (tmp_path / "meta_step.png").is_file()


def test_sentences_of_a_source_are_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toy_bert: Path) -> None:
    monkeypatch.setattr(meta_step, "REAL_SHAPES", (Shape(2, 2, 0, 2),))
    given = ("--source=synthetic:", "--languages=qaa,qab", f"--encoder={toy_bert}", "--peers=deepcopy")
    result, page = run(monkeypatch, tmp_path, *given)
    assert result["shapes"][0]["seconds"].keys() == {FLOOR, AUTO, PADDED, "deepcopy loop"}
    assert "sentences of qaa, qab, drawn as priming draws them" in page
    assert str(toy_bert) not in page
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["meta_step_real.json", "meta_step_real.md"]


def test_bfloat16_is_that_of_both_models(problem: Problem) -> None:
    low = problem.in_bfloat16()
    flat = {name: tensor.flatten(0, 1) for name, tensor in problem.batch.query.items()}
    exact, rough = (float(plain(flat).detach()) for plain in (problem.plain, low.plain))
    assert exact != rough
    assert rough == pytest.approx(exact, rel=0.02)
    assert low.ours.autocast
    assert low.padded.autocast
    assert without_folders("--encoder=/models/minilm") == "--encoder=minilm"
