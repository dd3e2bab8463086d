import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertModel

from durable.files import file_sha256
from symbert import OPERATORS, SymbertError
from tests.train.glue.conftest import CheckpointFactory, save_tokenizer
from train.checkpoint import checkpoint_folder
from train.errors import TrainError
from train.glue.checkpoint import WHICH, distinct, find_subject, find_subjects
from train.glue.loading import load_classifier, load_tokenizer


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_head_comes_from_the_seed_alone_and_the_encoder_from_the_checkpoint(
    operator: str, checkpoint: CheckpointFactory
) -> None:
    torch.manual_seed(5)
    one = load_classifier(find_subject(checkpoint(operator), print), 3, seed=1)
    torch.manual_seed(6)
    again = load_classifier(find_subject(checkpoint(operator), print), 3, seed=1)
    other_seed = load_classifier(find_subject(checkpoint(operator), print), 3, seed=2)
    other_operator = load_classifier(find_subject(checkpoint("original"), print), 3, seed=1)
    for name, parameter in one.state_dict().items():
        assert torch.equal(parameter, again.state_dict()[name]), name
        is_head = name.startswith("classifier") or ".pooler." in name
        if is_head:
            assert torch.equal(parameter, other_operator.state_dict()[name]), name
        assert torch.equal(parameter, other_seed.state_dict()[name]) is (not is_head or name.endswith("bias")), name
    assert one.classifier.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert not one.classifier.bias.any()


def bert(folder: Path, kind: type[BertModel] | type[BertForMaskedLM], vocab_size: int = 23) -> Path:
    sizes = {"hidden_size": 21, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 34}
    kind(BertConfig(vocab_size=vocab_size, max_position_embeddings=32, **sizes)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def test_a_stock_bert_keeps_the_pooler_that_it_has(tmp_path: Path) -> None:
    stock = bert(tmp_path / "stock", BertModel)
    pooler = BertModel.from_pretrained(stock).pooler.dense.weight
    heads = [load_classifier(find_subject(stock, print), 2, seed) for seed in (1, 2)]
    assert all(torch.equal(head.bert.pooler.dense.weight, pooler) for head in heads)
    assert not torch.equal(heads[0].classifier.weight, heads[1].classifier.weight)


def test_a_stock_bert_without_pooler_gets_one_from_the_seed(tmp_path: Path) -> None:
    subject = find_subject(bert(tmp_path / "stock", BertForMaskedLM), print)
    first, second = (load_classifier(subject, 2, seed).bert.pooler.dense.weight for seed in (1, 2))
    assert not torch.equal(first, second)


def test_the_head_of_another_fine_tuning_is_not_taken_over(checkpoint: CheckpointFactory, tmp_path: Path) -> None:
    tuned = load_classifier(find_subject(checkpoint(), print), 3, seed=1)
    tuned.save_pretrained(tmp_path / "tuned")
    save_tokenizer(tmp_path / "tuned")
    subject = find_subject(tmp_path / "tuned", print)
    for num_labels in (2, 3):
        fresh = load_classifier(subject, num_labels, seed=2)
        assert fresh.classifier.weight.shape[0] == num_labels
        assert not torch.equal(fresh.classifier.weight, tuned.classifier.weight[:num_labels])
        assert torch.equal(fresh.symbert.pooler.dense.weight, tuned.symbert.pooler.dense.weight)


def test_the_identity_is_the_weights_and_what_else_decides_the_scores(
    checkpoint: CheckpointFactory, tmp_path: Path
) -> None:
    subject = find_subject(checkpoint(), print)
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint(), copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "transformers_version": "0", "_name_or_path": "x"}))
    assert (find_subject(copy, print).weights, find_subject(copy, print).model) == (subject.weights, subject.model)
    (copy / "config.json").write_text(json.dumps({**config, "hidden_dropout_prob": 0.5}))
    assert find_subject(copy, print).weights == subject.weights
    assert find_subject(copy, print).model != subject.model


