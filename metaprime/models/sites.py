"""The site table: where each architecture keeps the modules that PEFT methods tap and add to.

One row per stack of layers of a `model_type`; a new architecture is a new row. The paths are relative to a layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn
from transformers import PreTrainedModel

from metaprime.types import LayerSites, MetaprimeError, Sites


@dataclass(frozen=True)
class Layout:
    """Module paths of one stack of layers.

    Attributes:
        layers: path of the list of layers inside the encoder.
        query .. ffn_norm: paths inside a layer (see `types.LayerSites`).
        unused: path prefixes inside the encoder whose parameters a token-level loss never reaches.
        positions_after_padding: positions count from the padding id + 1, which takes that many off the longest input.
    """

    layers: str
    query: str
    key: str
    value: str
    attention_out: str
    ffn_in: str
    ffn_out: str
    attention: str
    ffn_norm: str | None
    unused: tuple[str, ...] = ()
    positions_after_padding: bool = False


BERT = Layout(
    layers="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_out="attention.output.dense",
    ffn_in="intermediate.dense",
    ffn_out="output.dense",
    attention="attention.self",
    ffn_norm="output.LayerNorm",
    unused=("pooler.",),
)

ROBERTA = replace(BERT, positions_after_padding=True)

LAYOUTS: dict[str, Layout] = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
}


def layout_of(model_type: str) -> Layout:
    """The row of an architecture.

    Raises:
        MetaprimeError: there is none; the message names the sites a row needs.
    """
    if model_type not in LAYOUTS:
        needed = ", ".join(
            name for name in Layout.__dataclass_fields__ if name not in ("unused", "positions_after_padding")
        )
        raise MetaprimeError(
            f"encoder architecture {model_type!r} has no row in metaprime/models/sites.py, which knows "
            f"{', '.join(LAYOUTS)}. A row names these module paths: {needed}"
        )
    return LAYOUTS[model_type]


def resolve(encoder: PreTrainedModel, layout: Layout) -> Sites:
    """The modules behind a row's paths, layer by layer.

    Raises:
        MetaprimeError: a path does not exist in this encoder.
    """

    def at(parent: nn.Module, path: str) -> nn.Module:
        try:
            return parent.get_submodule(path)
        except AttributeError as error:
            raise MetaprimeError(f"site {path!r} is not in this {type(encoder).__name__}: {error}") from None

    layers = []
    for layer in at(encoder, layout.layers).children():
        layers.append(
            LayerSites(
                query=at(layer, layout.query),
                key=at(layer, layout.key),
                value=at(layer, layout.value),
                attention_out=at(layer, layout.attention_out),
                ffn_in=at(layer, layout.ffn_in),
                ffn_out=at(layer, layout.ffn_out),
                attention=at(layer, layout.attention),
                ffn_norm=at(layer, layout.ffn_norm) if layout.ffn_norm else None,
            )
        )
    query = layers[0].query
    assert isinstance(query, nn.Linear)
    heads: int = encoder.config.num_attention_heads
    return Sites(tuple(layers), query.in_features, heads, query.out_features // heads)
