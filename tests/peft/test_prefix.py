"""Prefix tuning against attention written out densely, and against the key-value cache of transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModel, DynamicCache
from transformers.models.modernbert.modeling_modernbert import apply_rotary_pos_emb

from metaprime.models.encoder import load_encoder
from metaprime.models.injection_check import supports_one_pass
from metaprime.models.sites import resolve
from metaprime.models.task_model import TaskModel
from metaprime.peft import prefix
from metaprime.rng import torch_stream
from metaprime.tasks.head import LinearHead

LENGTH, HEADS, WIDTH = 5, 4, 8


@pytest.fixture(params=["sdpa", "eager"])
def injected(toy_bert: Path, request: pytest.FixtureRequest) -> tuple[nn.Module, nn.ModuleDict]:
    encoder = load_encoder(str(toy_bert), request.param)
    modules = prefix.inject(resolve(encoder.module, encoder.layout), prefix.PrefixConfig(length=LENGTH))
    draw = torch_stream(0, "random phi")
    for parameter in modules.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw)
    return encoder.module, modules


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 60, (2, 8), generator=torch_stream(0, "ids"))
    mask = (torch.arange(8) < torch.tensor([[8], [5]])).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


@torch.no_grad()
def test_one_layer_is_dense_attention_over_prefix_and_text(
    injected: tuple[nn.Module, nn.ModuleDict], inputs: dict[str, torch.Tensor]
) -> None:
    encoder, modules = injected
    attention, seen = encoder.encoder.layer[1].attention.self, {}
    attention.register_forward_hook(
        lambda module, args, kwargs, output: seen.update(x=args[0] if args else kwargs["hidden_states"], out=output[0]),
        with_kwargs=True,
    )
    encoder(**inputs)
    phi = modules["1"]
    for sentence, length in enumerate((8, 5)):
        x_LD = seen["x"][sentence, :length]
        for head in range(HEADS):
            rows = slice(head * WIDTH, (head + 1) * WIDTH)
            q, k, v = (
                x_LD @ part.weight[rows].T + part.bias[rows]
                for part in (attention.query, attention.key, attention.value)
            )
            k, v = torch.cat([phi.keys[head], k]), torch.cat([phi.values[head], v])
            expected = torch.softmax(q @ k.T / WIDTH**0.5, dim=-1) @ v
            torch.testing.assert_close(seen["out"][sentence, :length, rows], expected, rtol=0, atol=2e-6)


@torch.no_grad()
def test_the_encoder_is_the_stock_one_with_the_prefix_in_its_cache(
    toy_bert: Path, injected: tuple[nn.Module, nn.ModuleDict], inputs: dict[str, torch.Tensor]
) -> None:
    encoder, modules = injected
    cache = DynamicCache()
    for index, phi in enumerate(modules.values()):
        cache.update(phi.keys.expand(2, -1, -1, -1), phi.values.expand(2, -1, -1, -1), index)
    stock = AutoModel.from_pretrained(toy_bert).eval()
    expected = stock(
        input_ids=inputs["input_ids"],
        attention_mask=torch.cat([torch.ones(2, LENGTH, dtype=torch.int64), inputs["attention_mask"]], dim=1),
        position_ids=torch.arange(8).expand(2, -1),  # positions do not shift
        past_key_values=cache,
    ).last_hidden_state
    real = inputs["attention_mask"].bool()
    found = encoder(**inputs).last_hidden_state[real]
    torch.testing.assert_close(found, expected[real], rtol=0, atol=1e-5)
    assert (found - stock(**inputs).last_hidden_state[real]).abs().max() > 0.1


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_with_grouped_queries_each_head_reads_the_prefix_of_its_group(
    toy_encoder: Callable[[str], Path], inputs: dict[str, torch.Tensor], attention: str
) -> None:
    """EuroBERT's toy: heads 0 and 1 share the first of two key-value heads. Prefix keys are raw: they are not rotated."""
    encoder, seen = load_encoder(str(toy_encoder("eurobert")), attention), {}
    modules = prefix.inject(resolve(encoder.module, encoder.layout), prefix.PrefixConfig(length=LENGTH))
    assert modules["1"].keys.shape == modules["1"].values.shape == (2, LENGTH, WIDTH)
    draw = torch_stream(0, "random phi")
    for parameter in modules.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw)
    module = encoder.module.layers[1].self_attn
    module.register_forward_pre_hook(lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True)
    module.o_proj.register_forward_pre_hook(lambda module, args: seen.update(context=args[0]))
    encoder.module(**inputs)
    cos, sin = (table[0] for table in seen["position_embeddings"])

    def rotated(x_LD: torch.Tensor) -> torch.Tensor:
        half = WIDTH // 2
        return x_LD * cos[: len(x_LD)] + torch.cat([-x_LD[:, half:], x_LD[:, :half]], dim=1) * sin[: len(x_LD)]

    for sentence, length in enumerate((8, 5)):
        x_LD = seen["hidden_states"][sentence, :length]
        for head in range(HEADS):
            rows, group = slice(head * WIDTH, (head + 1) * WIDTH), head // 2
            shared = slice(group * WIDTH, (group + 1) * WIDTH)
            q, k = rotated(x_LD @ module.q_proj.weight[rows].T), rotated(x_LD @ module.k_proj.weight[shared].T)
            k = torch.cat([modules["1"].keys[group], k])
            v = torch.cat([modules["1"].values[group], x_LD @ module.v_proj.weight[shared].T])
            expected = torch.softmax(q @ k.T / WIDTH**0.5, dim=-1) @ v
            torch.testing.assert_close(seen["context"][sentence, :length, rows], expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_under_a_sliding_window_every_word_sees_the_prefix_and_its_neighbours(
    toy_encoder: Callable[[str], Path], attention: str
) -> None:
    """The toy ModernBERT's second layer sees four words to each side: more than that would be another sum."""
    encoder, seen = load_encoder(str(toy_encoder("modernbert")), attention), {}
    modules = prefix.inject(resolve(encoder.module, encoder.layout), prefix.PrefixConfig(length=LENGTH))
    draw = torch_stream(0, "random phi")
    for parameter in modules.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw)
    module, ids = encoder.module.layers[1].attn, torch.randint(5, 60, (1, 20), generator=torch_stream(0, "ids"))
    module.Wqkv.register_forward_hook(lambda module, args, output: seen.update(qkv=output[0]))
    module.Wo.register_forward_pre_hook(lambda module, args: seen.update(context=args[0][0]))
    module.register_forward_pre_hook(lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True)
    encoder.module(input_ids=ids, attention_mask=torch.ones_like(ids))
    q_LHd, k_LHd, v_LHd = (part.view(20, HEADS, WIDTH) for part in seen["qkv"].chunk(3, dim=1))
    rotated = apply_rotary_pos_emb(q_LHd[None], k_LHd[None], *seen["position_embeddings"], unsqueeze_dim=2)
    q_LHd, k_LHd = (part[0] for part in rotated)
    near = (torch.arange(20)[:, None] - torch.arange(20)).abs() <= 4
    for head in range(HEADS):
        text = (q_LHd[:, head] @ k_LHd[:, head].T).masked_fill(~near, -torch.inf)
        scores = torch.cat([q_LHd[:, head] @ modules["1"].keys[head].T, text], dim=1) / WIDTH**0.5
        expected = scores.softmax(dim=1) @ torch.cat([modules["1"].values[head], v_LHd[:, head]])
        found = seen["context"][:, head * WIDTH : (head + 1) * WIDTH]
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_how_it_starts() -> None:
    drawn = prefix.Prefix(HEADS, 300, WIDTH).initial(torch_stream(0, "start"))
    assert drawn["keys"].shape == drawn["values"].shape == (HEADS, 300, WIDTH)
    assert not torch.equal(drawn["keys"], drawn["values"])
    for value in drawn.values():
        assert float(value.std()) == pytest.approx(0.02, rel=0.03)
        assert abs(float(value.mean())) < 1e-3