def run_folder(run: Path, checkpoint: Path, steps: Sequence[int]) -> Path:
    for step in steps:
        folder = checkpoint_folder(run, step)
        shutil.copytree(checkpoint, folder)
        files = {path.name: file_sha256(path) for path in folder.iterdir()}
        state = {"format_version": 1, "step": step, "files": files, "scaler": {}}
        (folder / "state.json").write_text(json.dumps(state))
    return run


def test_a_run_folder_stands_for_its_newest_whole_checkpoint(checkpoint: CheckpointFactory, tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", checkpoint(), (10, 200, 300))
    (checkpoint_folder(run, 300) / "model.safetensors").write_bytes(b"cut")
    notices: list[str] = []
    subject = find_subject(run, notices.append)
    assert subject.folder.name == "step-00000200"
    assert (subject.name, subject.run, subject.step) == ("run", "run", 200)
    assert find_subject(subject.folder, print).name == "run/step-00000200"
    assert ["step-00000300" in notice for notice in notices] == [True]
    with pytest.raises(TrainError, match="step-00000300/model.safetensors is damaged: its sha256 is not the recorded"):
        find_subject(checkpoint_folder(run, 300), print)
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    for which in WHICH:
        with pytest.raises(TrainError, match="holds no whole checkpoint"):
            find_subjects(tmp_path / "empty", which, print)


def test_all_checkpoints_of_a_run_or_some_evenly_spaced_on_a_logarithmic_axis(
    checkpoint: CheckpointFactory, tmp_path: Path
) -> None:
    run = run_folder(tmp_path / "run", checkpoint(), (*range(10, 101, 10), 110))
    (checkpoint_folder(run, 110) / "model.safetensors").write_bytes(b"cut")
    notices: list[str] = []
    assert [subject.step for subject in find_subjects(run, "all", notices.append)] == list(range(10, 101, 10))
    assert len(notices) == 1
    assert "step-00000110" in notices[0]
    assert [subject.step for subject in find_subjects(run, "log", print)] == [10, 20, 40, 70, 100]
    with pytest.raises(TrainError, match="`some` is no choice of checkpoints, expected one of last, all, log"):
        find_subjects(run, "some", print)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("model.safetensors", "holds no weights, expected model.safetensors"),
        ("config.json", "holds no config.json"),
        ("tokenizer.json", "holds no tokenizer, expected tokenizer.json or vocab.txt"),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_an_error_that_names_what_is_missing(
    gone: str, message: str, checkpoint: CheckpointFactory, tmp_path: Path
) -> None:
    shutil.copytree(checkpoint(), tmp_path / "copy")
    (tmp_path / "copy" / gone).unlink()
    with pytest.raises(TrainError, match=message):
        find_subject(tmp_path / "copy", print)


def test_weights_as_a_pickle_are_not_loaded(checkpoint: CheckpointFactory, tmp_path: Path) -> None:
    shutil.copytree(checkpoint(), tmp_path / "copy")
    (tmp_path / "copy" / "model.safetensors").rename(tmp_path / "copy" / "pytorch_model.bin")
    with pytest.raises(TrainError, match="holds no weights") as caught:
        find_subject(tmp_path / "copy", print)
    assert "is a pickle" in caught.value.__notes__[0]


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="nowhere does not exist, expected a checkpoint or run folder"):
        find_subject(tmp_path / "nowhere", print)


def test_a_tokenizer_of_a_larger_vocabulary_is_an_error(tmp_path: Path) -> None:
    subject = find_subject(bert(tmp_path / "small", BertForMaskedLM, vocab_size=17), print)
    with pytest.raises(TrainError, match="the tokenizer has 18 tokens, the model 17"):
        load_tokenizer(subject)


def test_damaged_weights_are_an_error_that_names_the_file(checkpoint: CheckpointFactory, tmp_path: Path) -> None:
    shutil.copytree(checkpoint(), tmp_path / "copy")
    weights = tmp_path / "copy" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(TrainError, match=r"copy/model.safetensors is damaged"):
        load_classifier(find_subject(tmp_path / "copy", print), 2, seed=1)


