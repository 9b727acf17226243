"""What a head reads: features of ordinary size, whatever the encoder's own, and the layer that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_config import Parts
from toy_encoders import LAST_NORM, scaled

from metaprime.build.model import build_model
from metaprime.config.sections import TransferConfig
from metaprime.models.encoder import Encoder, load_encoder, shortened, weights_hash
from metaprime.models.features import deviation
from metaprime.peft import METHODS
from metaprime.transfers.finetune import fine_tune
from metaprime.transfers.start import Source, k_shot_run, make_context
from metaprime.types import MetaprimeError

HEAD, RATE = METHODS["head"].config(), METHODS["head"].rate


@pytest.fixture
def encoder_at(toy_encoder: Callable[[str], Path]) -> Callable[[str, float], Encoder]:
    return lambda name, factor: scaled(load_encoder(str(toy_encoder(name))), factor)


def losses(parts: Parts, encoder: Encoder, steps: int = 30) -> list[float]:
    """Training losses of a head on an encoder, at the measured rate."""
    settings = TransferConfig(steps=steps, batch=8, lr=(RATE,), encoder="base")
    context = make_context(Source(encoder, None), parts.task, HEAD, settings, parts.rows, torch.device("cpu"))
    return fine_tune(context, k_shot_run(context, parts.rows[:16], 0, "qaa"), RATE).losses


def test_the_deviation_is_that_of_the_hidden_states_around_their_mean(toy_encoder: Callable[[str], Path]) -> None:
    encoder = load_encoder(str(toy_encoder("bert")))

    class Given(nn.Module):
        """Gives the first sub-word of each sequence 3 + 2, the others 3 - 2, in each dimension."""

        device = torch.device("cpu")

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> object:
            sign_BL = torch.where(torch.arange(input_ids.shape[1]) % 2 == 0, 1.0, -1.0).expand(input_ids.shape)
            hidden_BLD = 3 + 2 * sign_BL[..., None].expand(*input_ids.shape, 5)
            return type("Output", (), {"last_hidden_state": hidden_BLD})

    assert deviation(Given(), encoder.tokenizer) == pytest.approx(2.0, rel=1e-12)  # type: ignore[arg-type]
    plain = deviation(encoder.module, encoder.tokenizer)
    assert deviation(scaled(encoder, 3.0).module, encoder.tokenizer) == pytest.approx(3 * plain, rel=1e-5)


@pytest.mark.parametrize(
    ("size", "scale"), [(1.0, 1.0), (0.51, 1.0), (1.99, 1.0), (0.49, 0.25), (2.01, 4.0), (0.1, 0.0625), (10.0, 16.0)]
)
def test_the_scale_is_a_power_of_four_and_one_for_ordinary_encoders(
    encoder_at: Callable[[str, float], Encoder], size: float, scale: float
) -> None:
    plain = encoder_at("bert", 1.0)
    assert encoder_at("bert", size / deviation(plain.module, plain.tokenizer)).scale == scale


def test_an_encoder_with_equal_hidden_states_is_refused(encoder_at: Callable[[str, float], Encoder]) -> None:
    with pytest.raises(MetaprimeError, match="hidden states of different words are equal"):
        encoder_at("bert", 0.0)


def test_an_encoder_four_times_as_large_trains_to_the_same_bits(
    parts: Parts, encoder_at: Callable[[str, float], Encoder]
) -> None:
    assert losses(parts, encoder_at("bert", 1.0), 5) == losses(parts, encoder_at("bert", 4.0), 5)


@pytest.mark.parametrize("factor", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("name", sorted(LAST_NORM))
def test_a_head_starts_to_learn_on_an_encoder_of_any_scale(
    parts: Parts, encoder_at: Callable[[str, float], Encoder], name: str, factor: float
) -> None:
    each = losses(parts, encoder_at(name, factor))
    assert sum(each[-5:]) < 0.8 * sum(each[:5])


def test_a_primed_encoder_is_read_at_the_scale_of_its_priming(parts: Parts, toy_bert: Path) -> None:
    encoder = replace(load_encoder(str(toy_bert)), scale=4.0)
    model, plain = (build_model(each, parts.task, HEAD, parts.rows) for each in (encoder, replace(encoder, scale=1.0)))
    batch = parts.task.collate(parts.rows[:2])
    assert torch.equal(4 * model.encode(batch), plain.encode(batch))


def test_fewer_layers_give_the_hidden_states_of_that_layer(parts: Parts, toy_encoder: Callable[[str], Path]) -> None:
    batch = parts.task.collate(parts.rows[:4])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    encoder = load_encoder(str(toy_encoder("bert")))
    with torch.no_grad():
        wanted = encoder.module(**inputs, output_hidden_states=True).hidden_states[1]
        short = shortened(encoder, 1)
        found = short.module(**inputs).last_hidden_state
    assert torch.equal(found, wanted)
    assert short.module.config.num_hidden_layers == 1
    assert (
        short.weights == weights_hash(dict(short.module.state_dict())) != load_encoder(str(toy_encoder("bert"))).weights
    )


def test_a_shortened_encoder_is_saved_and_read_as_such(tmp_path: Path, toy_encoder: Callable[[str], Path]) -> None:
    for name in ("bert", "modernbert", "eurobert"):
        short = shortened(load_encoder(str(toy_encoder(name))), 1)
        short.module.save_pretrained(tmp_path / name)
        short.tokenizer.save_pretrained(tmp_path / name)
        assert load_encoder(str(tmp_path / name)).weights == short.weights


def test_more_layers_than_there_are_are_refused(toy_bert: Path) -> None:
    assert shortened(load_encoder(str(toy_bert)), None).module.config.num_hidden_layers == 2
    with pytest.raises(MetaprimeError, match=r"encoder\.layer: .* has 2 layers, not 3"):
        shortened(load_encoder(str(toy_bert)), 3)
