"""The site table: for each architecture the paths of the modules that PEFT methods read or modify.

Each `model_type` has one row. A new architecture needs a new row here, or `encoder.sites` in the config.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, cast

from pydantic import Field

from metaprime.types import LayerSites, MetaprimeError, Section, Sites

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

ModulePath = Annotated[str, Field(pattern=r"^(\w+|\*)(\.(\w+|\*))*$")]
"""A dotted path of a module, such as `attention.self.query`."""

LAYER_NUMBER = "*"
"""Part of a path that stands for the layer's number."""


class Layout(Section):
    """Module paths of one stack of layers.

    Attributes:
        layers: path of the list of layers inside the encoder.
        query .. ffn_norm: paths inside a layer (see `types.LayerSites`), or, with a part `*`, inside the
            encoder: `ffns.*.lin1` in layer 0 is `ffns.0.lin1`. A fused projection is named three times,
            by query, key and value; a pre-LN encoder has no `ffn_norm`.
        unused: path prefixes inside the encoder whose parameters a token-level loss never reaches; `*`
            in them stands for any characters.
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


def first_position(encoder: PreTrainedModel, layout: Layout) -> int:
    """Returns the number of a window's first position in the encoder's table of positions.

    Args:
        encoder: the encoder.
        layout: its row of the site table.

    Example: `first_position(encoder.module, encoder.layout)` is 2 for XLM-R and 0 for BERT.
    """
    return int(encoder.config.pad_token_id) + 1 if layout.positions_after_padding else 0


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
            f"Give its module paths under encoder.sites: {', '.join(needed)}, and in a post-LN encoder ffn_norm. They are "
            "those inside one of the layers; where parts of a layer are in a list of their own, write the path inside the "
            "encoder, with * for the number of the layer"
        )
    return LAYOUTS[model_type]


def resolve(encoder: PreTrainedModel, layout: Layout) -> Sites:
    """Returns the modules at the paths of a row.

    Raises:
        MetaprimeError: a path does not exist in this encoder, or a projection is not a linear layer.

    Example: `resolve(encoder.module, encoder.layout).layers[0].query`
    """
    stack = _at(encoder, encoder, layout.layers)
    if layout.ffn_norm is None and LAYER_NUMBER in layout.ffn_out.split("."):
        raise MetaprimeError(
            f"encoder.sites.ffn_norm is needed where ffn_out is a path with * ({layout.ffn_out}): no module is a whole layer"
        )
    layers = tuple(_layer_sites(encoder, layer, index, layout) for index, layer in enumerate(stack.children()))
    if not layers:
        raise MetaprimeError(f"site {layout.layers!r} of this {type(encoder).__name__} holds no layers")
    config, key = encoder.config, layers[0].key
    heads: int = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = key.out_features // (3 if key is layers[0].query else 1)
    owners = {
        path: module
        for path, module in encoder.named_modules()
        if next(module.parameters(recurse=False), None) is not None and not is_unused(f"{path}.", layout.unused)
    }
    words = cast("nn.Embedding", encoder.get_input_embeddings())
    hidden = getattr(config, "hidden_size", key.in_features)
    return Sites(layers, hidden, heads, width // heads, owners, words, encoder)


def is_unused(name: str, unused: Sequence[str]) -> bool:
    """Returns True if one of the entries of `unused` covers a parameter or module of the encoder.

    Args:
        name: name of a parameter, or path of a module with a final dot.
        unused: path prefixes, in which `*` stands for any characters.

    Example: `is_unused("layer.1.query_global.bias", ["layer.*.query_global"])` is True.
    """
    return any(fnmatchcase(name, f"{path}*") if LAYER_NUMBER in path else name.startswith(path) for path in unused)


def without_fixed(encoder: nn.Module, layout: Layout) -> Layout:
    """Returns the layout with the encoder's fixed tables, which its class takes out of training, under `unused`.

    Example: `without_fixed(module, BERT)` is BERT for a BERT.
    """
    fixed = []
    for path, module in encoder.named_modules():
        own = dict(module.named_parameters(recurse=False))
        names = [name for name, parameter in own.items() if not parameter.requires_grad]
        fixed += [f"{path}."] if names and len(names) == len(own) else [f"{path}.{name}" for name in names]
    new = tuple(name for name in fixed if not is_unused(name, layout.unused))
    return layout.model_copy(update={"unused": layout.unused + new}) if new else layout


def _layer_sites(encoder: PreTrainedModel, layer: nn.Module, index: int, layout: Layout) -> LayerSites:
    """Returns the modules of one layer."""
    # An encoder is there, so torch is loaded: the table above is read without it.
    from torch import nn

    def at(path: str) -> nn.Module:
        parts = path.split(".")
        if LAYER_NUMBER not in parts:
            return _at(encoder, layer, path)
        return _at(encoder, encoder, ".".join(str(index) if part == LAYER_NUMBER else part for part in parts))

    def linear(path: str) -> nn.Linear:
        module = at(path)
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
        attention=at(layout.attention),
        ffn_norm=at(layout.ffn_norm) if layout.ffn_norm else None,
        layer=layer,
    )


def _at(encoder: PreTrainedModel, parent: nn.Module, path: str) -> nn.Module:
    """Returns the module at a path below `parent`; an error names the path and the encoder's class."""
    try:
        return parent.get_submodule(path)
    except AttributeError as error:
        raise MetaprimeError(f"site {path!r} is not in this {type(encoder).__name__}: {error}") from None
