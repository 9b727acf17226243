"""Masking: how often, by what, what never, and the same draw whatever else is in the batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from metaprime.data.episodes import EpisodeSampler, EpisodeShape
from metaprime.data.readers import synthetic
from metaprime.data.rows import Lengths
from metaprime.data.subwords import Subwords
from metaprime.tasks.head import LinearHead
from metaprime.tasks.masking import masked, masking
from metaprime.tasks.tagging.task import TaggingConfig, build
from metaprime.tasks.task import Task, Text
from metaprime.types import IGNORE, MetaprimeError


@pytest.fixture(scope="module")
def task(toy_tokenizer: PreTrainedTokenizerFast) -> Task:
    tags = build(TaggingConfig(), Text(Subwords(toy_tokenizer), Lengths(64)))
    return masking(tags, toy_tokenizer, lambda sites: LinearHead(sites.hidden, sites.words.num_embeddings))


def test_shares_are_those_of_the_paper() -> None:
    ids_N, special_S = torch.randint(5, 1000, (400_000,), generator=torch.Generator().manual_seed(0)), torch.arange(5)
    inputs_N, labels_N = masked(ids_N, special_S, 4, (5, 1000), torch.Generator().manual_seed(1))
    guessed_N = labels_N != IGNORE
    assert float(guessed_N.double().mean()) == pytest.approx(0.15, abs=0.003)
    assert torch.equal(labels_N[guessed_N], ids_N[guessed_N])
    assert torch.equal(inputs_N[~guessed_N], ids_N[~guessed_N])
    among_N = inputs_N[guessed_N]
    assert float((among_N == 4).double().mean()) == pytest.approx(0.8, abs=0.006)
    assert float((among_N == ids_N[guessed_N]).double().mean()) == pytest.approx(0.1, abs=0.006)
    swapped_N = among_N[(among_N != 4) & (among_N != ids_N[guessed_N])]
    assert int(swapped_N.min()) >= 5
    assert len(swapped_N.unique()) > 950


def test_special_sub_words_are_never_guessed(task: Task, toy_tokenizer: PreTrainedTokenizerFast) -> None:
    assert task.corrupt
    rows = task.encode(synthetic.read("", "qaa", "train")[:300])
    corrupted = task.corrupt(rows, torch.Generator().manual_seed(0))
    special = set(toy_tokenizer.all_special_ids)
    guessed = 0
    for before, after in zip(rows, corrupted, strict=True):
        for one, other in zip(before.windows, after.windows, strict=True):
            labels = [(a, label) for a, label in zip(one.input_ids, other.labels, strict=True) if label != IGNORE]
            assert all(a == label and a not in special for a, label in labels)
            guessed += len(labels)
        assert before == replace(after, windows=before.windows)
    assert guessed > 100


def test_a_trial_batch_is_what_training_sees_and_alike_in_each_call(task: Task) -> None:
    rows = task.encode(synthetic.read("", "qaa", "train")[:8])
    first, again, plain = task.trial_batch(rows), task.trial_batch(rows), task.collate(rows)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert (first["labels"] != plain["labels"]).any()
    assert torch.equal(first["attention_mask"], plain["attention_mask"])
    unmasked = replace(task, corrupt=None).trial_batch(rows)
    assert all(torch.equal(unmasked[name], plain[name]) for name in plain)


def test_an_episode_is_masked_alike_whoever_holds_it(task: Task) -> None:
    pools = {name: task.encode(synthetic.read("", name, "train")[:100]) for name in ("qaa", "qab")}
    episodes = EpisodeSampler(pools, EpisodeShape(episodes=4, support=2, steps=3, query=4, tau=0.0), 7)
    whole = episodes.meta_batch(5, range(4), task.collate, task.corrupt)
    again = episodes.meta_batch(6, range(4), task.collate, task.corrupt)
    assert not torch.equal(whole.query["labels"][0].flatten()[:20], again.query["labels"][0].flatten()[:20])
    for index in range(4):
        alone = episodes.meta_batch(5, [index], task.collate, task.corrupt)
        for one, other in zip((*alone.support, alone.query), (*whole.support, whole.query), strict=True):
            length = one["labels"].shape[-1]
            for name in one:
                assert torch.equal(one[name][0], other[name][index, :, :length]), name


def test_a_tokenizer_without_a_mask_is_refused(toy_tokenizer: PreTrainedTokenizerFast) -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=toy_tokenizer.backend_tokenizer, pad_token="[PAD]")
    tags = build(TaggingConfig(), Text(Subwords(toy_tokenizer), Lengths(64)))
    with pytest.raises(MetaprimeError, match="no mask token"):
        masking(tags, bare, lambda sites: nn.Linear(sites.hidden, 2))
