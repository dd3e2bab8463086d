import contextlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import get_linear_schedule_with_warmup

from symbert import OPERATORS
from tests.train.glue.conftest import CheckpointFactory
from tests.train.watched import READING, Watched
from train.errors import TrainError
from train.glue import finetune as module
from train.glue.checkpoint import Subject, find_subject
from train.glue.encode import EncodedTask, encode_task, padded, with_used_tokens_only
from train.glue.finetune import (
    StoppedError,
    epoch_batches,
    finetune,
    parameter_groups,
    predict,
    steps_of,
    training_steps,
)
from train.glue.loading import load_classifier
from train.glue.protocol import Protocol
from train.glue.read import read_task
from train.glue.score import predictions_of
from train.glue.tasks import TASKS

CPU = torch.device("cpu")
SHORT = Protocol(epochs=2, batch_size=7)


def silent(step: int) -> None:
    """Nothing to say."""


def encoded(glue: Path, subject: Subject, task: str = "rte") -> EncodedTask:
    return encode_task(read_task(TASKS[task], glue), subject, 32)


@pytest.mark.slow
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("task", ["rte", "stsb"])
def test_a_cell_repeats_bit_for_bit_whatever_ran_before(
    task: str, operator: str, glue: Path, checkpoint: CheckpointFactory
) -> None:
    subject = find_subject(checkpoint(operator), print)
    data = encoded(glue, subject, task)
    torch.manual_seed(1)
    first = finetune(subject, data, SHORT, 1, CPU, silent)
    torch.manual_seed(2)
    other = finetune(subject, data, SHORT, 2, CPU, silent)
    again = finetune(subject, data, SHORT, 1, CPU, silent)
    assert first.sha256() == again.sha256() != other.sha256()
    assert first.training_loss == again.training_loss


def test_a_step_reads_nothing_that_a_gpu_has_still_to_compute(glue: Path, checkpoint: CheckpointFactory) -> None:
    subject = find_subject(checkpoint(), print)
    model, split = load_classifier(subject, 2, 1), encoded(glue, subject).train
    assert len(set(split.lengths)) > 1  # so that there is padding, and a mask
    with Watched() as watched:
        next(training_steps(model, split, SHORT, 1))
    assert "_fused_adamw_" in watched.names
    assert not watched.names & READING


@pytest.mark.parametrize(("tf32", "precision"), [(True, "tf32"), (False, "ieee")])
def test_on_a_gpu_products_are_computed_as_the_protocol_says(
    tf32: bool, precision: str, glue: Path, checkpoint: CheckpointFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In place of a GPU the model stays where it is.
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: contextlib.nullcontext(devices))
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, _: module)
    subject = find_subject(checkpoint(), print)
    seen: set[str] = set()

    def look(_: int) -> None:
        seen.add(torch.backends.cuda.matmul.fp32_precision)

    protocol = SHORT.model_copy(update={"tf32": tf32, "epochs": 1})
    finetune(subject, encoded(glue, subject), protocol, 1, torch.device("cuda"), look)
    assert seen == {precision}


def test_a_mask_that_is_not_looked_at_changes_no_bit(glue: Path, checkpoint: CheckpointFactory) -> None:
    subject = find_subject(checkpoint("original"), print)
    model, split = load_classifier(subject, 2, 1), encoded(glue, subject).train
    logits = predict(model, split, SHORT)
    model.set_attn_implementation("sdpa")
    assert (predict(model, split, SHORT) == logits).all()


def test_fine_tuning_leaves_torchs_generator_and_threads_alone(glue: Path, checkpoint: CheckpointFactory) -> None:
    subject = find_subject(checkpoint(), print)
    torch.set_num_threads(2)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    finetune(subject, encoded(glue, subject), SHORT, 1, CPU, silent)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == 2


def test_groups_of_similar_length_add_up_to_the_gradient_of_the_whole_batch(
    glue: Path, checkpoint: CheckpointFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = find_subject(checkpoint(), print)
    split = encoded(glue, subject).train
    rows = np.arange(13)
    gradients = []
    for overhead in (0, 10_000):
        monkeypatch.setattr(module, "CPU_OVERHEAD_TOKENS", overhead)
        model = load_classifier(subject, 2, 1).eval()
        loss = module._backward(model, split, rows, SHORT, (1, 0), module.sentence_losses)
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    logits = model(**padded(split, rows, CPU)).logits
    torch.testing.assert_close(loss, F.cross_entropy(logits, torch.from_numpy(split.labels[rows])))
    assert len(module.groups_of_similar_length(split.lengths[rows].tolist(), 0)) > 1
    torch.testing.assert_close(gradients[0], gradients[1])


def without_dropout(checkpoint: Path, copy: Path) -> Path:
    """Dropout apart, which groups draw otherwise than whole batches."""
    shutil.copytree(checkpoint, copy)
    config = json.loads((copy / "config.json").read_text())
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (copy / "config.json").write_text(json.dumps({**config, **none}))
    return copy


@pytest.mark.parametrize("task", ["rte", "stsb"])
def test_training_is_that_of_a_plain_loop(task: str, glue: Path, checkpoint: CheckpointFactory, tmp_path: Path) -> None:
    """The same without groups, cut-down vocabulary or fused optimizer, and with the model's own loss."""
    subject = find_subject(without_dropout(checkpoint(), tmp_path / "copy"), print)
    data = encoded(glue, subject, task)
    protocol = Protocol(epochs=2, batch_size=7, learning_rate=1e-3, weight_decay=0.1)
    labels = len(TASKS[task].classes) or 1
    result = finetune(subject, data, protocol, 3, CPU, silent)

    plain = load_classifier(subject, labels, 3).eval()
    decayed = [p for n, p in plain.named_parameters() if not n.endswith("bias") and "LayerNorm" not in n]
    exempt = [p for n, p in plain.named_parameters() if n.endswith("bias") or "LayerNorm" in n]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": exempt, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, fused=False, foreach=False)
    total = 2 * math.ceil(40 / 7)
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(0.1 * total), total)
    for epoch in range(2):
        for rows in epoch_batches(40, 7, 3, epoch):
            target = torch.from_numpy(data.train.labels[rows])
            plain(**padded(data.train, rows, CPU), labels=target).loss.backward()
            torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    expected = predict(plain, data.splits["validation"], protocol)
    np.testing.assert_allclose(result.logits["validation"], expected, rtol=1e-4, atol=1e-5)