@pytest.mark.parametrize("model_type", ["bert", "modernbert", "deberta-v2", "eurobert"])
def test_with_an_mlp_it_is_the_prefix_that_the_mlp_gives(
    toy_encoder: Callable[[str], Path], inputs: dict[str, torch.Tensor], model_type: str
) -> None:
    """Computed here by hand, and by `collapse`, which leaves a prefix without one."""
    trained, plain = (load_encoder(str(toy_encoder(model_type))) for _ in range(2))
    config = prefix.PrefixConfig(length=LENGTH, mlp=7)
    sites = resolve(trained.module, trained.layout)
    modules = prefix.inject(sites, config)
    draw = torch_stream(0, "random phi")
    for parameter in modules.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=draw)
    phi = {name: value.data for name, value in modules.named_parameters()}
    inner = torch.tanh(phi["inner.vectors"] @ phi["inner.weight"].T + phi["inner.bias"])
    direct = prefix.inject(resolve(plain.module, plain.layout), prefix.PrefixConfig(length=LENGTH))
    for index in ("0", "1"):
        both = (inner @ phi[f"{index}.weight"].T + phi[f"{index}.bias"]).view(LENGTH, 2, sites.heads, WIDTH)
        direct[index].keys.data, direct[index].values.data = both[:, 0].transpose(0, 1), both[:, 1].transpose(0, 1)
    with torch.no_grad():
        found, expected = (
            e.module(**inputs).last_hidden_state[inputs["attention_mask"].bool()] for e in (trained, plain)
        )
        smaller, stored = modules.collapse(phi)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert smaller == prefix.PrefixConfig(length=LENGTH)
    for name, value in direct.named_parameters():
        torch.testing.assert_close(stored[name], value.data, rtol=0, atol=1e-6)
    assert stored.keys() == dict(direct.named_parameters()).keys()


def test_with_an_mlp_episodes_still_go_in_one_pass(toy_bert: Path, inputs: dict[str, torch.Tensor]) -> None:
    encoder = load_encoder(str(toy_bert))
    modules = prefix.inject(resolve(encoder.module, encoder.layout), prefix.PrefixConfig(length=LENGTH, mlp=7))
    assert supports_one_pass(TaskModel(encoder.module, modules, LinearHead(32, 7)).eval(), inputs)
