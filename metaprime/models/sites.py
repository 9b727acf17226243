"""The site table: for each architecture the paths of the modules that PEFT methods read or modify.

Each `model_type` has one row. A new architecture needs a new row here, or `encoder.sites` in the config.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

from pydantic import Field

from metaprime.types import LayerSites, MetaprimeError, Section, Sites

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

ModulePath = Annotated[str, Field(pattern=r"^\w+(\.\w+)*$")]
"""A dotted path of a module, such as `attention.self.query`."""


class Layout(Section):
    """Module paths of one stack of layers.

    Attributes:
        layers: path of the list of layers inside the encoder.
        query .. ffn_norm: paths inside a layer (see `types.LayerSites`). A fused projection is named
            three times, by query, key and value; a pre-LN encoder has no `ffn_norm`.
        unused: path prefixes inside the encoder whose parameters a token-level loss never reaches.
        positions_after_padding: True if positions count from the padding id + 1, which shortens the
            longest input by as much.
        disentangled: True if the attention is DeBERTa-v2's, which `models/deberta.py` replaces.
    """

    layers: ModulePath
    query: ModulePath
    key: ModulePath
    value: ModulePath
    attention_out: ModulePath
    ffn_in: ModulePath
    ffn_out: ModulePath
    attention: ModulePath
    ffn_norm: ModulePath | None = None
    unused: tuple[str, ...] = ()
    positions_after_padding: bool = False
    disentangled: bool = False


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

ROBERTA = BERT.model_copy(update={"positions_after_padding": True})

LAYOUTS: dict[str, Layout] = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "electra": BERT.model_copy(update={"unused": ()}),
    "distilbert": Layout(
        layers="transformer.layer",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_out="attention.out_lin",
        ffn_in="ffn.lin1",
        ffn_out="ffn.lin2",
        attention="attention",
        ffn_norm="output_layer_norm",
    ),
    "deberta-v2": BERT.model_copy(
        update={
            "query": "attention.self.query_proj",
            "key": "attention.self.key_proj",
            "value": "attention.self.value_proj",
            "unused": (),
            "disentangled": True,
        }
    ),
    "modernbert": Layout(
        layers="layers",
        query="attn.Wqkv",
        key="attn.Wqkv",
        value="attn.Wqkv",
        attention_out="attn.Wo",
        ffn_in="mlp.Wi",
        ffn_out="mlp.Wo",
        attention="attn",
    ),
    "eurobert": Layout(
        layers="layers",
        query="self_attn.q_proj",
        key="self_attn.k_proj",
        value="self_attn.v_proj",
        attention_out="self_attn.o_proj",
        ffn_in="mlp.gate_proj",
        ffn_out="mlp.down_proj",
        attention="self_attn",
    ),
}


def layout_of(model_type: str) -> Layout:
    """Returns the row of an architecture.

    Args:
        model_type: transformers' name of the architecture, from config.json.

    Raises:
        MetaprimeError: the table has no such row; the message lists the sites that `encoder.sites` needs.

    Example: `layout_of("xlm-roberta").query` is `attention.self.query`.
    """
    if model_type not in LAYOUTS:
        needed = [name for name, field in Layout.model_fields.items() if field.is_required()]
        raise MetaprimeError(
            f"encoder architecture {model_type!r} has no row in metaprime/models/sites.py, which knows {', '.join(LAYOUTS)}. "
            f"Give its module paths under encoder.sites: {', '.join(needed)}, and in a post-LN encoder ffn_norm"
        )
    return LAYOUTS[model_type]


def resolve(encoder: PreTrainedModel, layout: Layout) -> Sites:
    """Returns the modules at the paths of a row.

    Raises:
        MetaprimeError: a path does not exist in this encoder, or a projection is not a linear layer.

    Example: `resolve(encoder.module, encoder.layout).layers[0].query`
    """
    stack = _at(encoder, encoder, layout.layers)
    layers = tuple(_layer_sites(encoder, layer, layout) for layer in stack.children())
    if not layers:
        raise MetaprimeError(f"site {layout.layers!r} of this {type(encoder).__name__} holds no layers")
    config, key = encoder.config, layers[0].key
    heads: int = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = key.out_features // (3 if key is layers[0].query else 1)
    owners = {
        path: module
        for path, module in encoder.named_modules()
        if next(module.parameters(recurse=False), None) is not None
        and not f"{path}.".startswith(layout.unused or ("\0",))
    }
    words = cast("nn.Embedding", encoder.get_input_embeddings())
    return Sites(layers, key.in_features, heads, width // heads, owners, words, encoder)


def _layer_sites(encoder: PreTrainedModel, layer: nn.Module, layout: Layout) -> LayerSites:
    """Returns the modules of one layer."""
    # An encoder is there, so torch is loaded: the table above is read without it.
    from torch import nn

    def linear(path: str) -> nn.Linear:
        module = _at(encoder, layer, path)
        if not isinstance(module, nn.Linear):
            raise MetaprimeError(
                f"site {path!r} of this {type(encoder).__name__} is a {type(module).__name__}, not a linear layer"
            )
        return module

    return LayerSites(
        query=linear(layout.query),
        key=linear(layout.key),
        value=linear(layout.value),
        attention_out=linear(layout.attention_out),
        ffn_in=linear(layout.ffn_in),
        ffn_out=linear(layout.ffn_out),
        attention=_at(encoder, layer, layout.attention),
        ffn_norm=_at(encoder, layer, layout.ffn_norm) if layout.ffn_norm else None,
        layer=layer,
    )


def _at(encoder: PreTrainedModel, parent: nn.Module, path: str) -> nn.Module:
    """Returns the module at a path below `parent`; an error names the path and the encoder's class."""
    try:
        return parent.get_submodule(path)
    except AttributeError as error:
        raise MetaprimeError(f"site {path!r} is not in this {type(encoder).__name__}: {error}") from None