def test_cutting_the_vocabulary_down_changes_no_output(glue: Path, checkpoint: CheckpointFactory) -> None:
    subject = find_subject(checkpoint(), print)
    data = encoded(glue, subject)
    model = load_classifier(subject, 2, 1)
    before = predict(model, data.train, SHORT)
    smaller, put_back = with_used_tokens_only(model, data)
    assert model.get_input_embeddings().num_embeddings < 23
    assert np.array_equal(predict(model, smaller.train, SHORT), before)
    put_back()
    assert model.get_input_embeddings().num_embeddings == 23
    assert np.array_equal(predict(model, data.train, SHORT), before)


def test_extra_splits_with_other_words_are_predicted_and_change_nothing_else(
    glue: Path, checkpoint: CheckpointFactory
) -> None:
    subject = find_subject(checkpoint(), print)
    data, other = encoded(glue, subject), encoded(glue, subject, "cola").splits["validation"]
    alone = finetune(subject, data, SHORT, 1, CPU, silent)
    beside = finetune(subject, data, SHORT, 1, CPU, silent, {"other": other, "same": data.splits["validation"]})
    assert not set(other.ids.tolist()) <= set(np.concatenate([split.ids for split in data.splits.values()]).tolist())
    assert beside.sha256() == alone.sha256()
    assert np.array_equal(beside.extra["same"], alone.logits["validation"])
    assert beside.extra["other"].shape == (len(other), 2)


def test_each_epoch_is_its_own_permutation_cut_into_batches() -> None:
    first, second = epoch_batches(40, 16, 1, 0), epoch_batches(40, 16, 1, 1)
    assert [len(batch) for batch in first] == [16, 16, 8]
    assert sorted(np.concatenate(first)) == list(range(40))
    assert not np.array_equal(np.concatenate(first), np.concatenate(second))
    assert not np.array_equal(np.concatenate(first), np.concatenate(epoch_batches(40, 16, 2, 0)))
    assert steps_of(40, Protocol()) == 15


def test_only_weights_outside_layer_norm_are_decayed(checkpoint: CheckpointFactory) -> None:
    model = load_classifier(find_subject(checkpoint(), print), 2, 1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, exempt = ([names[id(p)] for p in group["params"]] for group in parameter_groups(model, 0.1))
    assert sorted([*decayed, *exempt]) == sorted(names.values())
    assert all(name.endswith("bias") or "LayerNorm" in name for name in exempt)
    assert not any(name.endswith("bias") or "LayerNorm" in name for name in decayed)
    assert any(name.endswith("pairwise") for name in decayed)


def test_a_model_learns_what_can_be_learned(glue: Path, checkpoint: CheckpointFactory) -> None:
    subject = find_subject(checkpoint("original"), print)
    data = encoded(glue, subject, "cola")
    protocol = Protocol(epochs=20, learning_rate=3e-3)
    result = finetune(subject, data, protocol, 1, CPU, silent)
    predictions = predictions_of(TASKS["cola"], result.logits["validation"])
    assert (predictions == data.splits["validation"].labels).all()


def test_a_training_that_diverges_is_an_error_that_names_the_cell(glue: Path, checkpoint: CheckpointFactory) -> None:
    subject = find_subject(checkpoint(), print)
    protocol = Protocol(epochs=1, learning_rate=1e38)
    with pytest.raises(TrainError, match="pairwise, rte, seed 1: the training diverged"):
        finetune(subject, encoded(glue, subject), protocol, 1, CPU, silent)


def test_a_step_may_end_the_training(glue: Path, checkpoint: CheckpointFactory) -> None:
    subject = find_subject(checkpoint(), print)
    steps = []

    def stop_at_two(step: int) -> None:
        steps.append(step)
        if step == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        finetune(subject, encoded(glue, subject), SHORT, 1, CPU, stop_at_two)
    assert steps == [1, 2]


def test_bfloat16_is_close_to_float32(glue: Path, checkpoint: CheckpointFactory) -> None:
    subject = find_subject(checkpoint(), print)
    data: Any = encoded(glue, subject)
    half = finetune(subject, data, Protocol(epochs=1, precision="bfloat16"), 1, CPU, silent)
    whole = finetune(subject, data, Protocol(epochs=1), 1, CPU, silent)
    assert half.sha256() != whole.sha256()
    np.testing.assert_allclose(half.logits["validation"], whole.logits["validation"], atol=0.02)
