"""Fine-tunes AdapterHub's `seq_bn`, a Pfeiffer adapter, by its `AdapterTrainer`: see trainer.py.

The package needs transformers 4 and so an environment of its own: `make adapterhub`.
"""

from __future__ import annotations

import sys
from typing import Any

import adapters
import trainer
from adapters import AdapterTrainer, SeqBnConfig


def with_bottleneck(model: Any, job: trainer.Job) -> Any:
    """Returns the model with one bottleneck in each layer; the encoder is frozen, the head is not."""
    adapters.init(model)
    model.add_adapter("ner", config=SeqBnConfig(reduction_factor=model.config.hidden_size / job.bottleneck))
    model.train_adapter("ner")
    return model


def main() -> None:
    """Works through the job that the command line names."""
    trainer.run(sys.argv[1], with_bottleneck, AdapterTrainer)