def test_weights_of_another_shape_than_the_configuration_are_an_error(
    checkpoint: CheckpointFactory, tmp_path: Path
) -> None:
    shutil.copytree(checkpoint(), tmp_path / "copy")
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    (tmp_path / "copy" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(TrainError, match=r"the weight symbert\.encoder\.layer\.2\..* is missing"):
        load_classifier(find_subject(tmp_path / "copy", print), 2, seed=1)
    (tmp_path / "copy" / "config.json").write_text(json.dumps({**config, "intermediate_size": 35}))
    with pytest.raises(TrainError, match=r"has shape \(34, ?21\)|has shape \(34,\)|has shape \(21, ?34\)"):
        load_classifier(find_subject(tmp_path / "copy", print), 2, seed=1)


def test_weights_of_another_vocabulary_are_refused_before_anything_is_run(
    checkpoint: CheckpointFactory, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint(), copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "vocab_size": 40}))
    with pytest.raises(TrainError, match=r"weights are of a vocabulary of 23 tokens, config\.json of 40"):
        find_subject(copy, print)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_damaged_file_is_named(file: str, checkpoint: CheckpointFactory, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint(), copy)
    content = (copy / file).read_bytes()
    (copy / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(TrainError, match="is damaged"):
        load_tokenizer(find_subject(copy, print))


def test_a_setting_of_the_tokenizer_makes_another_model(checkpoint: CheckpointFactory, tmp_path: Path) -> None:
    first = find_subject(checkpoint(), print)
    for setting, is_other in (({"do_lower_case": False}, True), ({"model_max_length": 7}, False)):
        copy = shutil.copytree(first.folder, tmp_path / str(is_other))
        settings = json.loads((copy / "tokenizer_config.json").read_text())
        (copy / "tokenizer_config.json").write_text(json.dumps(settings | setting))
        second = find_subject(copy, print)
        assert second.weights == first.weights
        assert (second.tokenizer != first.tokenizer, second.model != first.model) == (is_other, is_other)


def test_the_same_weights_are_one_model_if_nothing_else_differs(checkpoint: CheckpointFactory, tmp_path: Path) -> None:
    first, told = checkpoint(), list[str]()
    copy = shutil.copytree(first, tmp_path / "copy")
    one, other = find_subject(first, print), find_subject(copy, print)
    assert distinct([one, one, other], told.append) == [one]
    assert told == [f"{copy} has the weights of {first}: one model, scored once"]
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0.5}))
    with pytest.raises(TrainError, match=f"{copy} has the weights of {first}, but another configuration or tokenizer"):
        distinct([one, find_subject(copy, print)], told.append)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.json", "{}", "or none that AutoTokenizer opens: KeyError"),
        ("tokenizer_config.json", "[]", "tokenizer_config.json is not a tokenizer's settings"),
        ("config.json", '{"vocab_size": 23}', "config.json: "),
        ("config.json", '{"model_type": "symbert", "hidden_size": "3"}', "config.json: `hidden_size` is '3'; expected"),
        ("config.json", '{"quantization_config": {"quant_method": "fp8"}}', "`quantization_config` is set; expected"),
        ("model.safetensors.index.json", "{}", "index.json is damaged: `weight_map` is missing"),
    ],
)
def test_a_file_of_another_form_is_named(
    file: str, content: str, message: str, checkpoint: CheckpointFactory, tmp_path: Path
) -> None:
    copy = shutil.copytree(checkpoint(), tmp_path / "copy")
    if file.startswith("model"):
        (copy / "model.safetensors").unlink()
    (copy / file).write_text(content)
    with pytest.raises((TrainError, SymbertError), match=message):
        load_tokenizer(find_subject(copy, print))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_before_anything_is_trained(
    value: float, checkpoint: CheckpointFactory, tmp_path: Path
) -> None:
    copy = shutil.copytree(checkpoint(), tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    weights["symbert.encoder.layer.0.output.dense.bias"][0] = value
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(SymbertError, match=f"{copy}: the weight symbert.encoder.*dense.bias holds NaN or infinity"):
        find_subject(copy, print)
