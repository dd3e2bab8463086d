from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from symbert import OPERATORS
from tests.corpora import write_corpus
from tests.train.tiny import tiny_recipe
from train.checkpoint import (
    load_optimizer,
    load_weights,
    newest_valid,
    open_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from train.errors import TrainError
from train.loop import Trainer
from train.pretrain import first_model


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus") / "tokenizer"


def trained(operator: str = "pairwise", seed: int = 1) -> Trainer:
    """A trainer after one step on arbitrary gradients."""
    recipe = tiny_recipe(operator, training__seed=seed)
    trainer = Trainer(first_model(recipe), recipe, torch.device("cpu"))
    for parameter in trainer.model.parameters():
        parameter.grad = torch.randn_like(parameter)
    trainer._update(3)
    return trainer


def save(run: Path, step: int, trainer: Trainer, tokenizer: Path) -> Path:
    return save_checkpoint(run, step, trainer.model, trainer.optimizer, tokenizer=tokenizer, scaler={})


@pytest.mark.parametrize("operator", OPERATORS)
def test_weights_and_moments_come_back_bit_for_bit(tmp_path: Path, tokenizer: Path, operator: str) -> None:
    before, after = trained(operator), trained(operator, seed=2)
    folder = save(tmp_path, 7, before, tokenizer)
    load_weights(after.model, folder)
    load_optimizer(after.model, after.optimizer, folder)
    for name, parameter in before.model.named_parameters():
        other = after.model.get_parameter(name)
        assert torch.equal(parameter, other)
        stored, loaded = before.optimizer.state[parameter], after.optimizer.state[other]
        assert stored.keys() == loaded.keys()
        assert all(torch.equal(stored[moment], loaded[moment]) for moment in stored)


def test_a_checkpoint_opens_with_transformers(tmp_path: Path, tokenizer: Path) -> None:
    trainer = trained()
    folder = save(tmp_path, 7, trainer, tokenizer)
    model = AutoModelForMaskedLM.from_pretrained(folder)
    assert all(torch.equal(weight, trainer.model.state_dict()[name]) for name, weight in model.state_dict().items())
    assert AutoTokenizer.from_pretrained(folder).mask_token_id == 4


def test_nothing_in_a_checkpoint_is_a_pickle(tmp_path: Path, tokenizer: Path) -> None:
    folder = save(tmp_path, 7, trained(), tokenizer)
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors", ".py", ".txt"}


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [flip_a_bit, cut, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "config.json", "state.json"])
def test_the_newest_checkpoint_without_damage_is_found(
    tmp_path: Path, tokenizer: Path, name: str, damage: Callable[[Path], None]
) -> None:
    older, newer = (save(tmp_path, step, trained(), tokenizer) for step in (6, 12))
    damage(newer / name)
    said: list[str] = []
    found = newest_valid(tmp_path, said.append)
    assert found is not None
    assert (found.folder, found.step) == (older, 6)
    assert len(said) == 1
    assert "step-00000012" in said[0]
    # Half of state.json are the hashes of other files: one that is flipped there is told as theirs.
    assert name in said[0] or name == "state.json"


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert newest_valid(tmp_path, pytest.fail) is None


def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    state = save(tmp_path, 6, trained(), tokenizer) / "state.json"
    state.write_text(state.read_text().replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(TrainError, match="format version 9, expected 1"):
        open_checkpoint(state.parent)


def test_weights_of_another_model_are_refused(tmp_path: Path, tokenizer: Path) -> None:
    folder = save(tmp_path, 6, trained("original"), tokenizer)
    with pytest.raises(TrainError, match="another model's weights"):
        load_weights(trained("symmetric").model, folder)


def test_the_newest_two_are_kept_and_weights_alone_at_the_steps_of_figure_3(tmp_path: Path, tokenizer: Path) -> None:
    trainer = trained()
    for step in (5_000, 6_000, 7_000, 8_000, 9_000):
        save(tmp_path, step, trainer, tokenizer)
        prune_checkpoints(tmp_path)
    folders = sorted((tmp_path / "checkpoints").iterdir())
    assert [int(folder.name[5:]) for folder in folders] == [6_000, 8_000, 9_000]
    assert [(folder / "optimizer.safetensors").exists() for folder in folders] == [False, True, True]
    AutoModelForMaskedLM.from_pretrained(folders[0])
    with pytest.raises(TrainError, match="weights alone, which cannot be resumed"):
        open_checkpoint(folders[0])
    prune_checkpoints(tmp_path)
    assert sorted((tmp_path / "checkpoints").iterdir()) == folders


def test_nothing_is_deleted_while_the_newest_is_damaged(tmp_path: Path, tokenizer: Path) -> None:
    trainer = trained()
    for step in (1, 2, 3):
        folder = save(tmp_path, step, trainer, tokenizer)
    cut(folder / "model.safetensors")
    with pytest.raises(TrainError, match="is damaged"):
        prune_checkpoints(tmp_path)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3
