"""The peer of benchmarks/glue.py: transformers' Trainer as its run_glue example sets it up."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PrinterCallback, Trainer, TrainingArguments

from symbert import SymbertConfig, SymbertForMaskedLM
from train.glue.checkpoint import Subject
from train.glue.loading import load_tokenizer
from train.glue.protocol import Protocol
from train.glue.read import Split, TaskData


class PaddedRows(Dataset[dict[str, Any]]):
    """Rows as run_glue prepares them: padded to the full length, tokenized beforehand."""

    def __init__(self, split: Split, tokenizer: Any, length: int) -> None:
        self.columns = dict(tokenizer(*split.text, padding="max_length", max_length=length, truncation=True))
        self.columns["label"] = split.labels.tolist()

    def __len__(self) -> int:
        return len(self.columns["label"])

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {name: column[row] for name, column in self.columns.items()}


def trainer_of(
    subject: Subject, data: TaskData, protocol: Protocol, seed: int = 1, callbacks: Sequence[Any] = ()
) -> Trainer:
    """The Trainer of run_glue, on the same weights."""
    transformers.set_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        subject.folder, num_labels=len(data.task.classes) or 1, dtype=torch.float32
    )
    arguments = TrainingArguments(
        output_dir="unused",
        per_device_train_batch_size=protocol.batch_size,
        learning_rate=protocol.learning_rate,
        num_train_epochs=protocol.epochs,
        warmup_steps=protocol.warmup_ratio,
        weight_decay=protocol.weight_decay,
        seed=seed,
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    rows = PaddedRows(data.train, load_tokenizer(subject), protocol.max_length)
    trainer = Trainer(model, arguments, train_dataset=rows, callbacks=list(callbacks))
    trainer.remove_callback(PrinterCallback)
    return trainer


def random_weights(folder: Path, tokenizer: Path) -> Path:
    """A tiny model at random weights below `folder`, always the same: one layer of width 64.

    The symmetric operator with a wide initializer: a word sees itself and its copies from the first step on.
    """
    if not (folder / "config.json").is_file():
        loaded = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
        transformers.set_seed(0)
        config = SymbertConfig(
            vocab_size=len(loaded),
            hidden_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=128,
            max_position_embeddings=128,
            attention_operator="symmetric",
            initializer_range=0.1,
        )
        SymbertForMaskedLM(config).save_pretrained(folder)
        loaded.save_pretrained(folder)
    return folder
