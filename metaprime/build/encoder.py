"""Opens the encoder of a config: from a folder, from the hub, or the embedded one, which is pre-trained first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from metaprime.build.pretrain import pretrain
from metaprime.config.sections import EncoderConfig
from metaprime.models.encoder import Encoder, load_encoder
from metaprime.runs.folder import KEPT_BASE
from metaprime.runs.log import Display


def open_encoder(
    wanted: EncoderConfig, output: Path, threads: int = 1, accelerator: Accelerator | None = None
) -> Encoder:
    """Loads the encoder of a section.

    Args:
        wanted: the section `encoder`. A name `synthetic:` is pre-trained at `<output>/base` by the first
            process, if it is not there.
        output: folder of the run.
        threads: CPU threads of this process after pre-training.
        accelerator: of processes that were launched together.

    Raises:
        MetaprimeError: the encoder cannot be read, or `<output>/base` holds something else.
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
    encoder = load_encoder(name, wanted.attention, wanted.sites, wanted.trust_remote_code)
    return replace(encoder, autocast=wanted.precision == "bfloat16")
