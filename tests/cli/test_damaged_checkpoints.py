"""The contract of every command that reads a checkpoint: one that cannot be read is refused in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from cli.main import run
from tests.corpora import write_corpus
from tests.train.tiny import tiny_assignments
from train.checkpoint import checkpoint_folder


def add_an_unknown_field(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "attention_operater": "pairwise"}))


def name_another_operator(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "attention_operator": "pairwize"}))


def name_too_many_layers(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "attention_operator": ["original"] * 3}))


def say_that_the_weights_are_quantized(folder: Path) -> None:
    path = folder / "config.json"
    quantized = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **quantized}))


def put_a_nan_into_the_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["cls.predictions.bias"][7] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def name_labels_by_a_list(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "id2label": ["no", "yes"]}))


def cut_the_configuration(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text()[:40])


def cut_the_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def name_two_architectures(folder: Path) -> None:
    path = folder / "config.json"
    names = ["SymbertForMaskedLM", "SymbertModel"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": names}))


def widen_the_configuration(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_size": 48}))


DAMAGE = {
    name_two_architectures: "config.json: `architectures` is ['SymbertForMaskedLM', 'SymbertModel']; expected a list",
    widen_the_configuration: "the weights do not fit config.json; mismatched keys: ",
    name_labels_by_a_list: "config.json: 'list' object has no attribute 'items'",
    say_that_the_weights_are_quantized: "config.json: `quantization_config` is set; expected weights in floating point",
    put_a_nan_into_the_weights: "the weight cls.predictions.bias holds NaN or infinity; its training has diverged",
    name_another_operator: "`pairwize` is not an attention operator",
    name_too_many_layers: "names 3 layers; expected 2",
    cut_the_configuration: "config.json is damaged",
    cut_the_weights: "the weights are damaged",
}
COMMANDS = {
    "export": "export {model} --out {new}",
    "onnx": "export {model} --out {new} --format onnx",
    "hub": "export {model} --out {new} --format hub",
    "analyze": "analyze {model}",
    "evaluate": "evaluate {model} --data {corpus} --device cpu",
    "init-from": "pretrain --data {corpus} --out {new} --init-from {model} --device cpu --quiet",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def model(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    settings = [word for text in tiny_assignments(schedule__max_steps=4) for word in ("--set", text)]
    assert run(["pretrain", "--data", str(corpus), "--out", str(out), "--device", "cpu", "--quiet", *settings]) == 0
    return checkpoint_folder(out, 4)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_checkpoint_that_cannot_be_read_is_refused_in_one_line_and_nothing_is_written(
    corpus: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    damage: Callable[[Path], None],
) -> None:
    folder, new = shutil.copytree(model, tmp_path / "model"), tmp_path / "new"
    (folder / "state.json").unlink()  # as transformers saves a model: no hashes tell of the damage
    damage(folder)
    words = COMMANDS[command].format(model=folder, corpus=corpus, new=new).split()
    if command == "init-from":
        words += [word for text in tiny_assignments() for word in ("--set", text)]
    capsys.readouterr()
    assert run(words) == 1
    output = capsys.readouterr()
    assert output.out == ""
    errors = [line for line in output.err.splitlines() if line and not line.startswith("hint: ")]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {folder}")
    assert DAMAGE[damage] in errors[0]
    assert not new.exists()


def overwrite_two_bytes_of_the_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-10:-8] = b"\x11\x22"
    path.write_bytes(content)


def list_no_files(folder: Path) -> None:
    path = folder / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": []}))


RECORDED = {
    overwrite_two_bytes_of_the_weights: "model.safetensors is damaged: its sha256 is not the recorded one",
    add_an_unknown_field: "config.json is damaged: its sha256 is not the recorded one",
    list_no_files: "state.json is damaged: `files` is []",
    shutil.rmtree: "does not exist, expected a checkpoint or run folder",
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", RECORDED)
def test_a_checkpoint_named_by_its_own_folder_is_held_to_its_recorded_hashes(
    corpus: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    damage: Callable[[Path], None],
) -> None:
    run_folder, new = shutil.copytree(model.parents[1], tmp_path / "run"), tmp_path / "new"
    folder = checkpoint_folder(run_folder, 4)
    damage(folder)
    words = COMMANDS[command].format(model=folder, corpus=corpus, new=new).split()
    assert run(words) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"error: {folder}")
    assert RECORDED[damage] in output.err
    assert not new.exists()


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identity": None}, "`identity` is None, expected an object"),
        ({"identity": []}, "`identity` is [], expected an object"),
        ({"invocations": None}, "`invocations` is None, expected a valid list"),
        ({"invocations": [5]}, "`invocations.0` is 5, expected an object"),
    ],
)
def test_a_run_whose_environment_does_not_fit_is_not_continued(
    corpus: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, object],
    message: str,
    more: list[str],
) -> None:
    folder = shutil.copytree(model.parents[1], tmp_path / "run")
    path = folder / "environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    before = path.read_bytes()
    settings = [word for text in tiny_assignments(schedule__max_steps=4) for word in ("--set", text)]
    options = ["--data", str(corpus), "--out", str(folder), "--device", "cpu", "--quiet", *settings, *more]
    assert run(["pretrain", *options]) == 1
    assert capsys.readouterr().err == f"error: {path} is damaged: {message}\n\nhint: put the file back from a copy\n"
    assert path.read_bytes() == before


def test_a_run_may_start_from_the_newest_checkpoint_of_another(corpus: Path, model: Path, tmp_path: Path) -> None:
    settings = [word for text in tiny_assignments(schedule__max_steps=4) for word in ("--set", text)]
    options = ["--data", str(corpus), "--device", "cpu", "--quiet", *settings]
    assert run(["pretrain", "--init-from", str(model.parents[1]), "--out", str(tmp_path / "run"), *options]) == 0
    identity = json.loads((tmp_path / "run" / "environment.json").read_text())["identity"]
    recorded = json.loads((model / "state.json").read_text())["files"]["model.safetensors"]
    assert identity["init_from_sha256"] == recorded


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.intermediate_size=48", "`intermediate_size` is 40 there and 48 here"),
        ("model.num_hidden_layers=3", "`num_hidden_layers` is 2 there and 3 here"),
        ("model.max_position_embeddings=64", "`max_position_embeddings` is 48 there and 64 here"),
        ("model.attention_operator=shared", "`shared` cannot start from BERT"),
    ],
)
def test_starting_from_a_model_that_does_not_fit_is_refused_and_makes_no_folder(
    corpus: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, message: str
) -> None:
    settings = [word for text in [*tiny_assignments(), change] for word in ("--set", text)]
    options = ["--data", str(corpus), "--device", "cpu", "--quiet", *settings]
    for more in ([], ["--dry-run"]):
        assert run(["pretrain", "--init-from", str(model), "--out", str(tmp_path / "run"), *options, *more]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
