"""The heads under transformers' own Trainer, as users would train them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from symbert import (
    SymbertForMaskedLM,
    SymbertForQuestionAnswering,
    SymbertForSequenceClassification,
    SymbertForTokenClassification,
)

ROWS = 8


def examples(head: Any) -> list[dict[str, torch.Tensor]]:
    ids = torch.randint(1, 53, (ROWS, 7))
    labels: dict[str, torch.Tensor] = {
        SymbertForSequenceClassification: {"labels": torch.arange(ROWS) % 3},
        SymbertForTokenClassification: {"labels": torch.where(ids % 4 == 0, -100, ids % 3)},
        SymbertForMaskedLM: {"labels": torch.where(torch.rand(ids.shape) < 0.4, ids, -100)},
        SymbertForQuestionAnswering: {
            "start_positions": torch.arange(ROWS) % 5,
            "end_positions": torch.full((ROWS,), 6),
        },
    }[head]
    columns = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": ids % 2, **labels}
    return [{name: column[row] for name, column in columns.items()} for row in range(ROWS)]


def trained(head: Any, config: Any, rows: list[dict[str, torch.Tensor]], folder: Path, accumulate: int) -> Any:
    torch.manual_seed(0)
    model = head(config("pairwise", num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=ROWS // accumulate,
        gradient_accumulation_steps=accumulate,
        max_steps=1,
        optim="sgd",
        learning_rate=0.1,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows)  # type: ignore[arg-type]
    trainer.train()
    return model


@pytest.mark.parametrize(
    "head",
    [
        SymbertForMaskedLM,
        SymbertForSequenceClassification,
        SymbertForTokenClassification,
        SymbertForQuestionAnswering,
    ],
)
def test_a_head_takes_a_step_in_the_trainer(config: Any, head: Any, tmp_path: Path) -> None:
    rows = examples(head)
    torch.manual_seed(0)
    before = head(config("pairwise", num_labels=3)).state_dict()
    after = trained(head, config, rows, tmp_path, accumulate=1).state_dict()
    name = "symbert.encoder.layer.0.attention.self.pairwise"
    assert after[name].isfinite().all()
    assert not torch.equal(after[name], before[name])


@pytest.mark.slow
@pytest.mark.parametrize("head", [SymbertForMaskedLM, SymbertForSequenceClassification, SymbertForQuestionAnswering])
def test_accumulating_micro_batches_takes_the_same_step(config: Any, head: Any, tmp_path: Path) -> None:
    rows = examples(head)
    whole, parts = (trained(head, config, rows, tmp_path, accumulate=number).state_dict() for number in (1, 4))
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, atol=1e-5, rtol=1e-4, msg=name)
