"""Opens the encoder of a config from a folder or the hub, or pre-trains the embedded one."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from metaprime.build.folders import is_pretrained
from metaprime.build.pretrain import pretrain, untrained
from metaprime.config.sections import EncoderConfig
from metaprime.models.encoder import Encoder, load_encoder, shortened
from metaprime.runs.folder import KEPT_BASE
from metaprime.runs.log import Display

log = logging.getLogger(__name__)


def open_encoder(
    wanted: EncoderConfig, output: Path, threads: int = 1, accelerator: Accelerator | None = None
) -> Encoder:
    """Loads the encoder that a config names; pre-trains the embedded one if it does not exist yet.

    Args:
        wanted: the section `encoder`. The name `synthetic:` stands for the embedded encoder at
            `<output>/base`, which only the main process pre-trains.
        output: folder of the run.
        threads: CPU threads of this process after pre-training.
        accelerator: the accelerator of processes that run together, or None.

    Raises:
        MetaprimeError: the encoder cannot be read, or `<output>/base` holds other files.

    Example: `open_encoder(config.encoder, Path("runs/demo"))`
    """
    name = wanted.name
    if name.partition(":")[0] == "synthetic":
        folder = output / KEPT_BASE
        if accelerator is None or accelerator.is_main_process:
            torch.set_num_threads(wanted.pretrain.threads)
            with Display("pre-training", wanted.pretrain.steps, True) as display:
                pretrain(
                    wanted.pretrain,
                    name,
                    folder,
                    lambda done, _, loss: display.show(done, f"masked-word loss {loss:.3f}"),
                )
            torch.set_num_threads(threads)
        if accelerator:
            accelerator.wait_for_everyone()
        name = str(folder)
    encoder = load_encoder(
        name,
        wanted.attention,
        wanted.sites,
        wanted.trust_remote_code,
        spacing=wanted.spacing,
        direction=wanted.direction,
    )
    if wanted.packed and encoder.padded and (accelerator is None or accelerator.is_main_process):
        log.warning("encoder.name %r: its batches stay padded: %s", encoder.name, encoder.padded)
    return replace(
        shortened(encoder, wanted.layer),
        autocast=wanted.precision == "bfloat16",
        padded=encoder.padded if wanted.packed else "encoder.packed is false",
    )


@contextlib.contextmanager
def at_hand(wanted: EncoderConfig, output: Path) -> Iterator[Encoder]:
    """Opens the encoder that a config names and writes nothing: `with at_hand(config.encoder, output) as encoder:`.

    An embedded encoder that does not exist yet has its tokenizer and shape, and random weights.

    Args:
        wanted: the section `encoder`.
        output: folder of the run.

    Raises:
        MetaprimeError: the encoder cannot be read, or `<output>/base` holds other files.
    """
    if wanted.name.partition(":")[0] != "synthetic" or is_pretrained(wanted.pretrain, wanted.name, output / KEPT_BASE):
        yield open_encoder(wanted, output)
        return
    with tempfile.TemporaryDirectory() as aside:
        untrained(wanted.pretrain, wanted.name, Path(aside))
        yield open_encoder(wanted.model_copy(update={"name": aside}), output)
