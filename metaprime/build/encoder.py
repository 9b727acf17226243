"""Opens the encoder of a config: from a folder, from the hub, or the embedded one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from metaprime.build.pretrain import pretrain
from metaprime.config.sections import Config
from metaprime.models.encoder import Encoder, load_encoder
from metaprime.runs.folder import KEPT_BASE
from metaprime.runs.log import Display


def open_encoder(config: Config, accelerator: Accelerator | None = None) -> Encoder:
    """The config's encoder; `synthetic:` is pre-trained at `<run.output>/base` by the first process if not there."""
    name = config.encoder.name
    if name.partition(":")[0] == "synthetic":
        folder = Path(config.run.output) / KEPT_BASE
        main = accelerator is None or accelerator.is_main_process
        if main:
            torch.set_num_threads(config.encoder.pretrain.threads)
            with Display("pre-training", config.encoder.pretrain.steps, True) as display:
                pretrain(
                    config.encoder.pretrain,
                    name,
                    folder,
                    lambda done, _, loss: display.show(done, f"masked-word loss {loss:.3f}"),
                )
            torch.set_num_threads(config.run.threads)
        if accelerator:
            accelerator.wait_for_everyone()
        name = str(folder)
    wanted = config.encoder
    encoder = load_encoder(name, wanted.attention, wanted.sites, wanted.trust_remote_code)
    return replace(encoder, autocast=wanted.precision == "bfloat16")
