"""Builds the problem of every contender: encoder, initial phi and head, padded episodes.

Users of a peer write adapters into the encoder's own layers; `Plain` is such a model, without any
code of metaprime. It computes the same function as our hooks, which `meta_step.py` checks before
timing.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig, BertModel

from metaprime.models.attention import register
from metaprime.models.sites import BERT, resolve
from metaprime.models.task_model import TaskModel, Traits
from metaprime.packing import packed_calls
from metaprime.peft import METHODS
from metaprime.rng import torch_stream
from metaprime.tasks.head import LinearHead
from metaprime.types import IGNORE, Batch, Episodes, Params

TAGS, BOTTLENECK, INNER_LR, VOCABULARY = 7, 48, 0.1, 30522


@dataclass(frozen=True)
class Shape:
    """Shape (T, B, L, n) of a meta-batch.

    Attributes:
        episodes: T.
        sentences: B, sentences of each batch.
        length: L, sub-words of the longest sentence; 0: as the sentences are.
        steps: n, support batches, besides one query batch.
    """

    episodes: int
    sentences: int
    length: int
    steps: int

    @property
    def sizes(self) -> list[int]:
        """T, B, L and n; without L where the sentences have lengths of their own."""
        return [self.episodes, self.sentences, *([self.length] if self.length else []), self.steps]

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.sizes))})"


@dataclass(frozen=True)
class Size:
    """Size of the encoder."""

    layers: int = 6
    hidden: int = 384
    heads: int = 12


class Output(nn.Module):
    """BERT's feed-forward output with a Pfeiffer adapter A: LN(z + A(LN(z)))."""

    def __init__(self, own: nn.Module, hidden: int) -> None:
        super().__init__()
        self.dense, self.LayerNorm = own.dense, own.LayerNorm
        self.down, self.up = nn.Linear(hidden, BOTTLENECK), nn.Linear(BOTTLENECK, hidden)

    def forward(self, inner: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        z = self.dense(inner) + residual
        return self.LayerNorm(z + self.up(torch.relu(self.down(self.LayerNorm(z)))))


class Plain(nn.Module):
    """An encoder with adapters in its layers, and a linear head; its output is the loss of a batch.

    Attributes:
        autocast: whether matrices are multiplied in bfloat16.
    """

    def __init__(self, encoder: BertModel, tags: int) -> None:
        super().__init__()
        self.encoder, self.autocast = encoder, False
        for layer in encoder.encoder.layer:
            layer.output = Output(layer.output, encoder.config.hidden_size)
        self.head = nn.Linear(encoder.config.hidden_size, tags)

    def forward(self, batch: Batch) -> torch.Tensor:
        if not self.autocast:
            return self._loss(batch)
        with torch.autocast(batch["input_ids"].device.type, torch.bfloat16):
            return self._loss(batch)

    def _loss(self, batch: Batch) -> torch.Tensor:
        """Returns the mean cross-entropy () of labelled sub-words, in nats, for tensors (B, L)."""
        hidden = self.encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        return F.cross_entropy(self.head(hidden).flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORE)

    @property
    def fast(self) -> dict[str, nn.Parameter]:
        """Parameters of adapters and head, which the inner loop moves."""
        return {name: p for name, p in self.named_parameters() if is_fast(name)}

    @property
    def slow(self) -> dict[str, nn.Parameter]:
        """Parameters of the encoder."""
        return {name: p for name, p in self.named_parameters() if not is_fast(name)}


def is_fast(name: str) -> bool:
    """Returns True if a parameter of `Plain` belongs to an adapter or the head."""
    return name.startswith("head.") or ".output.down." in name or ".output.up." in name


@dataclass(frozen=True)
class Problem:
    """Episodes of one shape, our model, and the plain model with the same values.

    Attributes:
        shape: (T, B, L, n).
        ours: our model, which works on packed rows.
        backbone: theta by name, such as (D, D).
        start: phi and head by name, repeated for T episodes: (T, ...).
        batch: the episodes.
        plain: the plain model.
    """

    shape: Shape
    ours: TaskModel
    backbone: Params
    start: Params
    batch: Episodes
    plain: Plain

    @property
    def padded(self) -> TaskModel:
        """Our model with padded batches."""
        return self.ours.variant(padded="compared with packed rows")

    def in_bfloat16(self) -> Problem:
        """Returns the problem with matrix products in bfloat16, for every contender."""
        plain = copy.deepcopy(self.plain)
        plain.autocast = True
        return replace(self, ours=self.ours.variant(autocast=True), plain=plain)

    def plain_names(self, ours: Params) -> Params:
        """Returns our outer gradient by the plain model's names; shapes stay, such as (D, D)."""
        return {name.replace("backbone.", "encoder.", 1): value for name, value in ours.items()}


def measure(logits_BLC: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Returns the mean cross-entropy () of labelled sub-words, in nats, for logits (B, L, C)."""
    return F.cross_entropy(logits_BLC.flatten(0, -2), batch["labels"].flatten(), ignore_index=IGNORE)


def make_encoder(size: Size) -> BertModel:
    """Returns a random BERT of a size, the same in every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=size.hidden,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            intermediate_size=4 * size.hidden,
            attn_implementation="sdpa",
        )
        return BertModel(config, add_pooling_layer=False).eval()


def make_problem(shape: Shape, size: Size, device: str = "cpu") -> Problem:
    """Returns the problem of a shape with random sentences, the same in every call.

    Example: `make_problem(Shape(4, 4, 16, 5), Size())`
    """
    return problem_over(make_encoder(size).to(device), make_batch(shape, device), shape)


def problem_over(encoder: BertModel, batch: Episodes, shape: Shape, tags: int = TAGS) -> Problem:
    """Returns the problem of some episodes over an encoder, which becomes a part of it.

    Args:
        encoder: a BERT; its pooler, which no tagger reads, is dropped.
        batch: the episodes, tensors (T, B, L), on the encoder's device.
        shape: their shape.
        tags: number of tags.
    """
    device = encoder.device
    del encoder.pooler
    encoder.pooler = None
    encoder.set_attn_implementation("sdpa")
    plain = Plain(copy.deepcopy(encoder), tags).eval().to(device)

    # Our model: the encoder with hooks.
    register()
    encoder.set_attn_implementation("metaprime_sdpa")
    layout = BERT.model_copy(update={"unused": ()})
    method = METHODS["pfeiffer"]
    adapter = method.inject(resolve(encoder, layout), method.config(bottleneck=BOTTLENECK))
    packed_calls(encoder)
    traits = Traits(supports_one_pass=True, padded="")
    model = TaskModel(encoder, adapter, LinearHead(encoder.config.hidden_size, tags), traits=traits).eval().to(device)

    # Equal values for phi and head of both models.
    draw = torch_stream(0, "start")
    own = dict(model.named_parameters())
    values = {
        name: 0.05 * torch.randn(value.shape, generator=draw)
        for name, value in own.items()
        if not name.startswith("backbone.")
    }
    values = {name: value.to(device) for name, value in values.items()}
    _copy(values, plain)
    start = {name: value.expand(shape.episodes, *value.shape) for name, value in values.items()}
    backbone = {name: value.detach() for name, value in own.items() if name.startswith("backbone.")}
    return Problem(shape, model, backbone, start, batch, plain)


def make_batch(shape: Shape, device: str = "cpu") -> Episodes:
    """Returns random episodes; in each batch one sentence has full length, others at least half."""
    draw = torch_stream(0, "episodes", str(shape))

    def batch() -> Batch:
        size = (shape.episodes, shape.sentences, shape.length)
        lengths = torch.randint(shape.length // 2, shape.length + 1, size[:2], generator=draw)
        lengths[:, 0] = shape.length
        mask = (torch.arange(shape.length) < lengths[..., None]).long()
        ids = torch.randint(5, VOCABULARY, size, generator=draw) * mask
        labels = torch.where(mask.bool(), torch.randint(0, TAGS, size, generator=draw), IGNORE)
        tensors = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        return {name: tensor.to(device) for name, tensor in tensors.items()}

    support, query = tuple(batch() for _ in range(shape.steps)), batch()
    by_window = [tensors["attention_mask"].sum(2) for tensors in (*support, query)]
    return Episodes(
        languages=("",) * shape.episodes,
        indices=tuple(range(shape.episodes)),
        total=shape.episodes,
        support=support,
        query=query,
        lengths=tuple(tuple(lengths_TB.amax(1).tolist()) for lengths_TB in by_window),
        subwords=tuple(tuple(lengths_TB.sum(1).tolist()) for lengths_TB in by_window),
    )


@torch.no_grad()
def _copy(values: Params, plain: Plain) -> None:
    """Copies our phi and head into the plain model."""
    for index, layer in enumerate(plain.encoder.encoder.layer):
        for part in ("down", "up"):
            for kind in ("weight", "bias"):
                getattr(getattr(layer.output, part), kind).copy_(values[f"adapter.{index}.ffn.{part}_{kind}"])
    plain.head.weight.copy_(values["head.weight"])
    plain.head.bias.copy_(values["head.bias"])
