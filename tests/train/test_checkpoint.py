import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from symbert import OPERATORS
from tests.corpora import write_corpus
from tests.train.tiny import tiny_recipe
from train.checkpoint import (
    check_model,
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


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("step", "9", "`step` is '9', expected a valid integer"),
        ("step", -1, "`step` is -1, expected greater than or equal to 0"),
        ("step", None, "`step` is None, expected a valid integer"),
        ("minutes", "1", "`minutes` is '1', expected a valid number"),
        ("minutes", None, "`minutes` is None, expected a valid number"),
        ("scaler", [], r"`scaler` is \[\], expected an object"),
        ("weights_only", "yes", "`weights_only` is 'yes', expected a valid boolean"),
        ("files", {}, "`files` does not name model.safetensors"),
        ("files", {"model.safetensors": 5}, "`files.model.safetensors` is 5, expected a valid string"),
        ("files", {"../x": "0"}, r"`files` names '\.\./x', expected the name of a file inside the folder"),
        ("files", {"/etc/passwd": "0"}, "`files` names '/etc/passwd', expected the name of a file inside"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_by_its_field(
    tmp_path: Path, tokenizer: Path, key: str, value: Any, message: str
) -> None:
    older, newer = (save(tmp_path, step, trained(), tokenizer) for step in (5, 6))
    path = newer / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    for read in (open_checkpoint, check_model):
        with pytest.raises(TrainError, match=f"{re.escape(str(path))} is damaged: {message}") as error:
            read(newer)
        assert "\n" not in str(error.value)
    told: list[str] = []
    found = newest_valid(tmp_path, told.append)
    assert found is not None
    assert found.folder == older
    assert len(told) == 1


def test_a_state_without_the_optimizer_is_not_resumed(tmp_path: Path, tokenizer: Path) -> None:
    path = save(tmp_path, 6, trained(), tokenizer) / "state.json"
    state = json.loads(path.read_text())
    del state["files"]["optimizer.safetensors"]
    path.write_text(json.dumps(state))
    assert open_checkpoint(path.parent).step == 6
    told: list[str] = []
    assert newest_valid(tmp_path, told.append, with_optimizer=True) is None
    assert "`files` does not name optimizer.safetensors" in told[0]


@pytest.mark.parametrize("content", ["[]", "null", '"x"', "{", "[" * 100_000])
def test_a_state_that_is_no_object_is_refused(tmp_path: Path, tokenizer: Path, content: str) -> None:
    folder = save(tmp_path, 6, trained(), tokenizer)
    (folder / "state.json").write_text(content)
    with pytest.raises(TrainError, match=r"state\.json is damaged: "):
        open_checkpoint(folder)


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
