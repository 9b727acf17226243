"""Fine-tunes LoRA of Hugging Face's peft by transformers' `Trainer`: see trainer.py."""

from __future__ import annotations

import sys
from typing import Any

import trainer
from peft import LoraConfig, TaskType, get_peft_model


def with_lora(model: Any, job: trainer.Job) -> Any:
    """Returns the model with low-rank terms on its projections of queries and values."""
    terms = LoraConfig(
        task_type=TaskType.TOKEN_CLS, r=job.rank, lora_alpha=job.alpha, target_modules=["query", "value"]
    )
    return get_peft_model(model, terms)


def main() -> None:
    """Works through the job that the command line names."""
    trainer.run(sys.argv[1], with_lora)
