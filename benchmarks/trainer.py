"""Fine-tunes and scores adapters as transformers' token-classification example does: by `Trainer`, cell after cell.

It is the script that a user would write without metaprime, and knows nothing of it: `trainer_peft.py`
and `trainer_adapterhub.py` add the adapter of a peer. One process works through all cells. As in the
example, batches are padded to their longest sentence and nothing is grouped by length.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, load_dataset
from seqeval.metrics import f1_score
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

IGNORED = -100
"""Label of sub-words that are not the first of a word."""


@dataclass(frozen=True)
class Job:
    """The work, as a file of JSON: paths, labels and settings.

    Attributes:
        encoder: folder of the encoder.
        cells: (language, seed) of each fine-tuning; `<language>-s<seed>.jsonl` in `folder` holds its
            sentences, `<language>-test.jsonl` those to score.
        folder: folder of these files; lines have the keys `tokens` and `ner_tags`.
        output: folder for adapters, predictions and `scores.json`.
        labels: all tags, in the order of their ids.
        max_length: longest sentence in sub-words; longer ones are cut.
        steps, batch, lr, warmup, clip: training; `warmup` is a share of the steps.
        dropout: whether the encoder's own dropout is on in training, as its config has it.
        rank, alpha: of LoRA.
        bottleneck: width of a bottleneck adapter.
    """

    encoder: str
    cells: Sequence[tuple[str, int]]
    folder: str
    output: str
    labels: Sequence[str]
    max_length: int
    steps: int
    batch: int
    lr: float
    warmup: float
    clip: float
    dropout: bool
    rank: int
    alpha: float
    bottleneck: int


def run(file: str, with_adapter: Callable[[Any, Job], Any], trainer: type[Trainer] = Trainer) -> None:
    """Fine-tunes and scores all cells of a job and writes `scores.json`: (language, seed) -> F1 in per cent.

    Args:
        file: a job as JSON.
        with_adapter: returns the model with an adapter to train, its encoder frozen.
        trainer: the peer's class of trainer.
    """
    job = Job(**json.loads(Path(file).read_text(encoding="utf-8")))
    # `AutoTokenizer` of transformers 4 does not know the class that transformers 5 names in a folder.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(job.encoder)
    tests: dict[str, Dataset] = {}
    scores = {}
    for language, seed in job.cells:
        set_seed(seed)
        train = read(job, f"{language}-s{seed}", tokenizer)
        if language not in tests:
            tests[language] = read(job, f"{language}-test", tokenizer)
        output = Path(job.output) / f"{language}-s{seed}"
        fine_tuner = trainer(
            model=with_adapter(new_model(job), job),
            args=arguments(job, seed, output),
            train_dataset=train,
            data_collator=DataCollatorForTokenClassification(tokenizer),
            processing_class=tokenizer,
        )
        fine_tuner.train()
        predicted = predict(fine_tuner, tests[language], job.labels)
        fine_tuner.save_model()
        lines = [json.dumps({"predicted": tags}) + "\n" for tags in predicted]
        (output / "predictions.jsonl").write_text("".join(lines), encoding="utf-8")
        gold = [list(tags) for tags in tests[language]["ner_tags"]]
        scores[f"{language}-s{seed}"] = 100 * float(f1_score(gold, predicted, zero_division=0))
    (Path(job.output) / "scores.json").write_text(json.dumps(scores), encoding="utf-8")


def read(job: Job, name: str, tokenizer: Any) -> Dataset:
    """Reads a file of sentences and encodes them: a label on the first sub-word of each word."""
    number = {tag: index for index, tag in enumerate(job.labels)}

    def encode(examples: dict[str, list[Any]]) -> dict[str, Any]:
        encoded = tokenizer(examples["tokens"], truncation=True, max_length=job.max_length, is_split_into_words=True)
        labels, words = [], []
        for place, tags in enumerate(examples["ner_tags"]):
            own, previous = [], None
            for word in encoded.word_ids(place):
                own.append(IGNORED if word is None or word == previous else number[tags[word]])
                previous = word
            labels.append(own)
            words.append([word for word in dict.fromkeys(encoded.word_ids(place)) if word is not None])
        return {**encoded, "labels": labels, "words": words}

    data = load_dataset("json", data_files=str(Path(job.folder) / f"{name}.jsonl"), split="train")
    return data.map(encode, batched=True)


def new_model(job: Job) -> Any:
    """Returns the encoder with a new head for the labels, in float32."""
    config = AutoConfig.from_pretrained(job.encoder, num_labels=len(job.labels))
    if not job.dropout:
        rates = [key for key, value in config.to_dict().items() if "dropout" in key and isinstance(value, float)]
        config.update(dict.fromkeys(rates, 0.0))
    return AutoModelForTokenClassification.from_pretrained(job.encoder, config=config, dtype=torch.float32)


def arguments(job: Job, seed: int, output: Path) -> TrainingArguments:
    """Returns the arguments of a trainer; what is not given here are its defaults."""
    return TrainingArguments(
        output_dir=str(output),
        max_steps=job.steps,
        per_device_train_batch_size=job.batch,
        per_device_eval_batch_size=job.batch,
        learning_rate=job.lr,
        warmup_steps=round(job.warmup * job.steps),
        max_grad_norm=job.clip,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=seed,
    )


def predict(trainer: Trainer, data: Dataset, labels: Sequence[str]) -> list[list[str]]:
    """Returns a tag for each word of each sentence: O for those that were cut away."""
    found = trainer.predict(data)
    predicted = []
    for logits, own, words, tokens in zip(
        found.predictions, found.label_ids, data["words"], data["tokens"], strict=True
    ):
        tags = ["O"] * len(tokens)
        for word, label in zip(words, np.argmax(logits[own != IGNORED], axis=-1), strict=True):
            tags[word] = labels[label]
        predicted.append(tags)
    return predicted
